"""Read the bars of one series page by page, all as of one instant, with when each was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from db import rows, statements
from db.binary import array_times, clipped
from db.errors import store_failures
from db.stored import SeriesState
from market.bars import Bars
from market.window import Times, Window

PAGE = 10_000
"""Bars that one page holds at the most."""

# The columns of `read_bars`, for as many bars as a page holds.
_PAGE = """
    SELECT array_send(array_agg(b."timestamp")) AS time,
           array_send(array_agg(lseg(point(b.open, b.high), point(b.low, b.close)))) AS prices,
           array_send(array_agg(point(b.volume, coalesce(b.vwap, 'NaN')))) AS volumes,
           array_send(array_agg(coalesce(b.trades, -1))) AS trades,
           array_send(array_agg(8 * b.revision::bigint + b.source)) AS marks,
           array_send(array_agg(b.updated_at)) AS updated,
           array_send(array_agg(b.observed_at)) AS observed
    FROM (
        SELECT * FROM bar
        WHERE series_id = $1
          AND "timestamp" >= from_epoch_ms($2) AND "timestamp" < from_epoch_ms($3)
          AND NOT void
        ORDER BY "timestamp" LIMIT $4
    ) b
"""

# Without statistics of a table that has just been filled, each page would sort all that is left.
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"


@dataclass(frozen=True, slots=True, eq=False)
class ObservedBars:
    """Bars and, for each, when the provider was asked for its values."""

    bars: Bars
    observed: Times


class BarPages:
    """One series as it stood at one instant. Withdrawn bars are not shown."""

    def __init__(self, connection: asyncpg.Connection, state: SeriesState) -> None:
        self._connection = connection
        self.state = state

    async def pages(self, window: Window, *, size: int = PAGE) -> AsyncIterator[ObservedBars]:
        """Yield the bars of *window*, oldest first, at most *size* at a time.

        Raises `StoreUnavailable`.
        """
        since, until = clipped(window.since), clipped(window.until)
        while since < until:
            with store_failures():
                row = await self._connection.fetchrow(_PAGE, self.state.id, since, until, size)
            bars = rows.bars(row)
            if not len(bars):
                return
            yield ObservedBars(bars, array_times(row["observed"]))
            since = int(bars.time[-1]) + 1


@asynccontextmanager
async def bar_pages(pool: asyncpg.Pool, series_id: int) -> AsyncIterator[BarPages]:
    """Yield the series as it stands now, however long its reading takes.

    Raises `LookupError` for an unknown series, and `StoreUnavailable`.
    """
    async with pool.acquire() as connection:
        with store_failures():
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            await transaction.start()
        try:
            with store_failures():
                await connection.execute(_BY_INDEX)
                row = await connection.fetchrow(statements.STATE, series_id)
            if row is None:
                raise LookupError(f"there is no series {series_id}")
            yield BarPages(connection, rows.existing_state(row))
        finally:
            with store_failures():
                await transaction.rollback()
