"""New keys for what is encrypted: in batches, again after a stop, beside those who write."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts import rewrapping
from db.accounts.accounts import Accounts
from db.accounts.models.credentials import CredentialRow
from db.accounts.models.identity import TotpRow
from db.accounts.repositories.credentials import Credential, CredentialSecrets
from db.accounts.rewrapping import keys_in_use, rewrap_all
from db.encryption import KeyRing, UnknownEncryptionKey, new_key
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
    count = await rewrap_all(accounts_engine, both, told=batches.append)

    assert count == sum(batches) == 24
    assert max(batches) == 5
    assert await keys_in_use(accounts_engine) == {both.newest: 24}
    alone = Accounts(accounts_engine, KeyRing([NEW]))
    async with alone.transaction() as transaction:
        for credential in made:
            opened = await transaction.credentials.secrets(credential.user_id, credential.id)
            assert opened == secrets(credential.name)
        shared = await transaction.one_time_codes.locked(made[0].user_id)
    assert shared is not None
    assert shared.secret.get_secret_value() == "TOTPSECRET"


async def test_a_run_that_was_stopped_is_gone_on_with(accounts_engine: AsyncEngine) -> None:
    await kept(Accounts(accounts_engine, KeyRing([OLD])), 12)
    both = KeyRing([NEW, OLD])

    class Stopped(Exception):
        pass

    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await rewrap_all(accounts_engine, both, told=stop)

    assert await rewrap_all(accounts_engine, both) == 8
    assert await rewrap_all(accounts_engine, both) == 0


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
            opened = await transaction.credentials.secrets(credential.user_id, credential.id)
            assert opened == secrets(f"changed {credential.name}")


async def test_a_row_under_a_key_that_is_lost_is_named(accounts_engine: AsyncEngine) -> None:
    lost = KeyRing([new_key()])
    await kept(Accounts(accounts_engine, lost), 1)

    with pytest.raises(UnknownEncryptionKey) as unknown:
        await rewrap_all(accounts_engine, KeyRing([NEW, OLD]))

    assert unknown.value.key_id == lost.newest
