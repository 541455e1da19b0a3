"""`python -m web accounts`: the first admin, roles, and new keys while a server runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from db.accounts.repositories.credentials import Credential, CredentialSecrets
from market.clock import FixedClock
from resolvers.identity.administration import users
from resolvers.identity.failures import LoginFailed
from resolvers.identity.registering import Wanted, register
from resolvers.identity.signing_in import login
from tests.accounts import NOW, ORIGIN, PASSWORD, START_MS, added
from web.accounts_wiring import AccountsParts, NoVenues, open_accounts
from web.background import Background
from web.key_file import read_keys
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


def serving(url: str, data_dir: Path):
    """Accounts as a server that runs has them."""
    return open_accounts(
        Settings(_env_file=None, data_dir=data_dir, accounts_url=url if "mysql" in url else None),
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
        dropped = command("drop-keys")

        assert await opened(parts, made) == await opened(parts, after) == SECRETS

    assert rotated.returncode == 0, rotated.stderr
    assert "1 rows are under the key" in rotated.stdout
    assert dropped.stdout == "Keys forgotten: 1, kept: 1.\n"
    assert first not in read_keys(path)
    async with serving(empty_accounts_url, tmp_path) as parts:
        assert await opened(parts, after) == SECRETS


async def kept(parts: AccountsParts, name: str):
    """Return a credential that was added by the server just now."""
    user = await added(parts.identity.accounts)
    made = Credential(
        id=uuid4(),
        user_id=user.id,
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
    async with parts.identity.accounts.transaction() as transaction:
        await transaction.credentials.add(made, SECRETS)
    return made


async def opened(parts: AccountsParts, made):
    async with parts.identity.accounts.transaction() as transaction:
        return await transaction.credentials.secrets(made.user_id, made.id)
