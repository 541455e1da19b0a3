"""Which series the store holds, how far the bars of each reach, and what of them was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from db import statements
from db.binary import multirange_spans
from db.errors import store_failures
from db.stored import SeriesFacts, SeriesKey
from market.instrument import Adjustment, Listing
from market.timeframe import Timeframe
from market.window import Spans, Window

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
_DROPPED = """
    SELECT p.timeframe, multirange_send(k.known) AS known,
           CASE WHEN isfinite(k.since) THEN (extract(epoch FROM k.since) * 1000)::bigint END AS line
    FROM retained k LEFT JOIN preaggregation_configs p USING (level)
    WHERE k.series_id = $1 ORDER BY k.level
"""


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series of the store."""

    id: int
    key: SeriesKey
    facts: SeriesFacts


@dataclass(frozen=True, slots=True)
class Dropped:
    """Bars of a series before *line* were dropped because of their age.

    *told* says of which settled time before it each aggregate of the series still tells, *lines*
    since when those are kept that were dropped too.
    """

    line: int
    told: Mapping[Timeframe, Spans]
    lines: Mapping[Timeframe, int]


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


async def reach(pool: asyncpg.Pool | asyncpg.Connection, series_id: int) -> Window | None:
    """Return the window from the oldest to the newest opening time, None where no bar is stored.

    Withdrawn bars count. Raises `StoreUnavailable`.
    """
    with store_failures():
        row = await pool.fetchrow(_REACH, series_id)
    return None if row["first"] is None else Window(row["first"], row["last"] + 1)


async def dropped(pool: asyncpg.Pool | asyncpg.Connection, series_id: int) -> Dropped | None:
    """Return what was dropped of a series, None where nothing was. Raises `StoreUnavailable`."""
    with store_failures():
        found = await pool.fetch(_DROPPED, series_id)
    if not found:
        return None
    bars, *aggregates = found
    views = {Timeframe.parse(row["timeframe"]): row for row in aggregates}
    told = {view: multirange_spans(row["known"]) for view, row in views.items()}
    lines = {view: row["line"] for view, row in views.items() if row["line"] is not None}
    return Dropped(bars["line"], told, lines)


async def levels(pool: asyncpg.Pool | asyncpg.Connection) -> dict[Timeframe, int]:
    """Return the number of each aggregate, the coarsest first. Raises `StoreUnavailable`."""
    with store_failures():
        found = await pool.fetch(statements.LEVELS)
    return {Timeframe.parse(row["timeframe"]): row["level"] for row in found}


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
