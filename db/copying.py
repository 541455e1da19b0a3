"""Copy rows from one database to another, and tell whether both sides are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

_CHUNKS_UNDER_WAY = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """Those rows of a table, or of a view, for which *where* holds with these *arguments*."""

    relation: str
    where: str
    arguments: Sequence[Any]


async def digest(
    connection: asyncpg.Connection, rows: Rows, columns: Sequence[str]
) -> tuple[int, bytes]:
    """Return how many *rows* there are, and a hash of all their values.

    By the text of each row, which every version writes alike and with every bit of a number;
    ordered by that text, since not all servers order strings alike.
    """
    row = await connection.fetchrow(
        f"""
        SELECT count(*) AS count, sha256(coalesce(
                   string_agg(convert_to(line, 'UTF8'), '\\x0a' ORDER BY line COLLATE "C"), ''
               )) AS digest
        FROM (SELECT (t.*)::text AS line
              FROM (SELECT {_names(columns)} FROM {rows.relation} WHERE {rows.where}) t) l
        """,  # noqa: S608 - names of ours, and of columns as the server wrote them
        *rows.arguments,
    )
    return row["count"], row["digest"]


async def delete(connection: asyncpg.Connection, rows: Rows) -> None:
    await connection.execute(
        f"DELETE FROM {rows.relation} WHERE {rows.where}",  # noqa: S608
        *rows.arguments,
    )


async def copy(
    source: asyncpg.Connection,
    rows: Rows,
    columns: Sequence[str],
    target: asyncpg.Connection,
    table: str,
    *,
    schema: str | None = None,
    made: dict[str, str] | None = None,
) -> None:
    """Copy *rows* into a *table* of the target, and there give the columns *made* their values.

    Those are expressions over the arguments, by column.
    """
    made = made or {}
    selected = ", ".join([_names(columns), *made.values()])
    query = f"SELECT {selected} FROM {rows.relation} WHERE {rows.where}"  # noqa: S608
    under_way: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS_UNDER_WAY)

    async def read() -> None:
        await source.copy_from_query(query, *rows.arguments, output=under_way.put, format="binary")
        await under_way.put(b"")

    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await under_way.get():
            yield chunk

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        await target.copy_to_table(
            table,
            source=chunks(),
            columns=[*columns, *made],
            schema_name=schema,
            format="binary",
        )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
