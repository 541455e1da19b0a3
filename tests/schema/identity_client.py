"""What clients send about accounts, and a server for them whose time stands still."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from resolvers.identity.passwords import Passwords
from resolvers.identity.principal import Origin
from resolvers.identity.signing_in import begin_session
from tests.accounts import CHEAP, added
from tests.api import Api, Asked, served, settings_over
from tests.web.live.stage import until

NOW = 1_760_000_000_000
PASSWORD = "correct horse battery"
REGISTER = """mutation Register($input: RegisterInput!) {
  register(input: $input) {
    __typename ... on Registered { email } ... on Failure { code }
    ... on WeakPassword { field } ... on InvalidInput { field } ... on NameTaken { field }
  }
}"""
LOGIN = """mutation Login($input: LoginInput!) {
  login(input: $input) {
    __typename ... on Failure { code }
    ... on SignedIn {
      accessToken expiresAt refreshToken refreshExpiresAt user { id username role emailVerified }
    }
  }
}"""
REFRESH = """mutation Refresh($input: RefreshInput!) {
  refresh(input: $input) {
    __typename ... on Failure { code } ... on SignedIn { accessToken refreshToken }
  }
}"""
LOGOUT = "mutation Logout($input: LogoutInput!) { logout(input: $input) { __typename } }"
ME = """{ me {
  id username email emailVerified nickname bio location role
  secondFactor { isOn recoveryCodesLeft }
} }"""
CREATE = """mutation C($input: CreateApiTokenInput!) {
  createApiToken(input: $input) {
    __typename ... on ApiTokenCreated { token apiToken { id name prefix scopes expiresAt } }
    ... on InvalidInput { field }
  }
}"""
TOKEN = {"name": "bot", "scopes": ["READ"], "password": PASSWORD}
"""What `CREATE` takes."""


@asynccontextmanager
async def identity_api(
    embedded: EmbeddedServers, database_url: str, folder: Path, **settings: Any
) -> AsyncIterator[Api]:
    """Yield a client of a server that counts no tries unless *settings* say so.

    Its mails are in *folder*. A password is hashed as cheaply as can be.
    """
    given = settings_over(
        embedded, database_url, **{"data_dir": folder, "rate_logins": 0, **settings}
    )
    async with served(given, clock=FixedClock(NOW)) as api:
        identity = api.wired.shared.identity
        identity.passwords.close()
        identity.passwords = Passwords(hasher=CHEAP)
        yield api


async def ask(api: Api, query: str, headers: Any = None, **variables: Any) -> Asked:
    answer = await post(api, query, headers, **variables)
    return Asked(answer.status_code, answer.json())


async def post(api: Api, query: str, headers: Any = None, **variables: Any) -> httpx.Response:
    answer = await api.client.post(
        "/graphql", json={"query": query, "variables": variables}, headers=headers
    )
    api.client.cookies.clear()  # what a browser keeps, tests send themselves
    return answer


async def known(api: Api, **values: Any) -> dict[str, str]:
    """Return what somebody signs in with."""
    user = await added(
        api.wired.shared.identity.accounts, password_hash=CHEAP.hash(PASSWORD), **values
    )
    return {"username": user.username, "password": PASSWORD}


async def login(api: Api, headers: Any = None, **input: Any) -> dict[str, Any]:
    return (await ask(api, LOGIN, headers, input=input)).data["login"]


async def session(api: Api, somebody: dict[str, str]) -> dict[str, str]:
    """Return the header of *somebody* in a session of their own, for which nothing is hashed."""
    identity = api.wired.shared.identity
    async with identity.accounts.transaction() as transaction:
        user = await transaction.users.named(somebody["username"])
        assert user is not None
        begun = await begin_session(identity, transaction, user, origin=Origin())
    return bearer(begun.access.text.get_secret_value())


async def member(api: Api, **values: Any) -> dict[str, str]:
    """Return the header of somebody new, whose password is `PASSWORD`."""
    return await session(api, await known(api, **values))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def wanted(name: str, **values: str) -> dict[str, str]:
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD, **values}


def mails(folder: Path, address: str) -> list[str]:
    """Return what was mailed to *address*, the oldest first."""
    paths = sorted((folder / "mail").glob("*"), key=lambda path: path.stat().st_mtime_ns)
    found = [path.read_text() for path in paths]
    return [mail for mail in found if f"To: {address}\n" in mail]


async def mailed(folder: Path, address: str) -> str:
    """Return the token in the newest mail to *address*."""
    await until(lambda: bool(mails(folder, address)))
    match = re.search(r"#\w+=(\S+)", mails(folder, address)[-1])
    assert match is not None
    return match[1]
