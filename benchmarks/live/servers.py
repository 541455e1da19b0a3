"""Every server of a run, started afresh for each measurement and held to one core."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil

from benchmarks.candles.load import LoadFailed as NoAnswer
from benchmarks.candles.load import get
from benchmarks.candles.servers import CHECKOUT, ServerFailed, free_port, node_commands, pinned
from benchmarks.live.asked import CHANNEL
from benchmarks.live.stock import REDIS_URL
from db.embedded.servers import EmbeddedServers, embedded_servers

PEERS = Path(__file__).parent / "peers"
_STORES = "stores"
OURS, STOCK, NODE, LIMIT = "ours", "stock", "graphql-ws", "limit"
_PATIENCE = 60.0
_LEAVE = 5.0
"""Seconds a server gets to end; one with a backlog has no time for it."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One line of the tables: a server, and how it is started on a port."""

    key: str
    title: str
    command: Callable[[int], Sequence[str]]
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers, and what it has used so far."""

    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Return the seconds of CPU of all its threads, to the nanosecond the kernel counts."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident(self) -> int:
        """Return its resident memory in bytes."""
        return int(self.process.memory_info().rss)


@asynccontextmanager
async def running_stores(folder: Path, core: int) -> AsyncIterator[EmbeddedServers]:
    """Yield PostgreSQL and Valkey, on *core* as the servers that use them."""
    async with AsyncExitStack() as stack:
        with pinned(core):
            stores = await stack.enter_async_context(embedded_servers(folder / _STORES))
        yield stores


def variants(folder: Path, stores: EmbeddedServers) -> list[Variant]:
    """Return all there is to measure, over the *stores* in *folder*."""
    node, _ = node_commands()
    redis_socket = unquote(urlsplit(stores.redis_url).path)

    def python(name: str) -> Callable[[int], Sequence[str]]:
        application = f"benchmarks.live.stock:{name}"
        options = "--factory --host 127.0.0.1 --loop uvloop --http httptools"
        quiet = "--ws websockets-sansio --no-access-log --lifespan on --log-level warning"
        words = f"-m uvicorn {application} {options} {quiet} --port".split()
        return lambda port: [sys.executable, *words, str(port)]

    def javascript(port: int) -> Sequence[str]:
        return [node, str(PEERS / f"{NODE}.mjs"), str(port), redis_socket, CHANNEL]

    ours = {"DATA_DIR": str(folder / _STORES), "CCXT_EXCHANGES": "", "ROLE": "api"}
    peer = {REDIS_URL: stores.redis_url}
    serve = [sys.executable, "-m", "web", "serve"]
    return [
        Variant(OURS, "Bargraph", lambda _: serve, ours),
        Variant(STOCK, "Strawberry, stock", python("stock"), peer),
        Variant(NODE, "graphql-ws on Node", javascript, {"NODE_ENV": "production"}),
        Variant(LIMIT, "send_text of a ready string (limit)", python("limit"), peer),
    ]


@asynccontextmanager
async def serving(variant: Variant, folder: Path, core: int) -> AsyncIterator[Serving]:
    """Start *variant* on *core*, and end it at last. Raises `ServerFailed`."""
    port = free_port()
    log = folder / f"{variant.key}.log"
    kept = {word: os.environ[word] for word in ("PATH", "HOME", "LANG") if word in os.environ}
    # In the scratch folder, so that nobody's `.env` has a say.
    with log.open("wb") as output, pinned(core):
        process = await asyncio.create_subprocess_exec(
            *variant.command(port),
            cwd=folder,
            env={**kept, "PYTHONPATH": str(CHECKOUT), "PORT": str(port), **variant.settings},
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        async with asyncio.timeout(_PATIENCE):
            while not await _answers(port):
                if process.returncode is not None:
                    raise ServerFailed(f"{variant.key} ended with {process.returncode}")
                await asyncio.sleep(0.05)
        yield Serving(port, psutil.Process(process.pid))
    except BaseException:
        if end := log.read_text(errors="replace")[-2000:]:
            print(f"--- {variant.key}\n{end}", file=sys.stderr)
        raise
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _LEAVE)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _answers(port: int) -> bool:
    """Whether HTTP is answered, were it with 404: a port may be open before that."""
    try:
        await get(port, "/metrics")
    except NoAnswer:
        return True
    except (OSError, EOFError):
        return False
    return True


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
