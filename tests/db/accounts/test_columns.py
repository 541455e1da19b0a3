"""Column types: what goes in comes out, on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import StatementError

from db.accounts.accounts import Accounts
from db.accounts.columns import instant_of
from db.accounts.errors import NameTaken
from tests.accounts import NOW, added, somebody


async def test_times_keep_their_microseconds_and_come_back_in_utc(accounts: Accounts) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    user = await added(accounts, last_login=elsewhere)

    async with accounts.transaction() as transaction:
        found = await transaction.users.find(user.id)

    assert found is not None
    assert found.last_login == NOW
    assert found.last_login.tzinfo is UTC
    assert found.last_login.microsecond == 123456


async def test_a_time_without_a_zone_is_refused(accounts: Accounts) -> None:
    with pytest.raises(StatementError, match="without its zone"):
        await added(accounts, last_login=datetime(2026, 1, 1))


async def test_strings_that_differ_in_case_accent_or_a_space_at_the_end_are_different(
    accounts: Accounts,
) -> None:
    user = await added(accounts)
    names = ["key-A", "key-a", "key-A ", "kéy-A", "key-A\u00a0", "🔑"]
    async with accounts.transaction() as transaction:
        for name in names:
            await transaction.presets.add(preset(user.id, name))

    async with accounts.transaction() as transaction:
        found = [each.name for each in await transaction.presets.of(user.id)]

    assert found == sorted(names, key=lambda name: name.encode())


async def test_usernames_and_addresses_are_unique_whatever_their_case(accounts: Accounts) -> None:
    user = await added(accounts)

    with pytest.raises(NameTaken) as by_name:
        await added(accounts, username=user.username.upper())
    with pytest.raises(NameTaken) as by_address:
        await added(accounts, email=user.email.upper())

    assert (by_name.value.field, by_address.value.field) == ("username", "email")


async def test_a_name_taken_leaves_the_transaction_usable(accounts: Accounts) -> None:
    user = await added(accounts)

    other = somebody()
    async with accounts.transaction() as transaction:
        with pytest.raises(NameTaken):
            await transaction.users.add(somebody(username=user.username))
        await transaction.users.add(other)

    async with accounts.transaction() as transaction:
        assert await transaction.users.find(other.id) == other


def test_an_instant_is_exact_to_the_millisecond() -> None:
    assert instant_of(1_763_641_815_123).isoformat() == "2025-11-20T12:30:15.123000+00:00"


def preset(user_id, name):
    from uuid import uuid4

    from db.accounts.repositories.presets import IndicatorPreset

    return IndicatorPreset(uuid4(), user_id, "rsi", name, {"period": 14}, 1, NOW, NOW)
