"""Bring every data key under the newest key of the server, while the server runs.

Rows are taken in batches, each a transaction. Whatever stops it, the next run goes on with the rows
that are still under another key. Users who change a row meanwhile are not disturbed: a data key is
replaced only while it is the one that was read. A row that does not open is passed over, and told
of at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.accounts.errors import accounts_failures
from db.accounts.models.credentials import CredentialRow
from db.accounts.models.identity import TotpRow
from db.encryption import KeyRing, Unopenable, Wrapped

_BATCH = 200
_TABLES: tuple[tuple[Any, Any], ...] = (
    (CredentialRow, CredentialRow.id),
    (TotpRow, TotpRow.user_id),
)
"""The tables with encrypted rows, and the column whose value their ciphertext is bound to."""


@dataclass(frozen=True, slots=True)
class StuckRow:
    """A row that does not open, under the key *key_id*; *code* says why."""

    table: str
    id: UUID
    key_id: str
    code: str


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many data keys were wrapped anew, and the rows whose were not."""

    count: int
    stuck: tuple[StuckRow, ...]


async def rewrap_all(
    engine: AsyncEngine, ring: KeyRing, *, told: Callable[[int], None] = lambda _: None
) -> Rewrapped:
    """Wrap all data keys by the newest key of *ring*.

    *told* hears of each batch how many were wrapped. Raises `AccountsUnavailable`, with all batches
    before it done.
    """
    count = 0
    stuck: list[StuckRow] = []
    for table, named in _TABLES:
        after: UUID | None = None
        while True:
            with accounts_failures():
                async with engine.begin() as connection:
                    seen, batch = await _batch(connection, ring, table, named, after)
            count += batch.count
            stuck += batch.stuck
            told(batch.count)
            if seen is None:
                break
            after = seen
    return Rewrapped(count, tuple(stuck))


async def keys_in_use(engine: AsyncEngine) -> dict[str, int]:
    """Return how many rows there are under each key of the server, by the key's name."""
    found: dict[str, int] = {}
    with accounts_failures():
        async with engine.connect() as connection:
            for table, _ in _TABLES:
                asked = select(table.key_id, func.count()).group_by(table.key_id)
                for key_id, rows in await connection.execute(asked):
                    found[key_id] = found.get(key_id, 0) + rows
    return found


async def _batch(
    connection: AsyncConnection, ring: KeyRing, table: Any, named: Any, after: UUID | None
) -> tuple[UUID | None, Rewrapped]:
    """Return the last row of a batch, None if it was the last one, and what came of it."""
    asked = (
        select(named.label("row"), table.user_id, table.key_id, table.data_key)
        .where(table.key_id != ring.newest)
        .order_by(named)
        .limit(_BATCH)
    )
    if after is not None:
        asked = asked.where(named > after)
    rows = (await connection.execute(asked)).all()
    changed = 0
    stuck: list[StuckRow] = []
    for row in rows:
        try:
            fresh = ring.rewrap(Wrapped(row.key_id, row.data_key), owner=row.user_id, row=row.row)
        except Unopenable as failure:
            stuck.append(StuckRow(table.__tablename__, row.row, row.key_id, failure.code))
            continue
        done: CursorResult[Any] = await connection.execute(
            update(table)
            .where(named == row.row, table.data_key == row.data_key)
            .values(key_id=fresh.key_id, data_key=fresh.data_key)
        )
        changed += done.rowcount
    return (rows[-1].row if len(rows) == _BATCH else None), Rewrapped(changed, tuple(stuck))
