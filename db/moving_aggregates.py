"""Move the aggregates of minutes that were dropped: the target cannot make them of anything.

In mode `timescale` they go where TimescaleDB materializes its aggregates. It must not refresh them
there, so the application refreshes alone from the beginning, as wherever minutes were dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg

from db.copying import Rows, copy, delete, digest

_COLUMNS = (
    "series_id", "timestamp", "open", "high", "low", "close", "volume", "turnover", "trades",
    "updated_at", "revision", "void",
)  # fmt: skip
_LINES = """
    SELECT r.series_id, a.level, r.since
    FROM retained r JOIN retained a ON a.series_id = r.series_id AND a.level > 0
    WHERE r.level = 0 ORDER BY 1, 2
"""
_IS_TIMESCALE = "SELECT to_regproc('materialization') IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Kept:
    """The buckets of one aggregate of a series that open where its minutes are gone."""

    series: int
    level: int
    rows: Rows

    def __str__(self) -> str:
        return f"aggregate {self.level} of series {self.series}"


async def kept_aggregates(source: asyncpg.Connection) -> AsyncIterator[Kept]:
    """Yield the aggregates that are to be moved."""
    for series, level, since in await source.fetch(_LINES):
        where = f'series_id = $1 AND level = {level} AND "timestamp" < $2'
        yield Kept(series, level, Rows("rollup", where, (series, since)))


async def prepare(target: asyncpg.Connection) -> None:
    """Let nobody but the application refresh aggregates at the target."""
    if await target.fetchval(_IS_TIMESCALE):
        await target.execute("SELECT refresh_alone()")


async def move_aggregate(
    source: asyncpg.Connection, target: asyncpg.Connection, kept: Kept
) -> tuple[int, bool, bool]:
    """Move one aggregate in one transaction.

    Return how many rows it has, whether they were copied, and whether both sides are the same.
    """
    theirs, table, schema = kept.rows, "rollup", None
    made = {"level": f"{kept.level}::smallint"}
    if await target.fetchval(_IS_TIMESCALE):
        relation = await target.fetchval("SELECT materialization($1)", kept.level)
        schema, _, table = relation.partition(".")
        theirs = Rows(relation, 'series_id = $1 AND "timestamp" < $2', kept.rows.arguments)
        made = {}
    mine = await digest(source, kept.rows, _COLUMNS)
    if mine == await digest(target, theirs, _COLUMNS):
        return mine[0], False, True
    async with target.transaction():
        await delete(target, theirs)
        await copy(source, kept.rows, _COLUMNS, target, table, schema=schema, made=made)
        return mine[0], True, mine == await digest(target, theirs, _COLUMNS)
