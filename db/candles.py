"""The candle store: read bars and what is known about them, write bars, follow what changed.

Times are milliseconds since the epoch. Whatever puts PostgreSQL out of reach raises
`StoreUnavailable`. What a write decides is told in `sql/0004_write.sql`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

import asyncpg

from db import rows, statements
from db.binary import clipped, multirange_spans
from db.errors import store_failures
from db.slices import arguments
from db.staging import check, merge
from db.stored import (
    NOTHING,
    ChangeLog,
    Found,
    SeriesFacts,
    SeriesKey,
    SeriesState,
    Wanted,
    Write,
    Written,
)
from market.timeframe import Timeframe
from market.window import Spans

T = TypeVar("T")

_SERIES_REMEMBERED = 20_000
_ACQUIRE = 5.0
"""Seconds to wait for a free connection."""


class _MadeAnew(Exception):
    """The database was made anew, or replaced by another, under us."""


class CandleStore:
    """Bars in PostgreSQL. One instance serves any number of tasks."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._ids: OrderedDict[SeriesKey, int] = OrderedDict()
        self._store_id: UUID | None = None
        self._levels: dict[Timeframe, int] = {}
        self.too_old = 0
        """Bars that were not taken in since the start, because such are not kept."""

    async def store_id(self) -> UUID:
        """Return what tells this store from every other; cursors carry it."""
        if self._store_id is None:
            async with self._connection() as connection:
                self._store_id = await connection.fetchval("SELECT id FROM store")
        return self._store_id

    async def views(self) -> tuple[Timeframe, ...]:
        """Return the timeframes that have an aggregate, the coarsest first. They never change."""
        if not self._levels:
            async with self._connection() as connection:
                found = await connection.fetch(statements.LEVELS)
            self._levels = {Timeframe.parse(row["timeframe"]): row["level"] for row in found}
        return tuple(self._levels)

    async def states(self, keys: Sequence[SeriesKey]) -> list[SeriesState | None]:
        """Return what is known of each series, None where nothing was stored. One statement."""
        async with self._connection() as connection:
            found = await connection.fetch(statements.STATES, *rows.names(keys))
        return self._noted(keys, [rows.state(row) for row in found])

    async def snapshot(self, wanted: Sequence[Wanted]) -> list[Found]:
        """Return states and bars, all as of one instant, in the order of *wanted*. One statement.

        Where a sum is greater than the database can add up, the stored bars themselves come instead
        of those to be made of them. Raises `KeyError` for a view there is none of.
        """
        if any(w.view is not None for w in wanted):
            await self.views()
        async with self._connection() as connection:
            try:
                found = await self._read(connection, wanted)
            except asyncpg.NumericValueOutOfRangeError:
                stored = [replace(w, buckets=None) for w in wanted]
                found = await self._read(connection, stored)
        states = self._noted([w.key for w in wanted], [rows.state(row) for row in found])
        return [Found(state, rows.bars(row)) for state, row in zip(states, found, strict=True)]

    async def ensure(self, series: Sequence[tuple[SeriesKey, SeriesFacts]]) -> list[int]:
        """Return the id of each series, storing those that are new."""
        ids = {key: self._ids[key] for key, _ in series if key in self._ids}
        new = {key: facts for key, facts in series if key not in ids}
        if new:
            names = rows.names(list(new))
            async with self._connection() as connection:
                found = await connection.fetch(statements.STATES, *names)
                if any(row["id"] is None for row in found):
                    # Two statements: one that inserts does not see what another one inserted.
                    await connection.execute(
                        statements.ADD_SERIES,
                        *names,
                        [facts.base for facts in new.values()],
                        [facts.quote for facts in new.values()],
                        [facts.around_the_clock for facts in new.values()],
                    )
                    found = await connection.fetch(statements.STATES, *names)
            ids |= {key: row["id"] for key, row in zip(new, found, strict=True)}
        for key, series_id in ids.items():
            self._ids[key] = series_id
            self._ids.move_to_end(key)
        while len(self._ids) > _SERIES_REMEMBERED:
            self._ids.popitem(last=False)
        return [ids[key] for key, _ in series]

    async def set_minutes_from(self, series_id: int, minutes_from: int) -> SeriesState:
        """Let coarser bars be computed from the minutes since then, and return the state.

        Set at first use; later it only moves backwards, which counts as a change of the time in
        between. A later time is ignored. Raises `LookupError` for an unknown series.
        """
        async with (
            self._connection() as connection,
            connection.transaction(isolation="read_committed"),
        ):
            try:
                await connection.execute(
                    "SELECT move_minutes_from($1, $2)", series_id, clipped(minutes_from)
                )
            except asyncpg.NoDataFoundError as error:
                raise LookupError(f"there is no series {series_id}") from error
            row = await connection.fetchrow(statements.STATE, series_id)
        return rows.existing_state(row)

    async def note_imported(self, key: SeriesKey, facts: SeriesFacts, spans: Spans) -> None:
        """Note that imports told all of *spans*."""

        async def note(connection: asyncpg.Connection, ids: Sequence[int]) -> None:
            edges = [span.since for span in spans], [span.until for span in spans]
            await connection.execute(statements.NOTE_IMPORTED, ids[0], *edges)

        await self.transact([(key, facts)], note)

    async def imported(self, series_id: int) -> Spans:
        """Return the time of which imports told all."""
        async with self._connection() as connection:
            found = await connection.fetchval(statements.IMPORTED, series_id)
        return NOTHING if found is None else multirange_spans(found)

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        """Merge *writes* in one transaction, in the order given where they share a series.

        Bars before the time that is kept are left out. Raises `InvalidBars`, and then stores
        nothing, for bars that cannot be true, are still forming, lie outside the years 1 to 9999
        or, being minutes, off the minute.
        """
        if not writes:
            return []
        for write in writes:
            check(write)

        async def merge_all(connection: asyncpg.Connection, ids: Sequence[int]) -> list[Written]:
            return await merge_in_turns(connection, ids, writes)

        written = await self.transact([(write.key, write.facts) for write in writes], merge_all)
        self.too_old += sum(one.too_old for one in written)
        return written

    async def transact(
        self,
        series: Sequence[tuple[SeriesKey, SeriesFacts]],
        work: Callable[[asyncpg.Connection, Sequence[int]], Awaitable[T]],
    ) -> T:
        """Return what *work* does in one transaction, given the id of each series.

        It may `merge_in_turns`, at most once, and is done over if the database was made anew.
        """
        try:
            return await self._transact(series, work)
        except (asyncpg.NoDataFoundError, _MadeAnew):
            # The ids remembered are another database's.
            self._ids.clear()
            self._store_id = None
            return await self._transact(series, work)

    async def changes(self, series_id: int, *, after: int, limit: int) -> ChangeLog:
        """Return at most *limit* changes after a position, oldest first. One statement.

        Raises `LookupError` for an unknown series.
        """
        async with self._connection() as connection:
            row = await connection.fetchrow(statements.CHANGES, series_id, after, limit)
        if row is None:
            raise LookupError(f"there is no series {series_id}")
        return ChangeLog(rows.changes(row), pruned=row["pruned"], head=row["head"])

    async def _read(
        self, connection: asyncpg.Connection, wanted: Sequence[Wanted]
    ) -> list[asyncpg.Record]:
        """Return the rows of *wanted* in its order."""
        read = [w for w in wanted if w.buckets is None]
        made = [(w.key, w.buckets) for w in wanted if w.buckets is not None]
        to_read = (
            *rows.names([w.key for w in read]),
            [0 if w.view is None else self._levels[w.view] for w in read],
            [clipped(w.window.since) for w in read],
            [clipped(w.window.until) for w in read],
        )
        found: list[asyncpg.Record]
        if not made:
            found = await connection.fetch(statements.SNAPSHOT, *to_read)
            return found
        to_make = (
            *rows.names([key for key, _ in made]),
            *arguments([buckets for _, buckets in made]),
        )
        if not read:
            found = await connection.fetch(statements.MADE, *to_make)
            return found
        found = await connection.fetch(statements.SNAPSHOT_AND_MADE, *to_read, *to_make)
        first, second = iter(found[: len(read)]), iter(found[len(read) :])
        return [next(first if w.buckets is None else second) for w in wanted]

    def _noted(
        self, keys: Sequence[SeriesKey], states: list[SeriesState | None]
    ) -> list[SeriesState | None]:
        """Return *states*, and forget remembered ids that they contradict."""
        for key, state in zip(keys, states, strict=True):
            if key in self._ids and (state is None or state.id != self._ids[key]):
                # The database was made anew under us.
                del self._ids[key]
        return states

    async def _transact(
        self,
        series: Sequence[tuple[SeriesKey, SeriesFacts]],
        work: Callable[[asyncpg.Connection, Sequence[int]], Awaitable[T]],
    ) -> T:
        store_id = await self.store_id()
        ids = await self.ensure(series)
        # Read committed: each statement must see what was committed while it waited for a lock.
        async with (
            self._connection() as connection,
            connection.transaction(isolation="read_committed"),
        ):
            if await connection.fetchval("SELECT id FROM store, open_staging()") != store_id:
                raise _MadeAnew
            return await work(connection, ids)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        with store_failures():
            # Not the pool's own timeout: that makes a task for each connection taken.
            async with asyncio.timeout(_ACQUIRE):
                connection = await self._pool.acquire()
            try:
                yield connection
            finally:
                await self._pool.release(connection, timeout=_ACQUIRE)


async def merge_in_turns(
    connection: asyncpg.Connection, ids: Sequence[int], writes: Sequence[Write]
) -> list[Written]:
    """Merge *writes* to the series *ids* in the order given where they share one."""
    written: dict[int, Written] = {}
    for nth, turn in enumerate(_turns(ids)):
        if nth:
            await connection.execute("TRUNCATE incoming, changed, touched")
        merged = await merge(connection, {own: writes[n] for own, n in turn.items()})
        written |= {n: merged[own] for own, n in turn.items()}
    return [written[n] for n in range(len(writes))]


def _turns(ids: Sequence[int]) -> Iterator[dict[int, int]]:
    """Yield the places of *ids* in turns that hold no id twice, each by ascending id.

    The first turn holds every id, so all locks are taken at once and in order.
    """
    left = list(range(len(ids)))
    while left:
        turn: dict[int, int] = {}
        for n in left:
            turn.setdefault(ids[n], n)
        left = [n for n in left if turn[ids[n]] != n]
        yield dict(sorted(turn.items()))
