"""Move a store to another server, whole: what it holds, its ids and positions, and its identity.

A table is copied in pieces, each a transaction that also compares both sides, row by row by a hash
in SQL. A piece that is the same on both sides is not copied again, so a move that was interrupted
goes on where it stopped, without a note of where that was. Aggregates are not copied: the target
makes its own, in its own mode; but for those whose minutes were dropped.

Nobody may write meanwhile. Servers that are connected are found and named; those that come later
wait in vain for a lock, as if the store were away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from db.copying import Rows, copy, delete, digest
from db.errors import store_failures
from db.migrations import TIMESCALE, migrate, mode_of
from db.moving_aggregates import kept_aggregates, move_aggregate, prepare
from db.timescale import Refresher
from market.errors import BargraphError

PIECE = 50_000
"""Rows of one transaction."""
APPLICATION = "bargraph move"
_LOCK_WAIT = "5s"


class MoveRefused(BargraphError):
    """A move that cannot begin, or go on, as things are."""

    code = "MOVE_REFUSED"


class MovedWrong(BargraphError):
    """Both sides differ after they were copied; nothing of that piece was kept."""

    code = "MOVED_WRONG"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that moves. In pieces *along* a column of each series, if it can be long."""

    name: str
    along: str | None = None


MOVED = (
    Table("series"),
    Table("replay_anchor"),
    Table("backfill"),
    Table("import_progress"),
    Table("imported"),
    Table("trades_told"),
    Table("retained"),
    Table("bar", along="timestamp"),
    Table("raw_trades", along="timestamp"),
    Table("change", along="position"),
)
DERIVED = frozenset({"schema_migration", "preaggregation_configs", "rollup", "stale"})
"""Tables that each store makes for itself."""
IDENTITY = "store"
"""The table with the store's id, which moves along: cursors name it."""
_MARK = "store_under_way"
"""In a target that is not whole yet: the id of the store that moves there."""
# In mode `timescale` a bar says itself whether aggregates are made of it.
_MADE = {
    ("bar", "rolled_up"): "(SELECT s.around_the_clock AND s.timeframe = '1m' "
    "FROM series s WHERE s.id = $1)"
}
_SETTINGS = {
    "application_name": APPLICATION,
    "timezone": "UTC",
    "datestyle": "ISO",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": _LOCK_WAIT,
    "client_min_messages": "warning",
    "jit": "off",
}
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'bargraph%'
      AND application_name <> $1
"""
_FOREIGN = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
      AND to_regclass('schema_migration') IS NULL
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1 LIMIT 1
"""
_COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_SEQUENCES = """
    SELECT c.relname AS name, a.attname AS column,
           pg_get_serial_sequence(quote_ident(c.relname), a.attname) AS sequence
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attidentity <> '' AND c.relname = ANY ($1)
      AND c.relnamespace = current_schema()::regnamespace
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """What is at the target now: *rows* in all, of which *copied* were not there before.

    *accounts_stay*: the source holds accounts too, in a schema of their own, which did not move.
    """

    store: UUID
    series: int
    rows: int
    copied: int
    accounts_stay: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one table: all, or those of a series from *since* up to *until* (None: no end)."""

    table: Table
    series: int | None = None
    since: Any = None
    until: Any = None

    @property
    def rows(self) -> Rows:
        if self.table.along is None:
            return Rows(self.table.name, "true", ())
        condition, arguments = "series_id = $1", [self.series]
        for sign, end in ((">=", self.since), ("<", self.until)):
            if end is not None:
                arguments.append(end)
                condition += f' AND "{self.table.along}" {sign} ${len(arguments)}'
        return Rows(self.table.name, condition, arguments)

    def __str__(self) -> str:
        if self.table.along is None:
            return f"table {self.table.name}"
        return f"table {self.table.name}, series {self.series}, from {self.since or 'the first'}"


