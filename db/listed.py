"""Which series the store holds, and how far the bars of each reach."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from db.errors import store_failures
from db.stored import SeriesFacts, SeriesKey
from market.instrument import Adjustment, Listing
from market.timeframe import Timeframe
from market.window import Window

_LISTED = """
    SELECT id, provider, market, symbol, timeframe, adjustment, feed, dataset,
           base_currency, quote_currency, around_the_clock
    FROM series
    WHERE ($1::text IS NULL OR provider = $1) AND ($2::text IS NULL OR symbol = $2)
    ORDER BY provider, market, symbol, adjustment, feed, dataset, timeframe
    LIMIT $3
"""
_REACH = """
    SELECT (extract(epoch FROM first) * 1000)::bigint AS first,
           (extract(epoch FROM last) * 1000)::bigint AS last
    FROM (SELECT min("timestamp") AS first, max("timestamp") AS last
          FROM bar WHERE series_id = $1) b
"""


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series of the store."""

    id: int
    key: SeriesKey
    facts: SeriesFacts


async def stored_series(
    pool: asyncpg.Pool | asyncpg.Connection,
    *,
    provider: str | None = None,
    symbol: str | None = None,
    limit: int = 10_000,
) -> list[StoredSeries]:
    """Return at most *limit* series, those of a provider or a symbol alone where one is named.

    Raises `StoreUnavailable`.
    """
    with store_failures():
        found = await pool.fetch(_LISTED, provider, symbol, limit)
    return [_series(row) for row in found]


async def reach(pool: asyncpg.Pool, series_id: int) -> Window | None:
    """Return the window from the oldest to the newest opening time, None where no bar is stored.

    Withdrawn bars count. Raises `StoreUnavailable`.
    """
    with store_failures():
        row = await pool.fetchrow(_REACH, series_id)
    return None if row["first"] is None else Window(row["first"], row["last"] + 1)


def _series(row: asyncpg.Record) -> StoredSeries:
    listing = Listing(
        provider=row["provider"],
        market=row["market"],
        symbol=row["symbol"],
        adjustment=Adjustment(row["adjustment"]) if row["adjustment"] else None,
        feed=row["feed"] or None,
        dataset=row["dataset"],
    )
    return StoredSeries(
        row["id"],
        SeriesKey(listing, Timeframe.parse(row["timeframe"])),
        SeriesFacts(row["base_currency"], row["quote_currency"], row["around_the_clock"]),
    )
