"""Read stored bars as of one instant: pages of one series, and pieces of any.

Read at full speed: on TimescaleDB a transaction that waits makes everybody else wait, once a chunk
that it has read is to be compressed. One that is left idle is ended, as everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from db import rows, statements
from db.binary import array_times, clipped
from db.errors import store_failures
from db.listed import reach
from db.stored import Found, SeriesKey, SeriesState
from market.bars import Bars
from market.window import Times, Window

PAGE = 10_000
"""Bars that one page holds at the most."""
_COUNTED = 100_000
"""Bars that one statement counts at the most: it has to end in time."""

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

_COUNT = """
    SELECT count(*) AS count, (extract(epoch FROM max(b."timestamp")) * 1000)::bigint AS last
    FROM (
        SELECT "timestamp" FROM bar
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
    """One series as it stood at one instant. Withdrawn bars are not shown.

    Nor are those before `state.retained_from`, which may be deleted while they are read.
    """

    def __init__(self, connection: asyncpg.Connection, state: SeriesState) -> None:
        self._connection = connection
        self.state = state

    async def reach(self) -> Window | None:
        """Return the window from the oldest to the newest opening, None where no bar is stored.

        Withdrawn bars count. Raises `StoreUnavailable`.
        """
        return await reach(self._connection, self.state.id)

    async def count(self, window: Window) -> int:
        """Return how many bars `pages` gives of *window*. Raises `StoreUnavailable`."""
        since, until = self._kept(window)
        count = 0
        while since < until:
            with store_failures():
                row = await self._connection.fetchrow(_COUNT, self.state.id, since, until, _COUNTED)
            count += row["count"]
            if row["count"] < _COUNTED:
                break
            since = row["last"] + 1
        return count

    async def pages(self, window: Window, *, size: int = PAGE) -> AsyncIterator[ObservedBars]:
        """Yield the bars of *window*, oldest first, at most *size* at a time.

        Raises `StoreUnavailable`.
        """
        since, until = self._kept(window)
        while since < until:
            with store_failures():
                row = await self._connection.fetchrow(_PAGE, self.state.id, since, until, size)
            bars = rows.bars(row)
            if not len(bars):
                return
            yield ObservedBars(bars, array_times(row["observed"]))
            since = int(bars.time[-1]) + 1

    def _kept(self, window: Window) -> tuple[int, int]:
        line = self.state.retained_from
        since = window.since if line is None else max(window.since, line)
        return clipped(since), clipped(window.until)


@asynccontextmanager
async def at_one_instant(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that shows the store as it stands now, to the end of the block.

    Raises `StoreUnavailable`.
    """
    async with pool.acquire() as connection:
        with store_failures():
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            await transaction.start()
        try:
            yield connection
        finally:
            with store_failures():
                await transaction.rollback()


@asynccontextmanager
async def bar_pages(pool: asyncpg.Pool, series_id: int) -> AsyncIterator[BarPages]:
    """Yield the series as it stands now, to the end of the block.

    Raises `LookupError` for an unknown series, and `StoreUnavailable`.
    """
    async with at_one_instant(pool) as connection:
        with store_failures():
            await connection.execute(_BY_INDEX)
            row = await connection.fetchrow(statements.STATE, series_id)
        if row is None:
            raise LookupError(f"there is no series {series_id}")
        yield BarPages(connection, rows.existing_state(row))


async def read_bars(
    on: asyncpg.Pool | asyncpg.Connection, key: SeriesKey, window: Window, *, level: int = 0
) -> Found:
    """Return where a series stands and its bars that open in *window*, withdrawn ones included.

    Of a *level* above 0 it is bars of that aggregate. One statement. Raises `StoreUnavailable`.
    """
    since, until = clipped(window.since), clipped(window.until)
    with store_failures():
        row = await on.fetchrow(statements.SNAPSHOT, *rows.names([key]), [level], [since], [until])
    return Found(rows.state(row), rows.bars(row))
