"""Sessions that begin over a socket, and sockets whose account is deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from db.accounts.permissions import Role, Scope
from resolvers.identity.signing_in import login
from tests.accounts import CHEAP, ORIGIN, PASSWORD, added
from tests.web.doors import NOW, Door, payload_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOGIN = """mutation L($name: String!, $password: Secret!) {
  login(input: {username: $name, password: $password}) { ... on SignedIn { accessToken } }
}"""
PUBLIC, PRIVATE = "{ markets { name } }", "{ me { role } }"
SESSIONS = "{ sessions { agent address } }"
DELETE = """mutation D($password: Secret!) {
  deleteAccount(input: {password: $password}) { __typename }
}"""
START = """mutation { startBackfill(input: {
  series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"}, since: %d, idempotencyKey: "one"
}) { ... on BackfillStarted { backfill { id } } } }"""
FOLLOW = "subscription F($id: ID!) { backfillProgress(id: $id) { state } }"


async def known(door: Door) -> dict[str, Any]:
    """Return what somebody new signs in with."""
    password = PASSWORD.get_secret_value()
    user = await added(door.identity.accounts, password_hash=CHEAP.hash(password))
    return {"name": user.username, "password": password}


async def test_a_session_that_begins_over_a_socket_tells_from_where_as_over_http(
    door: Door,
) -> None:
    agent, somebody = "a program of ours", await known(door)

    answer = await door.post(LOGIN, variables=somebody, headers={"user-agent": agent})
    token = answer.json()["data"]["login"]["accessToken"]
    async with door.serving.socket(user_agent_header=agent) as socket:
        await socket.init()
        await socket.subscribe("login", LOGIN, variables=somebody)
        await socket.answer("login")

    listed = await door.ask(SESSIONS, token)
    assert listed["data"]["sessions"] == [{"agent": agent, "address": "127.0.0.1"}] * 2


@asynccontextmanager
async def accounts_away(door_url: str) -> AsyncIterator[None]:
    """The database of accounts lets nobody in meanwhile."""
    server, _, name = door_url.partition("?")[0].rpartition("/")
    query = door_url.partition("?")[2]
    admin = await asyncpg.connect(f"{server}/postgres?{query}")
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()


async def test_whoever_connects_while_accounts_are_away_is_let_in_and_known_once_they_are_back(
    door: Door, door_url: str
) -> None:
    token, revoked = await door.session(), await door.api_token(Scope.READ, revoked=True)
    async with door.serving.socket() as known, door.serving.socket() as unknown:
        async with accounts_away(door_url):
            await known.init(payload_of(token))
            await unknown.init(payload_of(revoked))
            answers = []
            for number, query in enumerate((PUBLIC, PRIVATE)):
                await known.subscribe(f"{number}", query)
                answers.append(await known.answer(f"{number}"))
        await known.subscribe("back", PRIVATE)
        back = await known.answer("back")
        await unknown.subscribe("back", PUBLIC)
        refused = await unknown.of("back")

    (error,) = answers[1]["errors"]
    assert "errors" not in answers[0]
    assert error["extensions"]["code"] == "ACCOUNTS_UNAVAILABLE"
    assert back["data"]["me"]["role"] == "USER"
    assert [each["extensions"]["code"] for each in refused["payload"]] == ["UNAUTHENTICATED"]


async def test_a_deleted_account_has_no_private_subscription_on_any_open_socket(
    door: Door,
) -> None:
    somebody = await known(door)
    signed_in = await login(door.identity, somebody["name"], PASSWORD, code=None, origin=ORIGIN)
    token = signed_in.access.text.get_secret_value()
    started = await door.ask(START % (NOW - 86_400_000), await door.session(Role.ADMIN))
    async with door.serving.socket() as socket:
        await socket.init(payload_of(token))
        variables = {"id": started["data"]["startBackfill"]["backfill"]["id"]}
        await socket.subscribe("private", FOLLOW, variables=variables)
        await socket.answer("private")

        deleted = await door.ask(DELETE, token, password=somebody["password"])
        ended = await socket.of("private")

    assert deleted["data"]["deleteAccount"] == {"__typename": "AccountDeleted"}
    assert ended["type"] == "error"
    assert [error["extensions"]["code"] for error in ended["payload"]] == ["UNAUTHENTICATED"]
