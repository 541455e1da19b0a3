"""Publish the sources that are asked for, each by one process at a time, under a lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from datasources.ingest.counts import IngestCounts
from datasources.ingest.pacing import IngestPacing
from datasources.ingest.publisher import TradePublisher
from datasources.ingest.sources import SourceName
from datasources.live.leases import Lease, Leases
from datasources.live.redis_away import RedisAway
from market.errors import BargraphError

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class _Running:
    lease: Lease
    task: asyncio.Task[None]


class SourceKeeper:
    """Keeps *names* published; `run` does the work until it is cancelled.

    *open_source* builds the publisher of a name; it raises `BargraphError` for one that this
    process cannot publish. Two that publish one source for a moment do no harm: trades have names.
    """

    def __init__(
        self,
        names: Sequence[SourceName],
        *,
        leases: Leases,
        open_source: Callable[[SourceName], Awaitable[TradePublisher]],
        counts: IngestCounts,
        pacing: IngestPacing,
    ) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._leases = leases
        self._open_source = open_source
        self._counts = counts
        self._pacing = pacing
        self._running: dict[SourceName, _Running] = {}
        self._pauses: dict[SourceName, tuple[float, float]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._away = False

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look_again(), name="sources: look")
                tasks.create_task(self._renew_again(), name="sources: renew")
        finally:
            self._stop(list(self._running))
            await asyncio.gather(*self._ending, return_exceptions=True)

    async def _look_again(self) -> None:
        while True:
            try:
                await self._look()
                self._away = False
            except RedisAway as away:
                if not self._away:
                    log.warning("No source of trades can be taken: %s", away)
                self._away = True
            await asyncio.sleep(self._pacing.look)

    async def _look(self) -> None:
        now = _loop_time()
        for name in self._names:
            if name not in self._running and self._pauses.get(name, (0.0, 0.0))[0] <= now:
                await self._take(name)

    async def _take(self, name: SourceName) -> None:
        lease = await self._leases.acquire(f"trades:{name}")
        if lease is not None:
            task = asyncio.create_task(self._publish(name, lease), name=f"publish {name}")
            self._running[name] = _Running(lease, task)
            self._counts.publishing = len(self._running)

    async def _publish(self, name: SourceName, lease: Lease) -> None:
        """Publish *name*; whatever ends that but a cancellation gives it up for a while."""
        began = _loop_time()
        try:
            publisher = await self._open_source(name)
            await publisher.run()
        except BargraphError as failure:
            log.warning("Cannot ingest %s: %s", name, failure)
        except Exception:
            log.exception("Ingesting %s failed", name)
        finally:
            await self._leases.release(lease)
        self._running.pop(name, None)
        self._counts.publishing = len(self._running)
        _, last = self._pauses.get(name, (0.0, 0.0))
        if _loop_time() - began > _LONGEST_PAUSE:
            last = 0.0
        pause = min(max(2 * last, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._pauses[name] = (_loop_time() + pause, pause)

    def _stop(self, names: Sequence[SourceName]) -> None:
        for name in names:
            running = self._running.pop(name)
            running.task.cancel()
            self._ending.add(running.task)
            running.task.add_done_callback(self._ending.discard)
        self._counts.publishing = len(self._running)

    async def _renew_again(self) -> None:
        while True:
            await asyncio.sleep(self._pacing.renew)
            held = {running.lease for running in self._running.values()}
            with suppress(RedisAway):
                # Nobody else can take them while it is away; afterwards they have ended.
                gone = held - await self._leases.renew(held)
                lost = [name for name, running in self._running.items() if running.lease in gone]
                for name in lost:
                    log.warning("The lease of %s has ended", name)
                self._stop(lost)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
