"""A database that goes away, hangs, or refuses: one named failure, nothing half done."""

from __future__ import annotations

import asyncio
import socket
import traceback
from uuid import uuid4

import pytest
from sqlalchemy import event, insert, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.accounts import Accounts
from db.accounts.engine import open_engine
from db.accounts.errors import AccountsUnavailable, RowRefused
from db.accounts.models.identity import RecoveryCodeRow, UserRow
from db.encryption import KeyRing
from tests.accounts import added, somebody


async def connection_id(connection) -> int:
    function = "pg_backend_pid()" if is_postgres(connection) else "connection_id()"
    return int(await connection.scalar(text(f"SELECT {function}")))


def is_postgres(connection) -> bool:
    return connection.dialect.name == "postgresql"


async def test_a_connection_cut_in_the_middle_undoes_all_and_the_next_one_works(
    accounts: Accounts, accounts_engine: AsyncEngine
) -> None:
    first, second = somebody(), somebody()

    with pytest.raises(AccountsUnavailable):
        async with accounts.transaction() as transaction:
            await transaction.users.add(first)
            held = await connection_id(transaction._connection)
            async with accounts_engine.connect() as killer:
                kill = "SELECT pg_terminate_backend(:id)" if is_postgres(killer) else "KILL :id"
                await killer.execute(text(kill), {"id": held})
            await transaction.users.add(second)

    async with accounts.transaction() as transaction:
        assert await transaction.users.find(first.id) is None
        await transaction.users.add(second)


async def test_connections_that_were_cut_while_idle_are_not_noticed(
    accounts: Accounts, accounts_engine: AsyncEngine, accounts_url: str
) -> None:
    user = await added(accounts)
    async with accounts_engine.connect() as connection:
        idle = await connection_id(connection)
    async with open_engine(accounts_url) as other, other.connect() as killer:
        kill = "SELECT pg_terminate_backend(:id)" if is_postgres(killer) else "KILL :id"
        await killer.execute(text(kill), {"id": idle})

    async with accounts.transaction() as transaction:
        assert await transaction.users.find(user.id) == user


async def test_a_statement_that_takes_too_long_is_ended(accounts_url: str, ring: KeyRing) -> None:
    async with open_engine(accounts_url, statement_timeout=0.2) as engine:
        accounts = Accounts(engine, ring)
        with pytest.raises(AccountsUnavailable):
            async with accounts.transaction() as transaction:
                connection = transaction._connection
                if is_postgres(connection):
                    await connection.execute(text("SELECT pg_sleep(30)"))
                else:
                    # SLEEP itself ends early and tells nobody; what it is part of fails.
                    await connection.execute(
                        text("SELECT count(*) FROM information_schema.columns WHERE sleep(0.5) = 0")
                    )


async def test_the_locks_of_one_who_says_nothing_more_are_given_back(
    accounts: Accounts, accounts_url: str, ring: KeyRing
) -> None:
    user = await added(accounts)
    async with open_engine(accounts_url, statement_timeout=1) as engine:
        with pytest.raises(AccountsUnavailable):
            async with Accounts(engine, ring).transaction() as silent:
                await silent.users.find(user.id, lock=True)

                async with accounts.transaction() as other:
                    assert await other.users.find(user.id, lock=True) == user

                await silent.users.find(user.id)


async def test_one_who_leaves_in_the_middle_of_a_statement_leaves_the_pool_whole(
    accounts_url: str, ring: KeyRing
) -> None:
    async with open_engine(accounts_url, connections=1) as engine:
        accounts = Accounts(engine, ring)
        users = [await added(accounts) for _ in range(2)]
        began = asyncio.Event()

        async def slow() -> None:
            async with accounts.transaction() as transaction:
                connection = transaction._connection
                sleep = "SELECT pg_sleep(60)" if is_postgres(connection) else "SELECT sleep(60)"
                began.set()
                await connection.execute(text(sleep))

        for pause in (0, 0, 0.05, 0.1):
            began.clear()
            leaving = asyncio.create_task(slow())
            await began.wait()
            await asyncio.sleep(pause)  # it leaves at some point of the way to the server and back
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

            for user in users:
                async with accounts.transaction() as transaction:
                    assert await transaction.users.find(user.id) == user


async def test_more_than_the_pool_has_wait_and_all_come_through(
    accounts_url: str, ring: KeyRing
) -> None:
    async with open_engine(accounts_url, connections=2) as engine:
        accounts = Accounts(engine, ring)

        users = await asyncio.gather(*(added(accounts) for _ in range(20)))

        assert len({user.id for user in users}) == 20


async def test_a_statement_of_ours_that_is_wrong_is_no_outage(accounts: Accounts) -> None:
    with pytest.raises(ProgrammingError):
        async with accounts.transaction() as transaction:
            await transaction._connection.execute(text("SELECT nothing FROM nowhere"))


@pytest.mark.parametrize("raised", [KeyError("own"), OSError("own"), TimeoutError("own")])
async def test_what_the_caller_raises_undoes_the_transaction_and_stays_what_it_is(
    accounts: Accounts, raised: Exception
) -> None:
    user = somebody()

    with pytest.raises(type(raised)) as failed:
        async with accounts.transaction() as transaction:
            await transaction.users.add(user)
            raise raised

    assert failed.value is raised

    async with accounts.transaction() as transaction:
        assert await transaction.users.find(user.id) is None


async def test_a_server_that_is_not_there_is_an_outage(accounts_url: str, ring: KeyRing) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        port = taken.getsockname()[1]
        scheme = accounts_url.partition("://")[0]

        async with open_engine(f"{scheme}://somebody:hunter2@127.0.0.1:{port}/away") as engine:
            with pytest.raises(AccountsUnavailable) as away:
                async with Accounts(engine, ring).transaction():
                    pytest.fail("there is no connection")

    assert "hunter2" not in "".join(traceback.format_exception(away.value))


async def test_a_connection_that_is_gone_in_the_middle_of_an_answer_is_an_outage(
    accounts_url: str, ring: KeyRing
) -> None:
    async with open_engine(accounts_url, connections=1) as engine:
        accounts = Accounts(engine, ring)
        user = await added(accounts)

        def gone(*_: object) -> None:
            raise ConnectionResetError("10.0.0.3")

        event.listen(engine.sync_engine, "before_cursor_execute", gone)
        with pytest.raises(AccountsUnavailable, match="ConnectionResetError"):
            async with accounts.transaction() as transaction:
                await transaction.users.find(user.id)
        event.remove(engine.sync_engine, "before_cursor_execute", gone)

        async with accounts.transaction() as transaction:
            assert await transaction.users.find(user.id) == user


async def test_a_row_that_nobody_expected_to_be_refused_is_told_by_the_name_of_the_rule(
    accounts: Accounts,
) -> None:
    user = await added(accounts)
    orphan = {"id": uuid4(), "user_id": uuid4(), "code_hash": b"secret-digest"}

    for statement, rule in (
        (insert(RecoveryCodeRow).values(**orphan), "recovery_codes_user_id"),
        (update(UserRow).where(UserRow.id == user.id).values(bio="secret" * 10_000), ""),
    ):
        with pytest.raises(RowRefused) as refused:
            async with accounts.transaction() as transaction:
                await transaction._connection.execute(statement)

        told = "".join(traceback.format_exception(refused.value))
        assert rule in refused.value.rule
        for value in ("secret", orphan["user_id"].hex, str(orphan["user_id"])):
            assert value not in told
