"""`python -m web accounts`: the first admin, roles, and new keys while a server runs."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID, uuid4

import pyotp
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from db.accounts.models.credentials import CredentialRow
from db.accounts.repositories.credentials import Credential, CredentialSecrets
from db.encryption import key_id_of
from market.clock import FixedClock
from resolvers.identity.administration import users
from resolvers.identity.failures import CodeNeeded, LoginFailed, Unauthenticated
from resolvers.identity.registering import Wanted, register
from resolvers.identity.second_factor import confirm, enrol
from resolvers.identity.signing_in import login, refresh
from tests.accounts import NOW, ORIGIN, PASSWORD, START_MS, added
from web.accounts_wiring import AccountsParts, NoVenues, open_accounts
from web.background import Background
from web.commands.account_keys import drop_keys, rotate_keys
from web.key_file import KeyUnsettled, read_keys
from web.settings import Settings

SECRETS = CredentialSecrets(SecretStr("venue-key-abcd1234"), SecretStr("venue-secret"))
pytestmark = pytest.mark.parametrize("empty_accounts_url", ["mariadb", "embedded"], indirect=True)
CHECKOUT = Path(__file__).parents[2]


class Command:
    """Runs `python -m web accounts` on one database and folder."""

    def __init__(self, url: str, data_dir: Path) -> None:
        name = "ACCOUNTS_URL" if "mysql" in url else "DATABASE_URL"
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.environment = {**kept, name: url, "DATA_DIR": str(data_dir)}

    def __call__(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "web", "accounts", *arguments],
            cwd=CHECKOUT,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def command(empty_accounts_url: str, tmp_path: Path) -> Command:
    return Command(empty_accounts_url, tmp_path)


def settings_of(url: str, data_dir: Path) -> Settings:
    accounts_url = SecretStr(url) if "mysql" in url else None
    return Settings(_env_file=None, data_dir=data_dir, accounts_url=accounts_url)


def serving(url: str, data_dir: Path) -> AbstractAsyncContextManager[AccountsParts]:
    """Accounts as a server that runs has them."""
    return open_accounts(
        settings_of(url, data_dir),
        url,
        clock=FixedClock(START_MS),
        background=Background(),
        probe=NoVenues(),
    )


async def signs_in(parts: AccountsParts, name: str) -> bool:
    try:
        await login(parts.identity, name, PASSWORD, code=None, origin=ORIGIN)
    except LoginFailed:
        return False
    return True


async def test_the_first_admin_is_made_and_signs_in(
    command: Command, empty_accounts_url: str, tmp_path: Path
) -> None:
    arguments = ("create-admin", "boss", "boss@example.com", "--password-stdin")
    made = command(*arguments, typed=f"{PASSWORD.get_secret_value()}\n")
    again = command(*arguments, typed=f"{PASSWORD.get_secret_value()}\n")
    listed = command("list")

    assert (made.returncode, made.stdout) == (0, "boss is an admin.\n")
    assert again.returncode == 1
    assert again.stderr.endswith("There is a user with this name already.\n")
    assert listed.stdout == "boss  admin  boss@example.com\n"
    for said in (made, again, listed):
        assert PASSWORD.get_secret_value() not in said.stdout + said.stderr
    async with serving(empty_accounts_url, tmp_path) as parts:
        assert await signs_in(parts, "boss")


async def test_what_is_wrong_is_told_in_a_sentence(command: Command) -> None:
    short = command("create-admin", "boss", "boss@example.com", "--password-stdin", typed="short")
    nobody = command("set-role", "nobody", "admin")

    assert (short.returncode, nobody.returncode) == (1, 1)
    assert "Bargraph cannot run: A password has at least 10 characters." in short.stderr
    assert "There is no user" in nobody.stderr
    assert "Traceback" not in short.stderr + nobody.stderr


async def test_roles_and_doors_change_while_a_server_runs(
    command: Command, empty_accounts_url: str, tmp_path: Path
) -> None:
    async with serving(empty_accounts_url, tmp_path) as parts:
        token = command("invite", "--role", "user").stdout.strip()
        wanted = Wanted("ada", "ada@example.com", PASSWORD, SecretStr(token))
        await register(parts.identity, wanted, origin=ORIGIN)

        command("set-role", "ada", "admin")
        (ada,) = await users(parts.identity, None, first=2)
        last = command("disable", "ada")

    assert ada.role == "admin"
    assert last.returncode == 1
    assert "only admin" in last.stderr


async def test_who_lost_phone_and_recovery_codes_is_let_in_by_a_command_and_told(
    command: Command, empty_accounts_url: str, tmp_path: Path
) -> None:
    async with serving(empty_accounts_url, tmp_path) as parts:
        hashed = await parts.identity.passwords.hash(PASSWORD)
        user = await added(parts.identity.accounts, password_hash=hashed)
        begun = await login(parts.identity, user.username, PASSWORD, code=None, origin=ORIGIN)
        principal = await parts.identity.authenticate(begun.access.text.get_secret_value())
        enrolment = await enrol(parts.identity, principal, PASSWORD, origin=ORIGIN)
        code = pyotp.TOTP(enrolment.secret.get_secret_value()).at(START_MS // 1000)
        await confirm(parts.identity, principal, code, origin=ORIGIN)
        with pytest.raises(CodeNeeded):
            await signs_in(parts, user.username)

        done = command("turn-off-codes", user.username)
        again = command("turn-off-codes", user.username)

        assert await signs_in(parts, user.username)
        with pytest.raises(Unauthenticated):
            await refresh(parts.identity, begun.refresh, origin=ORIGIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{user.username} needs no codes any more, and is signed out.\n"
    assert again.returncode == 1
    assert "One-time codes are not on." in again.stderr
    mails = [path.read_text() for path in (tmp_path / "mail").iterdir()]
    (off,) = [mail for mail in mails if "Subject: One-time codes are off\n" in mail]
    assert f"To: {user.email}\n" in off


async def test_keys_are_rotated_while_a_server_runs_and_old_ones_are_dropped(
    command: Command, empty_accounts_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "encryption.keys"
    async with serving(empty_accounts_url, tmp_path) as parts:
        made = await kept(parts, "before")
        (first,) = read_keys(path)

        rotated = command("rotate-keys")
        assert await opened(parts, made) == SECRETS
        after = await kept(parts, "after")
        held = read_keys(path)
        settle(path)
        dropped = command("drop-keys")

        assert await opened(parts, made) == await opened(parts, after) == SECRETS
        lines = await log_of_commands(parts)

    assert rotated.returncode == 0, rotated.stderr
    assert "1 rows are under the key" in rotated.stdout
    assert first in held
    assert dropped.stdout == "Keys forgotten: 1, kept: 1.\n"
    assert first not in read_keys(path)
    assert lines == [
        ("rotate-keys", "ok", key_id_of(held[0]), None),
        ("drop-keys", "ok", key_id_of(first), None),
    ]
    async with serving(empty_accounts_url, tmp_path) as parts:
        assert await opened(parts, after) == SECRETS


async def test_what_was_encrypted_before_a_rotation_and_committed_after_it_opens(
    empty_accounts_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, settings = tmp_path / "encryption.keys", settings_of(empty_accounts_url, tmp_path)
    async with serving(empty_accounts_url, tmp_path) as parts:
        user = await added(parts.identity.accounts)
        made = credential_of(user.id, "slow")
        async with parts.identity.accounts.transaction() as transaction:
            await transaction.credentials.add(made, SECRETS)
            await rotate_keys(parts, settings, Namespace())
            with pytest.raises(KeyUnsettled):
                await drop_keys(parts, settings, Namespace())
        settle(path)
        capsys.readouterr()
        await drop_keys(parts, settings, Namespace())
        in_use = capsys.readouterr().out

        await rotate_keys(parts, settings, Namespace())
        settle(path)
        await drop_keys(parts, settings, Namespace())

        assert await opened(parts, made) == SECRETS

    assert in_use == "Keys forgotten: 0, kept: 2.\n"
    ended = capsys.readouterr().out
    assert "That ends a rotation that was begun before." in ended
    assert ended.endswith("Keys forgotten: 1, kept: 1.\n")


async def test_a_row_that_does_not_open_is_named_and_keeps_no_rotation_from_going_on(
    empty_accounts_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, settings = tmp_path / "encryption.keys", settings_of(empty_accounts_url, tmp_path)
    async with serving(empty_accounts_url, tmp_path) as parts:
        broken, sound = await kept(parts, "broken"), await kept(parts, "sound")
        async with parts.engine.begin() as connection:
            await connection.execute(
                update(CredentialRow)
                .where(CredentialRow.id == broken.id)
                .values(data_key=b"no seal")
            )
        (first,) = read_keys(path)

        for keys in (2, 3):
            ended = await rotate_keys(parts, settings, Namespace())

            said = capsys.readouterr().out
            assert ended == 1
            assert "1 rows are under the key" in said
            assert said.endswith(
                f"Row {broken.id} of user_api_credentials does not open under the key "
                f"{key_id_of(first)}: SEAL_BROKEN.\n"
            )
            assert len(read_keys(path)) == keys

        assert await opened(parts, sound) == SECRETS


def settle(path: Path) -> None:
    """Let the newest key in *path* be as old as it has to be for others to go."""
    changed = path.stat().st_mtime - 3_600
    os.utime(path, (changed, changed))


async def log_of_commands(
    parts: AccountsParts,
) -> list[tuple[str, str, str | None, UUID | None]]:
    """Return what the audit log has of nobody it knows, the oldest first."""
    async with parts.identity.accounts.transaction() as transaction:
        page = await transaction.audit.page(first=100)
    return [
        (each.action, each.result, each.target, each.actor_id)
        for each in reversed(page)
        if each.user_id is None
    ]


def credential_of(user_id: UUID, name: str) -> Credential:
    return Credential(
        id=uuid4(),
        user_id=user_id,
        service="fake",
        name=name,
        testnet=False,
        notes=None,
        key_hint="1234",
        created_at=NOW,
        updated_at=NOW,
        last_checked_at=None,
        version=1,
    )


async def kept(parts: AccountsParts, name: str) -> Credential:
    """Return a credential that was added by the server just now."""
    user = await added(parts.identity.accounts)
    made = credential_of(user.id, name)
    async with parts.identity.accounts.transaction() as transaction:
        await transaction.credentials.add(made, SECRETS)
    return made


async def opened(parts: AccountsParts, made: Credential) -> CredentialSecrets:
    async with parts.identity.accounts.transaction() as transaction:
        _, secrets = await transaction.credentials.opened(made.user_id, made.id)
    return secrets
