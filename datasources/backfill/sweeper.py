"""Find the jobs that nobody runs and enqueue them again, and take the looks that are due.

So a queue that forgets, and a process that dies, lose no job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from datasources.backfill.runner import BackfillRunner
from db.backfills import BackfillStore
from market.errors import BargraphError

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 10.0
_MOST_LOOKS = 20
"""Looks taken before jobs are looked for again."""


class Sweeper:
    """Sweeps every *pause* seconds. Enqueuing a job that waits in the queue must be harmless."""

    def __init__(
        self,
        backfills: BackfillStore,
        runner: BackfillRunner,
        *,
        enqueue: Callable[[UUID], Awaitable[None]],
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self._backfills = backfills
        self._runner = runner
        self._enqueue = enqueue
        self._pause = pause

    async def run(self) -> None:
        """Sweep until cancelled; while the store or the queue is away, try again later."""
        while True:
            try:
                await self.sweep()
            except (BargraphError, OSError) as away:
                log.debug("not swept: %s", away)
            await asyncio.sleep(self._pause)

    async def sweep(self) -> None:
        """Enqueue every job that nobody holds, and take some of the looks that are due."""
        for orphan in await self._backfills.orphans():
            await self._enqueue(orphan)
        for _ in range(_MOST_LOOKS):
            if not await self._runner.look_again():
                break