async def move(
    source_url: str,
    target_url: str,
    sql: Path,
    *,
    piece: int = PIECE,
    counted: Callable[[int], None] = lambda _: None,
    advanced: Callable[[int], None] = lambda _: None,
) -> Moved:
    """Move the store at *source_url* to *target_url*, whose server decides its own mode.

    *counted* is told how many rows there are, *advanced* of each piece how many it had. The source
    is left as it is. Raises `MoveRefused`, `MovedWrong`, `StoreUnavailable` and what `migrate`
    raises.
    """
    async with _connected(target_url) as target:
        foreign = await target.fetchval(_FOREIGN)
    if foreign is not None:
        raise MoveRefused(f"The target holds other things, such as {foreign}. Name an empty one.")
    await migrate(source_url, sql)
    await migrate(target_url, sql)
    async with AsyncExitStack() as stack:
        for url, name in ((source_url, "store that moves"), (target_url, "target")):
            async with _connected(url) as connection:
                if await connection.fetchval(_OTHERS, APPLICATION):
                    raise MoveRefused(f"Servers are connected to the {name}. Stop them first.")
        await stack.enter_async_context(_locked(source_url, "store that moves"))
        source = await stack.enter_async_context(_connected(source_url))
        target = await stack.enter_async_context(_connected(target_url))
        # One snapshot: what else changes at the source does not come along in halves.
        await stack.enter_async_context(
            source.transaction(isolation="repeatable_read", readonly=True)
        )
        store: UUID = await source.fetchval("SELECT id FROM store")
        await _claim(target, store)
        return await _Move(source, target, store, piece, advanced).run(target_url, counted)


class _Move:
    """One move, from *source*, which stands still, to *target*, which is marked as its own."""

    def __init__(
        self,
        source: asyncpg.Connection,
        target: asyncpg.Connection,
        store: UUID,
        piece: int,
        advanced: Callable[[int], None],
    ) -> None:
        self._source = source
        self._target = target
        self._store = store
        self._piece = piece
        self._advanced = advanced
        self._rows = 0
        self._copied = 0

    async def run(self, target_url: str, counted: Callable[[int], None]) -> Moved:
        counts = [
            await self._source.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608
            for table in MOVED
        ]
        counted(sum(counts))
        for table in MOVED:
            if table.along is None:
                await self._move(Piece(table))
        rolled_up = {
            row["id"]: row["around_the_clock"] and row["timeframe"] == "1m"
            for row in await self._source.fetch(
                "SELECT id, around_the_clock, timeframe FROM series ORDER BY id"
            )
        }
        # From here on the lock keeps other writers off; it is on the table that is whole now.
        async with _locked(target_url, "target"):
            # Before the bars: with those at hand the target makes the aggregates of both.
            dropped = await self._move_aggregates()
            for table in MOVED:
                for series in rolled_up if table.along is not None else ():
                    async for piece in self._pieces(table, series):
                        await self._move(piece, roll_up=table.name == "bar" and rolled_up[series])
            if dropped and await mode_of(target_url) == TIMESCALE:
                # What is not refreshed is made of minutes, and there are none.
                await Refresher(target_url, application_name=APPLICATION).refresh()
        await self._finish()
        stay = await self._source.fetchval("SELECT to_regnamespace('accounts') IS NOT NULL")
        return Moved(self._store, len(rolled_up), self._rows, self._copied, stay)

    async def _move_aggregates(self) -> bool:
        """Move what is left of dropped minutes; return whether there was any."""
        dropped = False
        async for kept in kept_aggregates(self._source):
            if not dropped:
                await prepare(self._target)
            dropped = True
            count, copied, same = await move_aggregate(self._source, self._target, kept)
            if not same:
                raise MovedWrong(f"Both sides differ after copying: {kept}.")
            self._rows += count
            self._copied += count if copied else 0
        return dropped

    async def _pieces(self, table: Table, series: int) -> AsyncIterator[Piece]:
        """Yield pieces of a series that together are all time."""
        since = None
        while True:
            rows = Piece(table, series, since).rows
            # Strictly later, so that a piece never begins where it ended.
            until = await self._source.fetchval(
                f'SELECT "{table.along}" FROM {table.name} '  # noqa: S608
                f"WHERE {rows.where.replace('>=', '>')} "
                f'ORDER BY "{table.along}" OFFSET ${len(rows.arguments) + 1} LIMIT 1',
                *rows.arguments,
                self._piece,
            )
            yield Piece(table, series, since, until)
            if until is None:
                return
            since = until

    async def _move(self, piece: Piece, *, roll_up: bool = False) -> None:
        """Copy *piece* unless the target has it, and commit it if both sides are the same."""
        columns = await self._columns(piece.table)
        count, mine = await digest(self._source, piece.rows, columns)
        self._rows += count
        there, theirs = await digest(self._target, piece.rows, columns)
        if theirs != mine:
            async with self._target.transaction():
                if there:
                    await delete(self._target, piece.rows)
                await self._copy(piece, columns)
                if await digest(self._target, piece.rows, columns) != (count, mine):
                    raise MovedWrong(f"Both sides differ after copying: {piece}.")
                if roll_up:
                    await self._roll_up(piece)
            self._copied += count
        self._advanced(count)

    async def _columns(self, table: Table) -> list[str]:
        """Return the columns that both sides have."""
        mine = [row["attname"] for row in await self._source.fetch(_COLUMNS, table.name)]
        theirs = {row["attname"] for row in await self._target.fetch(_COLUMNS, table.name)}
        made = {column for name, column in _MADE if name == table.name}
        return [column for column in mine if column in theirs and column not in made]

    async def _copy(self, piece: Piece, columns: list[str]) -> None:
        theirs = {row["attname"] for row in await self._target.fetch(_COLUMNS, piece.table.name)}
        made = {
            column: expression
            for (name, column), expression in _MADE.items()
            if name == piece.table.name and column in theirs
        }
        await copy(self._source, piece.rows, columns, self._target, piece.table.name, made=made)

    async def _roll_up(self, piece: Piece) -> None:
        """Let the target's aggregates know of the bars of *piece*, as a write of them would."""
        rows = piece.rows
        await self._target.execute("SELECT open_staging()")
        await self._target.execute(
            'INSERT INTO changed (series_id, "timestamp") '  # noqa: S608
            f'SELECT series_id, "timestamp" FROM bar WHERE {rows.where}',
            *rows.arguments,
        )
        await self._target.execute("SELECT roll_up($1)", [piece.series])

    async def _finish(self) -> None:
        """Let new rows take numbers after those that moved, and take the mark off."""
        async with self._target.transaction():
            names = [table.name for table in MOVED]
            for row in await self._target.fetch(_SEQUENCES, names):
                used = await self._source.fetchval(
                    f"SELECT last_value FROM {row['sequence']} WHERE is_called"  # noqa: S608
                )
                if used is not None:
                    await self._target.execute("SELECT setval($1, $2)", row["sequence"], used)
            await self._target.execute(f"DROP TABLE {_MARK}")


