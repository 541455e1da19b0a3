"""The tables of accounts: made once by whoever comes first, the same on every database."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, func, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.engine import open_engine
from db.accounts.errors import AccountsUnavailable, SeedDiffers
from db.accounts.models import METADATA
from db.accounts.models.identity import PermissionRow, RolePermissionRow, RoleRow
from db.accounts.schema import migrate_accounts, verify_accounts
from db.errors import SchemaMissing, SchemaNewer

MIGRATE = """
import asyncio, sys
from db.accounts.engine import open_engine
from db.accounts.schema import migrate_accounts

async def main():
    async with open_engine(sys.argv[1]) as engine:
        print("begin", flush=True)
        await migrate_accounts(engine)

asyncio.run(main())
"""


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return compare_metadata(context, METADATA)


async def test_models_and_migrations_make_the_same_tables(accounts_engine: AsyncEngine) -> None:
    async with accounts_engine.connect() as connection:
        found = await connection.run_sync(differences)

    assert found == []


async def test_a_column_that_a_model_has_and_the_database_lacks_is_seen(
    empty_accounts_url: str,
) -> None:
    async with open_engine(empty_accounts_url) as engine:
        await migrate_accounts(engine)
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE users DROP COLUMN bio"))

        async with engine.connect() as connection:
            found = await connection.run_sync(differences)

    assert [change[0] for change in found] == ["add_column"]


async def test_of_several_processes_that_start_at_once_one_migrates(
    empty_accounts_url: str,
) -> None:
    async def start() -> list[str]:
        async with open_engine(empty_accounts_url) as engine:
            return await migrate_accounts(engine)

    applied = await asyncio.gather(*(start() for _ in range(4)))

    assert sorted(len(steps) for steps in applied) == [0, 0, 0, 1]


async def test_a_migration_that_was_killed_in_the_middle_is_finished_by_the_next(
    empty_accounts_url: str,
) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", MIGRATE, empty_accounts_url], stdout=subprocess.PIPE
    )
    async with open_engine(empty_accounts_url) as engine:
        assert killed.stdout is not None
        await asyncio.to_thread(killed.stdout.readline)
        # MariaDB shows each table once it is made; PostgreSQL shows all or none.
        for _ in range(2_000):
            async with engine.connect() as connection:
                tables = await connection.run_sync(lambda c: inspect(c).get_table_names())
            if tables or killed.poll() is not None:
                break
            await asyncio.sleep(0.002)
        killed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(killed.wait)
        killed.stdout.close()

        await migrate_accounts(engine)

        await verify_accounts(engine)
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []


@pytest.mark.parametrize("empty_accounts_url", ["embedded"], indirect=True)
async def test_a_role_that_may_make_no_schema_uses_the_one_made_for_it(
    empty_accounts_url: str,
) -> None:
    name = f"bargraph_test_{uuid4().hex}"
    connection = await asyncpg.connect(empty_accounts_url)
    try:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'some-password'")
        await connection.execute(f"CREATE SCHEMA accounts AUTHORIZATION {name}")
        await connection.execute(f"REVOKE CREATE ON SCHEMA public FROM PUBLIC, {name}")
        whole = urlsplit(empty_accounts_url)
        url = urlunsplit(
            whole._replace(netloc=f"{name}:some-password@{whole.netloc.rpartition('@')[2]}")
        )

        async with open_engine(url) as engine:
            await migrate_accounts(engine)
            await verify_accounts(engine)
    finally:
        await connection.execute(f"DROP OWNED BY {name}")
        await connection.execute(f"DROP ROLE {name}")
        await connection.close()


# PostgreSQL takes a step whole or not at all.
@pytest.mark.parametrize("empty_accounts_url", ["mariadb"], indirect=True)
async def test_a_migration_that_stopped_between_two_tables_is_finished(
    empty_accounts_url: str,
) -> None:
    async with open_engine(empty_accounts_url) as engine:
        await migrate_accounts(engine)
        async with engine.begin() as connection:
            for statement in (
                "DROP TABLE user_totp, refresh_sessions",
                "DROP INDEX ix_audit_log_actor_id_id ON audit_log",
                "DELETE FROM role_permissions",
                "DELETE FROM roles",
                "DELETE FROM permissions",
                "DELETE FROM alembic_version",
            ):
                await connection.execute(text(statement))

        applied = await migrate_accounts(engine)

        assert applied == ["0001_accounts"]
        await verify_accounts(engine)
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []


async def test_a_start_is_refused_while_steps_are_lacking(empty_accounts_url: str) -> None:
    async with open_engine(empty_accounts_url) as engine:
        with pytest.raises(SchemaMissing) as refused:
            await verify_accounts(engine)

    assert "0001_accounts" in refused.value.names


async def test_a_database_of_a_newer_release_is_left_alone(empty_accounts_url: str) -> None:
    async with open_engine(empty_accounts_url) as engine:
        await migrate_accounts(engine)
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))

        with pytest.raises(SchemaNewer, match="9999_later"):
            await migrate_accounts(engine)
        with pytest.raises(SchemaNewer, match="9999_later"):
            await verify_accounts(engine)


async def test_a_start_is_refused_while_a_role_may_do_more_than_the_code_says(
    empty_accounts_url: str,
) -> None:
    async with open_engine(empty_accounts_url) as engine:
        await migrate_accounts(engine)
        more = {"role": "read-only", "permission": "orders.place"}
        async with engine.begin() as connection:
            await connection.execute(insert(RolePermissionRow).values(**more))

        with pytest.raises(SeedDiffers, match=r"read-only/orders\.place"):
            await verify_accounts(engine)

        async with engine.begin() as connection:
            await connection.execute(
                delete(RolePermissionRow).where(
                    RolePermissionRow.role == more["role"],
                    RolePermissionRow.permission == more["permission"],
                )
            )
            await connection.execute(insert(PermissionRow).values(name="fly"))
        with pytest.raises(SeedDiffers, match="fly"):
            await verify_accounts(engine)


async def test_a_server_that_is_away_is_a_failure_of_its_own_and_tells_no_address() -> None:
    for url in (
        "postgresql://somebody:hunter2@127.0.0.1:1/nowhere",
        "mysql+asyncmy://somebody:hunter2@127.0.0.1:1/nowhere",
    ):
        async with open_engine(url) as engine:
            with pytest.raises(AccountsUnavailable) as failed:
                await verify_accounts(engine)

        assert "127.0.0.1" not in str(failed.value)
        assert failed.value.__cause__ is None


async def test_sessions_are_in_utc_and_read_what_is_committed(accounts_engine: AsyncEngine) -> None:
    async with accounts_engine.connect() as connection:
        level = await connection.get_isolation_level()
        if connection.dialect.name == "mariadb":
            zone = await connection.scalar(text("SELECT @@session.time_zone"))
        else:
            zone = await connection.scalar(text("SELECT current_setting('timezone')"))

    assert level == "READ COMMITTED"
    assert zone in {"UTC", "+00:00"}


async def test_a_transaction_sees_what_others_commit_meanwhile(
    accounts_engine: AsyncEngine,
) -> None:
    role = RoleRow.__table__
    name = f"role-{uuid4().hex[:16]}"
    asked = select(func.count()).select_from(role).where(role.c.name == name)
    async with accounts_engine.connect() as reading:
        before = await reading.scalar(asked)
        async with accounts_engine.begin() as writing:
            await writing.execute(insert(role).values(name=name))
        after = await reading.scalar(asked)
    async with accounts_engine.begin() as writing:
        await writing.execute(delete(role).where(role.c.name == name))

    assert (before, after) == (0, 1)


ODD_COLUMNS = {
    "mariadb": """
        SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = database() AND table_name <> 'alembic_version'
          AND (collation_name <> 'utf8mb4_nopad_bin' OR datetime_precision <> 6)
    """,
    "postgresql": """
        SELECT table_name, column_name FROM information_schema.columns
        WHERE table_schema = 'accounts' AND table_name <> 'alembic_version'
          AND (data_type IN ('character varying', 'text')
               AND collation_name IS DISTINCT FROM 'C'
               OR data_type LIKE '%time%'
               AND (data_type, datetime_precision) <> ('timestamp with time zone', 6))
    """,
}


async def test_every_string_is_compared_by_its_bytes_and_every_time_has_microseconds(
    accounts_engine: AsyncEngine,
) -> None:
    # Comparing models with migrations tells neither.
    async with accounts_engine.connect() as connection:
        odd = (await connection.execute(text(ODD_COLUMNS[connection.dialect.name]))).all()

    assert odd == []
