"""Bring the database of accounts to this release's tables, and tell whether it has them.

The steps are alembic's, in `db/accounts/migrations/versions`. PostgreSQL takes them in one
transaction. MariaDB commits every table by itself: a step must be able to run again after it was
cut off in the middle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.accounts.engine import SCHEMA
from db.accounts.errors import AccountsUnavailable, SeedDiffers, accounts_failures
from db.accounts.models.identity import PermissionRow, RolePermissionRow, RoleRow
from db.accounts.permissions import PERMISSIONS, Permission, Role
from db.errors import SchemaMissing, SchemaNewer

_STEPS = Path(__file__).parent / "migrations"
_LOCK = 0x6261_7267_6163_6374
"""The advisory lock of a PostgreSQL database whose accounts are being migrated."""
MIGRATION_SECONDS = 3_600.0
"""How long one statement of a migration may take, or waiting for another process's."""


async def migrate_accounts(engine: AsyncEngine) -> list[str]:
    """Apply what the database lacks and return the steps applied, in order.

    Several processes may start at once: one applies, the others wait and find it done. Give it an
    *engine* whose statements may take `MIGRATION_SECONDS`. Raises `SchemaNewer` before anything is
    changed, `AccountsUnavailable`, `WrongServer`.
    """
    with accounts_failures():
        async with engine.connect() as connection, _alone(connection):
            if connection.dialect.name == "postgresql":
                await _make_schema(connection)
            lacking = await connection.run_sync(_lacking)
            if lacking:
                await connection.run_sync(_upgrade)
            await connection.commit()
            return lacking


async def verify_accounts(engine: AsyncEngine) -> None:
    """Change nothing, and return only if the tables are those of this release.

    Raises `SchemaMissing`, `SchemaNewer`, `SeedDiffers`, `AccountsUnavailable`, `WrongServer`.
    """
    with accounts_failures():
        async with engine.connect() as connection:
            lacking = await connection.run_sync(_lacking)
            if lacking:
                raise SchemaMissing(lacking)
            await _verify_seed(connection)


async def _verify_seed(connection: AsyncConnection) -> None:
    roles = set((await connection.scalars(select(RoleRow.name))).all())
    permissions = set((await connection.scalars(select(PermissionRow.name))).all())
    pairs = (await connection.execute(select(RolePermissionRow))).all()
    differing = [
        *(roles ^ {role.value for role in Role}),
        *(permissions ^ {permission.value for permission in Permission}),
        *(
            f"{role}/{permission}"
            for role, permission in {(pair.role, pair.permission) for pair in pairs}
            ^ {(role.value, held.value) for role, all_ in PERMISSIONS.items() for held in all_}
        ),
    ]
    if differing:
        raise SeedDiffers(
            "Roles and permissions in the accounts database differ from this release: "
            f"{', '.join(sorted(differing)[:10])}."
        )


async def _make_schema(connection: AsyncConnection) -> None:
    # Asked first: whoever may not make it may use one that was made for them.
    if await connection.scalar(text(f"SELECT to_regnamespace('{SCHEMA}') IS NULL")):
        await connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """Let one process at a time in. The lock goes with the session if that ends."""
    lock: dict[str, object] = {"lock": _LOCK}
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_lock(:lock)"), lock)
        unlock = "SELECT pg_advisory_unlock(:lock)"
    else:
        # Its locks belong to the server, not to a database, and have short names.
        database = await connection.scalar(text("SELECT database()"))
        lock["lock"] = f"bargraph-{sha256(str(database).encode()).hexdigest()[:32]}"
        taken = await connection.scalar(
            text("SELECT GET_LOCK(:lock, :seconds)"), {**lock, "seconds": MIGRATION_SECONDS}
        )
        if taken != 1:
            raise AccountsUnavailable("Another process has been migrating accounts for too long.")
        unlock = "SELECT RELEASE_LOCK(:lock)"
    try:
        yield
    finally:
        await connection.rollback()
        await connection.execute(text(unlock), lock)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_STEPS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _lacking(connection: Connection) -> list[str]:
    """Return the steps that are still to be applied, in order. Raises `SchemaNewer`."""
    steps = [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()]
    steps.reverse()
    heads = MigrationContext.configure(connection).get_current_heads()
    unknown = [head for head in heads if head not in steps]
    if unknown:
        raise SchemaNewer(unknown)
    done = max((steps.index(head) + 1 for head in heads), default=0)
    return steps[done:]


def _upgrade(connection: Connection) -> None:
    command.upgrade(_config(connection), "head")