async def _claim(target: asyncpg.Connection, store: UUID) -> None:
    """Mark an empty target as the one that *store* moves to. Raises `MoveRefused` for another."""
    async with target.transaction():
        if await target.fetchval("SELECT to_regclass($1) IS NOT NULL", _MARK):
            moving = await target.fetchval(f"SELECT id FROM {_MARK}")  # noqa: S608
            if moving != store:
                raise MoveRefused("Another store is under way to the target. Name an empty one.")
            return
        for table in MOVED:
            if await target.fetchval(f"SELECT EXISTS (SELECT FROM {table.name})"):  # noqa: S608
                raise MoveRefused(f"The target holds {table.name} already. Name an empty one.")
        await target.execute(f"CREATE TABLE {_MARK} (id uuid NOT NULL)")
        await target.execute(f"INSERT INTO {_MARK} VALUES ($1)", store)  # noqa: S608
        await target.execute("UPDATE store SET id = $1", store)


@asynccontextmanager
async def _locked(url: str, name: str) -> AsyncIterator[None]:
    """Keep every writer away from the store at *url*. Raises `MoveRefused` while one writes."""
    async with _connected(url) as connection, connection.transaction():
        try:
            await connection.execute("LOCK TABLE series IN EXCLUSIVE MODE")
        except asyncpg.LockNotAvailableError as error:
            raise MoveRefused(f"Somebody writes to the {name}. Stop all servers first.") from error
        yield


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    with store_failures():
        connection = await asyncpg.connect(url, timeout=10, server_settings=_SETTINGS)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)
