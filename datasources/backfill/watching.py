"""Follow the rows of jobs: each that is watched is read again and again, once for all watchers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from uuid import UUID

from db.backfills import Backfill, BackfillStore
from market.errors import StoreUnavailable

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.5


class _Followed:
    """One row as it was last read. *over* says that it will not be read any more."""

    def __init__(self) -> None:
        self.watchers = 0
        self.seen: Backfill | None = None
        self.over = False
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def tell(self, backfill: Backfill | None) -> None:
        self.seen = backfill
        self.over = backfill is None or backfill.state.over
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Watches:
    """The jobs that are watched in this process, each read every *pause* seconds."""

    def __init__(self, backfills: BackfillStore, *, pause: float = _PAUSE_SECONDS) -> None:
        self._backfills = backfills
        self._pause = pause
        self._followed: dict[UUID, _Followed] = {}

    async def watch(self, id: UUID) -> AsyncIterator[Backfill]:
        """Yield the job as it is, then after each change, until it is over or gone.

        Raises `StoreUnavailable` if it cannot be read at first; later it is waited for.
        """
        now = await self._backfills.get(id)
        if now is None:
            return
        yield now
        if now.state.over:
            return
        followed = self._followed.get(id)
        if followed is None or followed.over:
            followed = self._followed[id] = _Followed()
            followed.task = asyncio.create_task(self._follow(id, followed), name=f"watch {id}")
        followed.watchers += 1
        try:
            while True:
                changed = followed.changed
                if followed.seen is not None and _is_later(followed.seen, now):
                    now = followed.seen
                    yield now
                if followed.over:
                    return
                await changed.wait()
        finally:
            followed.watchers -= 1
            if not followed.watchers:
                assert followed.task is not None
                followed.task.cancel()
                if self._followed.get(id) is followed:
                    del self._followed[id]

    async def aclose(self) -> None:
        """End all watching."""
        tasks = [followed.task for followed in self._followed.values() if followed.task]
        for followed in self._followed.values():
            followed.over = True
            followed.changed.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, id: UUID, followed: _Followed) -> None:
        while not followed.over:
            try:
                read = await self._backfills.get(id)
            except StoreUnavailable as away:
                log.debug("not read: %s", away)
            else:
                if read is None or read != followed.seen:
                    followed.tell(read)
            if not followed.over:
                await asyncio.sleep(self._pause)


def _is_later(one: Backfill, other: Backfill) -> bool:
    return one != other and (one.state.over, one.updated_at) >= (other.state.over, other.updated_at)
