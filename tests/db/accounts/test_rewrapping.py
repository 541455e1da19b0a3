"""New keys for what is encrypted: in batches, again after a stop, beside those who write."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts import rewrapping
from db.accounts.accounts import Accounts
from db.accounts.models.credentials import CredentialRow
from db.accounts.models.identity import TotpRow
from db.accounts.repositories.credentials import Credential, CredentialSecrets
from db.accounts.rewrapping import Rewrapped, StuckRow, keys_in_use, rewrap_all
from db.encryption import KeyRing, new_key
from tests.accounts import NOW, added

OLD, NEW = new_key(), new_key()


def secrets(word: str) -> CredentialSecrets:
    return CredentialSecrets(SecretStr(f"key-{word}-12345"), SecretStr(f"secret-{word}"))


async def kept(accounts: Accounts, count: int) -> list[Credential]:
    """Keep so many credentials of one user, under the ring of *accounts*."""
    user = await added(accounts)
    made = [
        Credential(
            id=uuid4(),
            user_id=user.id,
            service="fake",
            name=f"name {number}",
            testnet=False,
            notes=None,
            key_hint="2345",
            created_at=NOW,
            updated_at=NOW,
            last_checked_at=None,
            version=1,
        )
        for number in range(count)
    ]
    async with accounts.transaction() as transaction:
        for credential in made:
            await transaction.credentials.add(credential, secrets(credential.name))
        await transaction.one_time_codes.put(user.id, SecretStr("TOTPSECRET"), at=NOW)
    return made


@pytest.fixture(autouse=True)
async def nothing_encrypted(accounts_engine: AsyncEngine) -> None:
    """Other tests' rows are under keys that these do not have."""
    async with accounts_engine.begin() as connection:
        await connection.execute(delete(CredentialRow))
        await connection.execute(delete(TotpRow))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrapping, "_BATCH", 5)


async def test_everything_opens_under_the_new_key_alone(accounts_engine: AsyncEngine) -> None:
    before = KeyRing([OLD])
    made = await kept(Accounts(accounts_engine, before), 23)
    batches: list[int] = []

    both = KeyRing([NEW, OLD])
    done = await rewrap_all(accounts_engine, both, told=batches.append)

    assert done.count == sum(batches) == 24
    assert done.stuck == ()
    assert max(batches) == 5
    assert await keys_in_use(accounts_engine) == {both.newest: 24}
    alone = Accounts(accounts_engine, KeyRing([NEW]))
    async with alone.transaction() as transaction:
        for credential in made:
            _, opened = await transaction.credentials.opened(credential.user_id, credential.id)
            assert opened == secrets(credential.name)
        shared = await transaction.one_time_codes.locked(made[0].user_id)
        assert shared is not None
        secret = transaction.one_time_codes.opened(shared)
    assert secret.get_secret_value() == "TOTPSECRET"


async def test_a_run_that_was_stopped_is_gone_on_with(accounts_engine: AsyncEngine) -> None:
    await kept(Accounts(accounts_engine, KeyRing([OLD])), 12)
    both = KeyRing([NEW, OLD])

    class Stopped(Exception):
        pass

    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await rewrap_all(accounts_engine, both, told=stop)

    assert await rewrap_all(accounts_engine, both) == Rewrapped(8, ())
    assert await rewrap_all(accounts_engine, both) == Rewrapped(0, ())


async def test_who_changes_a_credential_meanwhile_loses_nothing(
    accounts_engine: AsyncEngine,
) -> None:
    server = Accounts(accounts_engine, KeyRing([OLD, NEW]))  # it still writes under the old key
    made = await kept(server, 20)

    async def change(credential: Credential) -> None:
        async with server.transaction() as transaction:
            await transaction.credentials.change(
                credential.user_id,
                credential.id,
                version=1,
                at=NOW,
                values={},
                secrets=secrets(f"changed {credential.name}"),
            )

    ring = KeyRing([NEW, OLD])
    await asyncio.gather(rewrap_all(accounts_engine, ring), *(change(each) for each in made))
    await rewrap_all(accounts_engine, ring)

    alone = Accounts(accounts_engine, KeyRing([NEW]))
    async with alone.transaction() as transaction:
        for credential in made:
            _, opened = await transaction.credentials.opened(credential.user_id, credential.id)
            assert opened == secrets(f"changed {credential.name}")


async def test_a_row_that_does_not_open_is_named_and_keeps_none_of_the_others(
    accounts_engine: AsyncEngine,
) -> None:
    old = KeyRing([OLD])
    made = sorted(await kept(Accounts(accounts_engine, old), 12), key=lambda each: each.id.bytes)
    broken = made[6].id
    async with accounts_engine.begin() as connection:
        await connection.execute(
            update(CredentialRow).where(CredentialRow.id == broken).values(data_key=b"no seal")
        )

    both = KeyRing([NEW, OLD])
    done = await rewrap_all(accounts_engine, both)

    assert done.count == 12
    assert done.stuck == (StuckRow("user_api_credentials", broken, old.newest, "SEAL_BROKEN"),)
    assert await keys_in_use(accounts_engine) == {both.newest: 12, old.newest: 1}


async def test_rows_under_a_key_that_is_lost_are_named(accounts_engine: AsyncEngine) -> None:
    lost = KeyRing([new_key()])
    (made,) = await kept(Accounts(accounts_engine, lost), 1)

    done = await rewrap_all(accounts_engine, KeyRing([NEW, OLD]))

    assert done == Rewrapped(
        0,
        (
            StuckRow("user_api_credentials", made.id, lost.newest, "UNKNOWN_ENCRYPTION_KEY"),
            StuckRow("user_totp", made.user_id, lost.newest, "UNKNOWN_ENCRYPTION_KEY"),
        ),
    )
