"""Find what a server keeps of clients that are gone: hundreds that come and go for minutes.

    python -m benchmarks.live.soak [--seconds 600] [--sockets 500]

The server is a real one that does everything, over `sim` at its own pace. It must end with the
tasks, file descriptors, connections and, nearly, the memory that it had after a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import psutil
import uvloop
from redis.asyncio import Redis

from benchmarks.candles.load import HOST, LoadFailed, get
from benchmarks.candles.servers import CHECKOUT, ServerFailed, free_port
from benchmarks.live.holdings import Holdings, Watcher
from benchmarks.live.swarm import FEEDS, Swarm
from db.embedded.servers import embedded_servers

GROWTH = 16_000_000
"""Bytes of resident memory that a server may have more at the end: allocators and caches breathe.
Ten minutes see some tens of thousands of visits, so this is a few hundred bytes for each."""
_PATIENCE = 60.0
_CALM = 30.0
"""Seconds that a server has to put everything away."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds."""

    sockets: int
    seconds: float
    warming: float
    visit: float = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    before: Holdings
    after: Holdings
    swarm: Swarm

    @property
    def leaks(self) -> list[str]:
        """What there is more of than before, memory left out, and what went wrong."""
        return [*self.after.grown(self.before), *self.swarm.faults]


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watcher]:
    """Start a server over embedded ones in *folder*, and end it at last. Raises `ServerFailed`."""
    port, tasks, log = free_port(), free_port(), folder / "server.log"
    kept = {word: os.environ[word] for word in ("PATH", "HOME", "LANG") if word in os.environ}
    given = {"DATA_DIR": str(folder / "stores"), "CCXT_EXCHANGES": "", "PORT": str(port)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.live.watched", str(tasks)),
            cwd=folder,
            env={**kept, "PYTHONPATH": str(CHECKOUT), **given},
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        async with asyncio.timeout(_PATIENCE):
            while not await _answers(port):
                if process.returncode is not None:
                    raise ServerFailed(f"it ended with {process.returncode}")
                await asyncio.sleep(0.05)
        async with _watching(folder, port, psutil.Process(process.pid), tasks) as watcher:
            yield watcher
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        print(log.read_text(errors="replace")[-4000:], end="", file=sys.stderr)


@asynccontextmanager
async def _watching(
    folder: Path, port: int, process: psutil.Process, tasks: int
) -> AsyncIterator[Watcher]:
    async with embedded_servers(folder / "stores") as stores:
        postgres = await asyncpg.connect(stores.postgres_url)
        try:
            async with Redis.from_url(stores.redis_url, single_connection_client=True) as redis:
                yield Watcher(port, process, tasks, postgres, redis)
        finally:
            await postgres.close()


async def soak(server: Watcher, plan: Plan, *, say: Callable[[str], None]) -> Outcome:
    """Let the swarm of *plan* come and go, and compare what the server holds while nobody is there.

    Every stream is watched just before, so that the same feeds run both times. Raises
    `TimeoutError` if they do not.
    """
    url = f"ws://{HOST}:{server.port}/graphql"
    warming = Swarm(url, random.Random(1))
    # All at once, so that pools are full and whatever is loaded late is there.
    await warming.stay(plan.sockets, seconds=plan.warming, visit=plan.visit / 4)
    await _all_fed(server, warming)
    before = await _calm(server, None)
    while before.feeds < FEEDS:
        # It took so long that some had ended: the same ones are to run both times.
        await _all_fed(server, warming)
        before = await _calm(server, None)
    say(f"after {warming.visits:,} visits to warm up: {before}")
    swarm = Swarm(url, random.Random(2))
    staying = asyncio.create_task(
        swarm.stay(plan.sockets, seconds=plan.seconds, visit=plan.visit), name="swarm"
    )
    while not (await asyncio.wait([staying], timeout=plan.seconds / 10))[0]:
        say(f"{swarm.visits:,} visits, {swarm.messages:,} messages: {await server.look()}")
    staying.result()
    await _all_fed(server, swarm)
    after = await _calm(server, before)
    say(f"after {swarm.visits:,} visits: {after}")
    return Outcome(before, after, swarm)


async def _all_fed(server: Watcher, swarm: Swarm) -> None:
    """Wait until every feed there is runs; each goes on for a while after its last viewer."""
    async with asyncio.timeout(_PATIENCE), swarm.seeing_all():
        while (await server.look()).feeds < FEEDS:
            await asyncio.sleep(0.25)


async def _calm(server: Watcher, before: Holdings | None) -> Holdings:
    """Wait until nobody is served, and nothing has grown since *before*; give up in the end.

    Without *before* wait until no task comes or goes.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _CALM
    last = before
    while True:
        holdings = await server.look()
        same = last is not None and holdings.tasks == last.tasks
        calm = not holdings.grown(before) if before else same
        if (calm and not holdings.served) or loop.time() > until:
            return holdings
        last = holdings
        await asyncio.sleep(0.5)


async def _answers(port: int) -> bool:
    try:
        await get(port, "/livez")
    except (OSError, EOFError, LoadFailed):
        return False
    return True


async def main(plan: Plan) -> int:
    """Print what came of it, and return the exit code."""
    with TemporaryDirectory(prefix="bargraph-soak-") as scratch:
        folder = Path(scratch)
        # What embedded servers run as need not be who runs this.
        folder.chmod(0o755)
        async with watched(folder) as server:
            outcome = await soak(server, plan, say=lambda words: print(words, flush=True))
    swarm, leaks = outcome.swarm, outcome.leaks
    more = outcome.after.resident - outcome.before.resident
    print(
        f"{swarm.visits:,} visits, {swarm.resumed:,} subscriptions with a cursor, "
        f"{swarm.messages:,} messages, {swarm.failed} connections that failed"
    )
    print(f"memory: {more / 1e6:+.1f} MB, {more / max(1, swarm.visits):+.0f} bytes a visit")
    if more > GROWTH:
        leaks.append(f"{more / 1e6:.1f} MB of memory more")
    print("\n".join(leaks) or "nothing grew")
    return 1 if leaks else 0


def arguments() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.soak")
    parser.add_argument("--seconds", type=float, default=600, help="how long, after the warm-up")
    parser.add_argument("--sockets", type=int, default=500, help="how many at a time")
    chosen = parser.parse_args()
    return Plan(chosen.sockets, chosen.seconds, warming=min(60, chosen.seconds / 2))


if __name__ == "__main__":
    try:
        sys.exit(uvloop.run(main(arguments())))
    except (ServerFailed, OSError, TimeoutError) as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
