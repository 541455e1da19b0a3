"""Known secrets are planted, everything is done with them, and they are looked for everywhere."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Awaitable
from dataclasses import dataclass, field

import pyotp
import pytest
from pydantic import SecretStr
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.accounts import Accounts
from db.accounts.engine import open_engine
from db.accounts.permissions import Scope
from db.accounts.repositories.credentials import CredentialSecrets
from db.encryption import KeyRing, key_text, new_key
from resolvers.identity import (
    addresses,
    api_tokens,
    changing_passwords,
    credentials,
    exporting,
    leaving,
    registering,
    second_factor,
    signing_in,
)
from tests.accounts import ORIGIN, Stage, staged

PASSWORD = SecretStr("canary-password-AbCd")
OTHER = SecretStr("canary-other-password-AbCd")
VENUE = CredentialSecrets(
    SecretStr("canary-venue-key-AbCd"),
    SecretStr("canary-venue-secret-AbCd"),
    SecretStr("canary-venue-aux-AbCd"),
)
CHANGED = CredentialSecrets(SecretStr("canary-changed-key-AbCd"), SecretStr("canary-changed-sec"))


@dataclass
class Told:
    """What came out: values that were returned, and failures with their tracebacks."""

    secrets: set[str] = field(default_factory=set)
    shown: list[str] = field(default_factory=list)

    def plant(self, *secrets: SecretStr) -> None:
        self.secrets |= {secret.get_secret_value() for secret in secrets}

    async def of(self, asked: Awaitable):
        """Return what *asked* gives, None if it fails; keep what is shown of either."""
        try:
            result = await asked
        except Exception as failure:
            self.shown.append("".join(traceback.format_exception(failure)))
            self.shown.append(repr(failure) + repr(failure.__cause__) + repr(failure.__context__))
            self.shown.append(repr(getattr(failure, "__dict__", "")))
            return None
        self.shown.append(f"{result!r} {result}")
        return result


async def everything(stage: Stage, told: Told, key: bytes) -> None:
    """Do all there is to do with secrets, rightly and wrongly."""
    identity, mailbox = stage.identity, stage.mailbox
    told.plant(PASSWORD, OTHER, VENUE.key, VENUE.secret, VENUE.aux or PASSWORD)
    told.plant(CHANGED.key, CHANGED.secret, SecretStr(key_text(key)), SecretStr(key.hex()))
    name = f"canary{id(told):x}"
    wanted = registering.Wanted(name, f"{name}@example.com", PASSWORD)
    await told.of(registering.register(identity, wanted, origin=ORIGIN))
    await told.of(registering.register(identity, wanted, origin=ORIGIN))
    verification = mailbox.token_for(wanted.email)
    told.plant(verification)
    await told.of(addresses.verify_email(identity, verification, origin=ORIGIN))
    await told.of(addresses.verify_email(identity, verification, origin=ORIGIN))

    signed_in = await told.of(signing_in.login(identity, name, PASSWORD, code=None, origin=ORIGIN))
    assert signed_in is not None
    told.plant(signed_in.access.text, signed_in.refresh)
    await told.of(signing_in.login(identity, name, OTHER, code="123456", origin=ORIGIN))
    refreshed = await told.of(signing_in.refresh(identity, signed_in.refresh, origin=ORIGIN))
    assert refreshed is not None
    told.plant(refreshed.access.text, refreshed.refresh)
    principal = await told.of(identity.authenticate(refreshed.access.text.get_secret_value()))
    assert principal is not None
    await told.of(identity.authenticate(refreshed.refresh.get_secret_value()))
    await told.of(identity.authenticate(signed_in.access.text.get_secret_value()[:-2]))

    made = await told.of(
        api_tokens.create_api_token(
            identity,
            principal,
            name="program",
            scopes=[Scope.READ],
            password=PASSWORD,
            origin=ORIGIN,
        )
    )
    assert made is not None
    told.plant(made.text)
    await told.of(identity.authenticate(made.text.get_secret_value()))
    await told.of(identity.authenticate(made.text.get_secret_value()[:-1] + "_"))

    new = credentials.NewCredential("fake", "main", VENUE, notes="notes")
    credential = await told.of(credentials.add_credential(identity, principal, new, origin=ORIGIN))
    assert credential is not None
    await told.of(credentials.add_credential(identity, principal, new, origin=ORIGIN))
    await told.of(credentials.try_credential(identity, principal, credential.id, origin=ORIGIN))
    stage.venue.refused.add(VENUE.key.get_secret_value())
    await told.of(credentials.try_credential(identity, principal, credential.id, origin=ORIGIN))
    for version in (1, 7):
        await told.of(
            credentials.update_credential(
                identity,
                principal,
                credential.id,
                credentials.CredentialChange(secrets=CHANGED),
                version=version,
                origin=ORIGIN,
            )
        )

    enrolment = await told.of(second_factor.enrol(identity, principal, PASSWORD, origin=ORIGIN))
    assert enrolment is not None
    told.plant(enrolment.secret, enrolment.uri)
    code = pyotp.TOTP(enrolment.secret.get_secret_value()).at(stage.clock.at // 1000)
    await told.of(second_factor.confirm(identity, principal, "000000", origin=ORIGIN))
    recovery = await told.of(second_factor.confirm(identity, principal, code, origin=ORIGIN))
    assert recovery is not None
    told.plant(*recovery)

    await told.of(
        changing_passwords.change_password(
            identity, principal, old=PASSWORD, new=OTHER, origin=ORIGIN
        )
    )
    await told.of(changing_passwords.request_password_reset(identity, wanted.email, origin=ORIGIN))
    await stage.done()
    reset = mailbox.token_for(wanted.email)
    told.plant(reset)
    stage.later(60)
    new_address = f"new-{wanted.email}"
    await told.of(
        addresses.change_email(
            identity, principal, password=OTHER, email=new_address, origin=ORIGIN
        )
    )
    told.plant(mailbox.token_for(new_address))
    for password in (OTHER, PASSWORD):
        await told.of(exporting.export_account(identity, principal, password, origin=ORIGIN))
        await told.of(
            leaving.delete_account(identity, principal, password, code="000000", origin=ORIGIN)
        )
    told.shown += [repr(each) for each in (identity, mailbox.mails, wanted, new, CHANGED)]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


async def test_no_secret_is_in_a_row_a_log_a_value_or_a_failure(
    accounts_engine: AsyncEngine, logged: pytest.LogCaptureFixture
) -> None:
    key = new_key()
    told = Told()
    async with staged(Accounts(accounts_engine, KeyRing([key]))) as stage:
        await everything(stage, told, key)
    rows = await stored(accounts_engine)

    assert len(told.secrets) > 25
    everywhere = "\n".join(told.shown) + logged.text
    for secret in told.secrets:
        assert secret not in everywhere
        assert secret.encode() not in rows


async def test_a_secret_that_is_stored_in_clear_would_be_found(
    accounts_engine: AsyncEngine,
) -> None:
    async with staged(Accounts(accounts_engine, KeyRing([new_key()]))) as stage:
        await stage.member(bio="canary-in-the-clear")

    assert b"canary-in-the-clear" in await stored(accounts_engine)


async def stored(engine: AsyncEngine) -> bytes:
    """Return all that is in the database, as one string of bytes."""
    found: list[bytes] = []
    async with engine.connect() as connection:
        for table in await connection.run_sync(lambda c: inspect(c).get_table_names()):
            for row in await connection.execute(text(f"SELECT * FROM {table}")):
                found += [
                    bytes(value) if isinstance(value, bytes | bytearray) else str(value).encode()
                    for value in row
                ]
    return b"\n".join(found)


@pytest.mark.parametrize("scheme", ["mysql+asyncmy", "postgresql+asyncpg"])
async def test_a_database_that_is_away_gives_no_secret_away(
    logged: pytest.LogCaptureFixture, scheme: str
) -> None:
    told = Told()
    url = f"{scheme}://canary-user:canary-db-password@127.0.0.1:1/canary-database"
    async with (
        open_engine(url) as engine,
        staged(Accounts(engine, KeyRing([new_key()]))) as stage,
    ):
        identity = stage.identity
        await told.of(signing_in.login(identity, "canary-name", PASSWORD, code=None, origin=ORIGIN))
        await told.of(
            signing_in.refresh(identity, SecretStr("bgr_" + "canary01" * 8), origin=ORIGIN)
        )
        await told.of(
            changing_passwords.request_password_reset(identity, "canary@example.com", origin=ORIGIN)
        )
        told.shown.append(repr(engine.url) + repr(identity.accounts))
    gc.collect()  # what was never awaited or closed would be logged now

    assert sum("AccountsUnavailable" in each for each in told.shown) >= 3
    everywhere = "\n".join(told.shown) + logged.text
    assert "canary-db-password" not in everywhere
    assert "canary-password" not in everywhere
    assert "canary01" not in everywhere
