"""Accounts as a whole: which keys, which database, and when a start is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

import web.accounts_wiring
from db.accounts.engine import open_engine
from db.accounts.repositories.audit import NewEntry
from db.encryption import key_text, new_key
from db.errors import SchemaNewer
from market.clock import FixedClock
from resolvers.identity.changing_passwords import request_password_reset
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.registering import Wanted, create_admin, register
from resolvers.identity.signing_in import login
from tests.accounts import ORIGIN, PASSWORD, START_MS, added
from web.accounts_wiring import AccountsParts, NoVenues, open_accounts
from web.background import Background
from web.key_file import KeysAway, read_keys
from web.settings import Settings, WrongSettings
from web.tokens import JwtTokens


def settings(data_dir: Path, **values) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir, **values)


def opened(settings: Settings, candles_url: str = "", *, clock: FixedClock | None = None):
    return open_accounts(
        settings,
        candles_url,
        clock=clock or FixedClock(START_MS),
        background=Background(),
        probe=NoVenues(),
    )


async def signed_in(identity: Identity, name: str):
    return await login(identity, name, PASSWORD, code=None, origin=ORIGIN)


async def test_whoever_is_signed_in_stays_so_over_a_restart(
    tmp_path: Path, empty_accounts_url: str
) -> None:
    # The database of the candles holds accounts too, unless a setting names another.
    given = {"accounts_url": empty_accounts_url} if "mysql" in empty_accounts_url else {}
    candles_url = "" if given else empty_accounts_url
    async with opened(settings(tmp_path, **given), candles_url) as parts:
        admin = await create_admin(parts.identity, Wanted("boss", "boss@example.com", PASSWORD))
        session = await signed_in(parts.identity, "boss")

    async with opened(settings(tmp_path, **given), candles_url) as parts:
        principal = await parts.identity.authenticate(session.access.text.get_secret_value())

    assert principal.user_id == admin.id


async def test_without_a_mail_server_mails_are_in_the_folder_before_the_process_ends(
    tmp_path: Path, empty_accounts_url: str
) -> None:
    async with opened(settings(tmp_path), empty_accounts_url) as parts:
        await register(parts.identity, Wanted("ada", "ada@example.com", PASSWORD), origin=ORIGIN)

    (mail,) = (tmp_path / "mail").iterdir()
    assert "http://127.0.0.1:8000/verify#token=" in mail.read_text()


async def test_a_mail_that_was_asked_for_just_before_the_end_is_written_and_sent(
    tmp_path: Path, empty_accounts_url: str
) -> None:
    async with opened(settings(tmp_path), empty_accounts_url) as parts:
        user = await added(parts.identity.accounts)
        await request_password_reset(parts.identity, user.email, origin=ORIGIN)

    (mail,) = (tmp_path / "mail").iterdir()
    assert "/reset-password#token=" in mail.read_text()


async def test_processes_that_start_at_once_share_keys_and_tables(
    tmp_path: Path, empty_accounts_url: str
) -> None:
    async def start() -> str:
        async with opened(settings(tmp_path), empty_accounts_url) as parts:
            return parts.ring.newest

    rings = await asyncio.gather(*(start() for _ in range(3)))

    assert len(set(rings)) == 1
    assert len(read_keys(tmp_path / "encryption.keys")) == 1


async def test_keys_of_the_settings_leave_no_file(tmp_path: Path, empty_accounts_url: str) -> None:
    keys = {name: SecretStr(key_text(new_key())) for name in ("encryption_keys", "token_keys")}

    async with opened(settings(tmp_path, **keys), empty_accounts_url):
        pass

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty_accounts_url", ["embedded"], indirect=True)
async def test_a_token_read_before_ends_with_its_key(
    tmp_path: Path, empty_accounts_url: str
) -> None:
    clock = FixedClock(START_MS)
    async with opened(settings(tmp_path), empty_accounts_url, clock=clock) as parts:
        await create_admin(parts.identity, Wanted("boss", "boss@example.com", PASSWORD))
        session = await signed_in(parts.identity, "boss")
        bearer = session.access.text.get_secret_value()
        principal = await parts.identity.authenticate(bearer)
        (tmp_path / "token.keys").write_text(key_text(new_key()))
        clock.at += 10_000

        with pytest.raises(Unauthenticated):
            await parts.identity.check(principal.claims)
        with pytest.raises(Unauthenticated):
            await parts.identity.authenticate(bearer)
        again = await signed_in(parts.identity, "boss")
        assert await parts.identity.authenticate(again.access.text.get_secret_value())


@pytest.mark.parametrize("empty_accounts_url", ["embedded"], indirect=True)
async def test_files_of_keys_that_are_gone_are_told_to_the_log_and_their_place_to_nobody_else(
    tmp_path: Path, empty_accounts_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(settings(tmp_path), empty_accounts_url) as parts:
        await create_admin(parts.identity, Wanted("boss", "boss@example.com", PASSWORD))
        session = await signed_in(parts.identity, "boss")
        for name in ("encryption.keys", "token.keys"):
            (tmp_path / name).unlink()
        secrets = {"key": SecretStr("venue-key")}

        with pytest.raises(KeysAway) as away:
            parts.ring.seal(secrets, owner=session.user_id, row=session.session_id)
        foreign = JwtTokens([new_key()], clock=FixedClock(START_MS)).sign(
            user_id=session.user_id, session_id=session.session_id, version=0
        )
        with pytest.raises(Unauthenticated):
            await parts.identity.authenticate(foreign.text.get_secret_value())
        await parts.identity.authenticate(session.access.text.get_secret_value())

    assert str(tmp_path) not in str(away.value)
    assert "encryption.keys" in caplog.text
    assert "token.keys" in caplog.text


async def test_a_database_of_a_newer_release_keeps_the_server_from_starting(
    tmp_path: Path, empty_accounts_url: str
) -> None:
    async with opened(settings(tmp_path), empty_accounts_url):
        pass
    async with open_engine(empty_accounts_url) as engine, engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))

    with pytest.raises(SchemaNewer):
        async with opened(settings(tmp_path), empty_accounts_url):
            pass


@pytest.mark.parametrize("empty_accounts_url", ["embedded"], indirect=True)
async def test_the_audit_log_is_kept_as_long_as_the_setting_says(
    tmp_path: Path, empty_accounts_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.accounts_wiring, "EVERY_SECONDS", 0.01)  # in place of an hour

    async def lines(parts: AccountsParts) -> list[str]:
        async with parts.identity.accounts.transaction() as transaction:
            return [entry.action for entry in await transaction.audit.page(first=10)]

    async with opened(settings(tmp_path, audit_retention=30), empty_accounts_url) as parts:
        now = parts.identity.now()
        async with parts.identity.accounts.transaction() as transaction:
            for days, action in ((40, "older"), (20, "younger")):
                entry = NewEntry(at=now - timedelta(days=days), action=action)
                await transaction.audit.add(entry)

        async with asyncio.timeout(30):
            while "older" in await lines(parts):
                await asyncio.sleep(0.01)

        assert await lines(parts) == ["audit-retention", "younger"]


IN_PRODUCTION = {
    "env": "production",
    "encryption_keys": SecretStr(key_text(new_key())),
    "token_keys": SecretStr(key_text(new_key())),
    "public_url": "https://bars.example.com",
    "smtp_url": SecretStr("smtps://bars:letters@mail.example.com"),
}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("encryption_keys", None, "must be set"),
        ("token_keys", None, "must be set"),
        ("token_keys", IN_PRODUCTION["encryption_keys"], "must share no key"),
        ("public_url", None, "must be set"),
        ("public_url", "http://bars.example.com", "must be https://"),
        ("smtp_url", None, "or REGISTRATION be"),
    ],
)
async def test_production_opens_accounts_with_care_or_not_at_all(
    tmp_path: Path, name: str, value: object, words: str
) -> None:
    given = settings(tmp_path, **{**IN_PRODUCTION, name: value})

    with pytest.raises(WrongSettings) as refused:
        async with opened(given):
            pass

    (line,) = str(refused.value).splitlines()
    assert line.startswith(name.upper())
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("registration", ["invitation", "closed"])
@pytest.mark.parametrize("empty_accounts_url", ["embedded"], indirect=True)
async def test_production_opens_accounts_without_mail_where_nobody_has_to_prove_an_address(
    tmp_path: Path, empty_accounts_url: str, registration: str
) -> None:
    given = {**IN_PRODUCTION, "smtp_url": None, "registration": registration}

    async with opened(settings(tmp_path, **given), empty_accounts_url) as parts:
        assert parts.identity.rules.registration == registration
