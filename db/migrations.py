"""Bring a database to the schema in a folder of numbered SQL files, each applied once, in order.

The files of the folder itself are common; those of its subfolder *mode* belong to one way of
keeping aggregates. Their four-digit numbers are one sequence: `0001_store.sql`,
`plain/0002_rollups.sql`, `0003_views.sql`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import asyncpg

from db.errors import (
    SchemaEdited,
    SchemaMissing,
    SchemaNewer,
    ServerTooOld,
    store_failures,
)

OLDEST_SERVER = 15
_LOCK = 0x6261_7267_7261_7068
"""The advisory lock of a database whose schema is being changed."""
_NUMBERED = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_CREATE_LEDGER = """
    CREATE TABLE IF NOT EXISTS schema_migration (
        name text PRIMARY KEY,
        checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file; *name* is its path inside the folder, *checksum* SHA-256 in hex."""

    name: str
    number: int
    sql: str
    checksum: str


def load(directory: Path, *, mode: str = "plain") -> tuple[Migration, ...]:
    """Return the migrations of *directory* and of its subfolder *mode*, in order.

    Raises `ValueError` for a file without a number and for a number taken twice.
    """
    found: dict[int, Migration] = {}
    for path in sorted((*directory.glob("*.sql"), *(directory / mode).glob("*.sql"))):
        name = path.relative_to(directory).as_posix()
        match = _NUMBERED.fullmatch(path.name)
        if not match:
            raise ValueError(f"{name} is not named like 0001_store.sql")
        number = int(match[1])
        if number in found:
            raise ValueError(f"{name} and {found[number].name} have the same number")
        sql = path.read_text("utf-8")
        found[number] = Migration(name, number, sql, sha256(sql.encode()).hexdigest())
    return tuple(found[number] for number in sorted(found))


async def migrate(
    dsn: str, directory: Path, *, mode: str = "plain", connect_timeout: float = 10.0
) -> list[str]:
    """Apply what the database lacks and return the names applied, in order.

    Several processes may start at once: one applies, the others wait and find it done. Each file
    is one transaction with its line in the ledger. Raises `SchemaEdited`, `SchemaNewer`,
    `ServerTooOld` before anything is changed, and `StoreUnavailable`.
    """
    migrations = load(directory, mode=mode)
    async with _connected(dsn, connect_timeout) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=None)
        await connection.execute(_CREATE_LEDGER)
        lacking = _lacking(migrations, await _ledger(connection))
        for migration in lacking:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migration (name, checksum) VALUES ($1, $2)",
                    migration.name,
                    migration.checksum,
                )
        return [migration.name for migration in lacking]


async def verify(
    dsn: str, directory: Path, *, mode: str = "plain", connect_timeout: float = 10.0
) -> None:
    """Change nothing, and return only if the database has exactly this schema.

    Raises `SchemaMissing`, `SchemaEdited`, `SchemaNewer`, `ServerTooOld`, `StoreUnavailable`.
    """
    migrations = load(directory, mode=mode)
    async with _connected(dsn, connect_timeout) as connection:
        exists = await connection.fetchval("SELECT to_regclass('schema_migration') IS NOT NULL")
        lacking = _lacking(migrations, await _ledger(connection) if exists else {})
        if lacking:
            raise SchemaMissing(migration.name for migration in lacking)


@asynccontextmanager
async def _connected(dsn: str, connect_timeout: float) -> AsyncIterator[asyncpg.Connection]:
    with store_failures():
        connection = await asyncpg.connect(
            dsn, timeout=connect_timeout, server_settings={"client_min_messages": "warning"}
        )
        try:
            version = connection.get_server_version().major
            if version < OLDEST_SERVER:
                raise ServerTooOld(version, OLDEST_SERVER)
            yield connection
        finally:
            # The advisory lock goes with the session.
            await connection.close(timeout=connect_timeout)


async def _ledger(connection: asyncpg.Connection) -> dict[str, str]:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migration")
    return {row["name"]: row["checksum"] for row in rows}


def _lacking(migrations: tuple[Migration, ...], applied: dict[str, str]) -> list[Migration]:
    unknown = sorted(applied.keys() - {migration.name for migration in migrations})
    if unknown:
        raise SchemaNewer(unknown)
    lacking: list[Migration] = []
    for migration in migrations:
        if migration.name not in applied:
            lacking.append(migration)
        elif applied[migration.name] != migration.checksum:
            raise SchemaEdited(migration.name, "was changed after it was applied")
        elif lacking:
            raise SchemaEdited(lacking[0].name, "was put before others that are applied already")
    return lacking
