"""Bring a database to the schema in a folder of numbered SQL files, each applied once, in order.

The files of the folder itself are common; those of its subfolder *mode* belong to one way of
keeping aggregates. Their four-digit numbers are one sequence: `0001_store.sql`,
`plain/0002_rollups.sql`, `0003_views.sql`.

A database has one mode for life. It is found when the first file of a mode is applied: `timescale`
where the server offers it, else `plain`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
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
PLAIN = "plain"
TIMESCALE = "timescale"
_LOCK = 0x6261_7267_7261_7068
"""The advisory lock of a database whose schema is being changed."""
_NUMBERED = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_OFFERS_TIMESCALE = """
    SELECT EXISTS (
        SELECT FROM pg_available_extension_versions v, pg_roles r
        WHERE v.name = 'timescaledb' AND r.rolname = current_user
          AND (regexp_match(v.version, '^(\\d+)\\.(\\d+)'))::integer[] >= ARRAY[2, 28]
          -- Installed already, or to be installed by this role: the newest version.
          AND CASE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
                   THEN v.installed
                   ELSE v.version = (SELECT default_version FROM pg_available_extensions
                                     WHERE name = 'timescaledb')
                        AND (r.rolsuper OR v.trusted
                             AND has_database_privilege(current_database(), 'CREATE')) END
    )
    -- Settings that only a preloaded library has; the free edition has no continuous aggregates.
    AND current_setting('timescaledb.disable_load', true) = 'off'
    AND current_setting('timescaledb.license', true) IS DISTINCT FROM 'apache'
"""
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


def load(directory: Path, *, mode: str = PLAIN) -> tuple[Migration, ...]:
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
    dsn: str, directory: Path, *, mode: str | None = None, connect_timeout: float = 10.0
) -> list[str]:
    """Apply what the database lacks and return the names applied, in order.

    Without *mode* a database keeps its own, and a new one gets the best its server offers. Several
    processes may start at once: one applies, the others wait and find it done. Each file is one
    transaction with its line in the ledger. Raises `SchemaEdited`, `SchemaNewer`, `ServerTooOld`
    before anything is changed, and `StoreUnavailable`.
    """
    async with _connected(dsn, connect_timeout) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=None)
        await connection.execute(_CREATE_LEDGER)
        applied = await _ledger(connection)
        if mode is None:
            mode = _mode(applied) or await _best_mode(connection, directory)
        lacking = _lacking(load(directory, mode=mode), applied)
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
    dsn: str, directory: Path, *, mode: str | None = None, connect_timeout: float = 10.0
) -> None:
    """Change nothing, and return only if the database has exactly this schema, in its mode.

    Raises `SchemaMissing`, `SchemaEdited`, `SchemaNewer`, `ServerTooOld`, `StoreUnavailable`.
    """
    async with _connected(dsn, connect_timeout) as connection:
        applied = await _applied(connection)
        migrations = load(directory, mode=mode or _mode(applied) or PLAIN)
        lacking = _lacking(migrations, applied)
        if lacking:
            raise SchemaMissing(migration.name for migration in lacking)


async def mode_of(dsn: str, *, connect_timeout: float = 10.0) -> str | None:
    """Return how the database keeps its aggregates, `plain` or `timescale`; None if not yet said.

    Raises `ServerTooOld` and `StoreUnavailable`.
    """
    async with _connected(dsn, connect_timeout) as connection:
        return _mode(await _applied(connection))


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


async def offers_timescale(dsn: str, *, connect_timeout: float = 10.0) -> bool:
    """Return whether a new store on that server would be in mode `timescale`.

    Raises `ServerTooOld` and `StoreUnavailable`.
    """
    async with _connected(dsn, connect_timeout) as connection:
        return bool(await connection.fetchval(_OFFERS_TIMESCALE))


async def _applied(connection: asyncpg.Connection) -> dict[str, str]:
    exists = await connection.fetchval("SELECT to_regclass('schema_migration') IS NOT NULL")
    return await _ledger(connection) if exists else {}


async def _ledger(connection: asyncpg.Connection) -> dict[str, str]:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migration")
    return {row["name"]: row["checksum"] for row in rows}


def _mode(applied: Iterable[str]) -> str | None:
    """Return the mode of the files *applied*, None while only common ones were."""
    return next((name.split("/")[0] for name in sorted(applied) if "/" in name), None)


async def _best_mode(connection: asyncpg.Connection, directory: Path) -> str:
    offered = (directory / TIMESCALE).is_dir() and await connection.fetchval(_OFFERS_TIMESCALE)
    return TIMESCALE if offered else PLAIN


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
