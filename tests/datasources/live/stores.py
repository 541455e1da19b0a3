"""Candle stores over the real one that halt, or count what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg

from db.candles import CandleStore
from db.stored import ChangeLog, Write, Written


class HaltingStore(CandleStore):
    """While `passing` is not set, a write is committed and its writer hears nothing of it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.passing = asyncio.Event()
        self.passing.set()
        self.committed = asyncio.Event()
        """Set once a write was committed that nobody heard of."""

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        written = await super().write(writes)
        if not self.passing.is_set():
            self.committed.set()
        await self.passing.wait()
        return written


class CountingStore(CandleStore):
    """Counts how often the log of changes was read."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.logs_read = 0

    async def changes(self, series_id: int, *, after: int, limit: int) -> ChangeLog:
        self.logs_read += 1
        return await super().changes(series_id, after=after, limit=limit)
