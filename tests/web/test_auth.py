"""Who somebody is taken for at the door, and for how long."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest
from starlette.requests import HTTPConnection

from db.accounts.errors import AccountsUnavailable
from db.accounts.permissions import Role, Scope
from db.embedded.servers import EmbeddedServers
from resolvers.callers import Caller
from resolvers.identity.administration import set_disabled, set_role
from resolvers.identity.principal import Claims, Origin, Principal
from resolvers.identity.signing_in import logout
from schema.build import build_schema
from schema.permissions import Access, Permissions
from tests.web.doors import EVENTS, NOW, TOKEN_LASTS, Door, opened, payload_of, sent
from tests.web.live.stage import PATIENCE
from web.auth import Door as Entrance
from web.limits.cost import Costs
from web.limits.gate import Gate
from web.limits.leases import RateLimits
from web.limits.proxies import Proxies
from web.limits.rates import rates_of
from web.limits.windows import LocalWindows

pytestmark = pytest.mark.asyncio(loop_scope="session")

ME = "{ me { username } }"
MARKETS = "{ markets { name } }"
BOTH = "{ markets { name } me { username } }"
CANDLES = (
    'candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"}, last: 3) { candles { '
    "time } }"
)
START = """mutation { startBackfill(input: {
  series: {provider: "sim", symbol: "%s", timeframe: "1m"}, since: %d, idempotencyKey: "%s"
}) { __typename ... on BackfillStarted { backfill { id } } } }"""
FOLLOW = "subscription Follow($id: ID!) { backfillProgress(id: $id) { state } }"
BARS = (
    'subscription { bars(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"}) '
    "{ __typename } }"
)


async def test_a_token_in_the_header_says_who_asks(door: Door) -> None:
    answer = await door.ask(ME, await door.session())

    assert answer["data"]["me"]["username"].startswith("u")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_written_as_one_likes(door: Door, scheme: str) -> None:
    token = await door.session()

    answer = await door.post(ME, headers={"authorization": f"{scheme} {token}"})

    assert "errors" not in answer.json()


async def test_nobody_gets_what_is_public_and_an_error_for_the_rest(door: Door) -> None:
    answer = await door.post(BOTH)

    assert answer.status_code == 200
    assert answer.json()["data"]["markets"]
    assert answer.json()["data"]["me"] is None
    (error,) = answer.json()["errors"]
    assert (error["path"], error["extensions"]) == (["me"], {"code": "UNAUTHENTICATED"})


async def test_a_token_in_a_url_or_a_body_is_not_looked_at(door: Door) -> None:
    token = await door.session()
    async with door.serving.http() as http:
        in_url = await http.get(
            "/graphql", params={"query": ME, "token": token, "access_token": token}
        )
    in_body = await door.post(ME, extensions={"authorization": f"Bearer {token}"})

    for answer in (in_url, in_body):
        assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


def part(of: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(of).encode()).rstrip(b"=").decode()


def changed(token: str, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return *token* with some of it replaced, under the signature it had."""
    known = jwt.get_unverified_header(token)
    said = jwt.decode(token, options={"verify_signature": False})
    return f"{part(known | header)}.{part(said | claims)}.{token.rpartition('.')[2]}"


Forgery = Callable[[str], str]
FORGERIES: dict[str, Forgery] = {
    "none": lambda token: changed(token, {"alg": "none"}, {}),
    "unsigned": lambda token: changed(token, {"alg": "none"}, {}).rpartition(".")[0] + ".",
    "symmetric": lambda token: jwt.encode(
        jwt.decode(token, options={"verify_signature": False}),
        "a secret of thirty-two characters",
        headers=jwt.get_unverified_header(token) | {"alg": "HS256"},
    ),
    "another user": lambda token: changed(token, {}, {"sub": uuid4().hex}),
    "longer": lambda token: changed(token, {}, {"exp": NOW}),
    "another key": lambda token: changed(token, {"kid": "0" * 16}, {}),
    "cut": lambda token: token[:-4],
    "twice": lambda token: f"{token} {token}",
    "a refresh token": lambda _: "bgr_" + "A" * 64,
    "an API token": lambda _: f"bgt_{'a' * 12}_{'A' * 43}",
    "long": lambda _: "x" * 5_000,
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused_and_told_nothing(door: Door, forgery: str) -> None:
    forged = FORGERIES[forgery](await door.session())

    # A public field too: whoever shows a token means to be somebody.
    answer = await door.post(MARKETS, headers={"authorization": f"Bearer {forged}"})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json() == {
        "errors": [
            {
                "message": "Sign in, or sign in again.",
                "extensions": {"code": "UNAUTHENTICATED"},
            }
        ]
    }


@pytest.mark.parametrize("header", ["Basic dTpw", "nonsense", "Bearer", "Token x"])
async def test_a_header_without_a_token_is_refused(door: Door, header: str) -> None:
    assert (await door.post(MARKETS, headers={"authorization": header})).status_code == 401


async def test_two_tokens_are_refused(door: Door) -> None:
    one, two = await door.session(), await door.session()
    headers = [("authorization", f"Bearer {one}"), ("authorization", f"Bearer {two}")]

    async with door.serving.http() as http:
        answer = await http.post("/graphql", json={"query": ME}, headers=headers)

    assert answer.status_code == 401


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
async def test_a_socket_says_who_it_is_when_it_connects(door: Door, name: str) -> None:
    token = await door.session()

    async with door.serving.socket() as socket:
        await socket.init({name: f"Bearer {token}", "other": 1})
        await socket.subscribe("1", ME)

        assert (await socket.answer("1"))["data"]["me"]


@pytest.mark.parametrize("payload", [None, {}, {"authorization": None}, {"authorization": ""}])
async def test_a_socket_that_says_nothing_is_nobodys(door: Door, payload: Any) -> None:
    async with door.serving.socket() as socket:
        await socket.init(payload)
        await socket.subscribe("1", BOTH)

        answer = await socket.answer("1")

    assert answer["data"]["markets"]
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "payload",
    [
        {"authorization": "Bearer nonsense"},
        {"authorization": 7},
        {"authorization": "Bearer"},
        {"authorization": "Bearer x", "Authorization": "Bearer y"},
    ],
)
async def test_a_socket_that_says_something_else_is_closed(door: Door, payload: Any) -> None:
    async with door.serving.socket() as socket:
        await socket.send({"type": "connection_init", "payload": payload})

        assert await socket.closed() == (4403, "Forbidden")


async def test_a_header_or_url_of_a_socket_is_not_looked_at(door: Door) -> None:
    token = await door.session()
    headers = {"authorization": f"Bearer {token}", "cookie": f"bargraph_refresh={token}"}

    async with door.serving.client(additional_headers=headers) as socket:
        await socket.subscribe("1", ME)
        answer = await socket.answer("1")

    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_cookie_cannot_be_asked_for_where_none_can_be_set(door: Door) -> None:
    login = """mutation Login($password: Secret!) {
      login(input: {username: "x", password: $password, cookie: true}) { __typename }
    }"""
    asked = {"query": login, "variables": {"password": "y"}}
    (event,) = sent((await door.post(**asked, headers=EVENTS)).text)
    async with door.serving.client() as socket:
        await socket.subscribe("1", **asked)
        over_socket = await socket.answer("1")

    for answer in (over_socket, event):
        assert answer["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT", "field": "cookie"}


@pytest.mark.parametrize("https", [True, False])
async def test_a_cookie_is_for_tls_where_the_server_is(
    embedded: EmbeddedServers, door_url: str, https: bool
) -> None:
    logout = "mutation { logout(input: {}) { __typename } }"
    given = {"public_url": "https://bars.example"} if https else {}
    async with opened(embedded, door_url, **given) as door:
        answer = await door.post(logout)

    assert ("; Secure" in answer.headers["set-cookie"]) is https


async def job(door: Door) -> str:
    """Return the id of a backfill that waits for ever."""
    admin = await door.session(Role.ADMIN)
    symbol = "BTC/USDT"
    text = START % (symbol, NOW - 86_400_000, uuid4().hex)
    answer = await door.ask(text, admin)
    started = answer["data"]["startBackfill"]
    if started["__typename"] == "BackfillStarted":
        return str(started["backfill"]["id"])
    listed = await door.ask("{ backfills { nodes { id } } }", admin)
    return str(listed["data"]["backfills"]["nodes"][0]["id"])


async def expires(door: Door, _principal: Principal) -> None:
    door.clock.at += TOKEN_LASTS + 1


async def signs_out(door: Door, principal: Principal) -> None:
    await logout(door.identity, principal, origin=Origin())


async def is_disabled(door: Door, principal: Principal) -> None:
    await set_disabled(door.identity, None, principal.username, True, origin=Origin())


async def is_deleted(door: Door, principal: Principal) -> None:
    async with door.identity.accounts.transaction() as transaction:
        await transaction.users.delete(principal.user_id)
    door.identity.checks.forget(principal.user_id)


Loss = Callable[[Door, Principal], Awaitable[None]]
LOSSES = pytest.mark.parametrize(
    "loses", [expires, signs_out, is_disabled, is_deleted], ids=lambda loses: loses.__name__
)


@LOSSES
async def test_on_an_open_socket_private_operations_end_and_public_ones_go_on(
    door: Door, loses: Loss
) -> None:
    waiting, token = await job(door), await door.session()
    async with door.serving.socket() as socket:
        await socket.init(payload_of(token))
        await socket.subscribe("private", FOLLOW, variables={"id": waiting})
        await socket.subscribe("public", BARS)
        assert (await socket.answer("private"))["data"]["backfillProgress"]["state"] == "QUEUED"
        assert (await socket.answer("public"))["data"]["bars"]["__typename"] == "BarSnapshot"

        await loses(door, await door.identity.authenticate(token))

        ended = await socket.of("private")
        await socket.subscribe("later", BOTH)
        later = await socket.answer("later")
        assert await socket.alive()
        over = [message for message in socket.kept if message.get("id") == "public"]
    assert ended["type"] == "error"
    assert [error["extensions"]["code"] for error in ended["payload"]] == ["UNAUTHENTICATED"]
    assert later["data"]["markets"]
    assert later["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert all(message["type"] == "next" for message in over)


@LOSSES
async def test_an_event_stream_ends_when_its_reader_may_not_go_on(door: Door, loses: Loss) -> None:
    waiting, token = await job(door), await door.session()
    headers = {"authorization": f"Bearer {token}", **EVENTS}
    body = {"query": FOLLOW, "variables": {"id": waiting}}
    async with (
        door.serving.http() as http,
        http.stream("POST", "/graphql", json=body, headers=headers) as stream,
        asyncio.timeout(PATIENCE),
    ):
        pieces = stream.aiter_text()
        read = ""
        while not sent(read):
            read += await anext(pieces)
        await loses(door, await door.identity.authenticate(token))
        read += "".join([piece async for piece in pieces])

    last = sent(read)[-1]
    assert [error["extensions"]["code"] for error in last["errors"]] == ["UNAUTHENTICATED"]


async def test_nobody_stays_because_somebody_elses_check_hangs(door: Door, door_url: str) -> None:
    waiting = await job(door)
    slow, token = await door.api_token(Scope.READ), await door.session()
    async with door.serving.socket() as first, door.serving.socket() as second:
        for socket, shown in ((first, slow), (second, token)):
            await socket.init(payload_of(shown))
            await socket.subscribe("private", FOLLOW, variables={"id": waiting})
            assert (await socket.answer("private"))["data"]
        other = await asyncpg.connect(door_url)
        try:
            await other.execute("BEGIN; SELECT 1 FROM accounts.api_tokens FOR UPDATE")
            door.clock.at += 61_000  # that a token is used is noted once a minute, which now hangs
            await is_disabled(door, await door.identity.authenticate(token))

            ended = await second.of("private")
            hanging = await first.alive() and not first.kept
        finally:
            await other.close()

    assert ended["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert hanging


async def test_a_demoted_admin_starts_no_backfill_on_a_socket_that_is_open(door: Door) -> None:
    token = await door.session(Role.ADMIN)
    principal = await door.identity.authenticate(token)
    async with door.serving.socket() as socket:
        await socket.init(payload_of(token))
        await set_role(door.identity, None, principal.username, Role.USER, origin=Origin())
        await socket.subscribe("1", START % ("ETH/USDT", NOW - 86_400_000, uuid4().hex))

        answer = await socket.answer("1")

    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_private_subscriptions_are_not_shared_and_public_ones_are(door: Door) -> None:
    waiting = await job(door)
    tokens = [await door.session() for _ in range(2)]
    shared = "bargraph_live_groups"
    async with door.serving.socket() as one, door.serving.socket() as two:
        for socket, token in zip((one, two), tokens, strict=True):
            await socket.init(payload_of(token))
            await socket.subscribe("private", FOLLOW, variables={"id": waiting})
            await socket.answer("private")
        private = await door.metric(shared)
        for socket in (one, two):
            await socket.subscribe("public", BARS)
            await socket.answer("public")
        public = await door.metric(shared)

    assert (private, public) == (0, 1)


async def test_closed_market_data_is_shared_by_members_each_as_long_as_they_may(
    embedded: EmbeddedServers, door_url: str
) -> None:
    async with opened(embedded, door_url, public_market_data=False) as door:
        leaving, staying = await door.session(), await door.session()
        async with door.serving.socket() as one, door.serving.socket() as two:
            for socket, token in ((one, leaving), (two, staying)):
                await socket.init(payload_of(token))
                await socket.subscribe("1", BARS)
                assert (await socket.answer("1"))["data"]["bars"]["__typename"] == "BarSnapshot"
            groups = await door.metric("bargraph_live_groups")

            await signs_out(door, await door.identity.authenticate(leaving))

            while (ended := await one.of("1"))["type"] == "next":
                pass  # what came before
            alive = await two.alive()
            over = [message for message in two.kept if message["type"] != "next"]
            await two.subscribe("2", MARKETS)
            answer = await two.answer("2")

    assert groups == 1
    assert ended["type"] == "error"
    assert ended["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert alive
    assert over == []
    assert answer["data"]["markets"]


async def test_what_is_ones_own_is_never_answered_from_memory(door: Door) -> None:
    query = f"{{ {CANDLES} apiTokens {{ name }} }}"
    owner, other = await door.session(), await door.api_token(Scope.READ)
    for _ in range(3):
        assert (await door.ask(query, owner))["data"]["apiTokens"] == []

    others = await door.ask(query, other)
    nobodys = await door.ask(query)

    assert others["data"]["apiTokens"] == [{"name": "program"}]
    assert nobodys["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert nobodys["data"] is None


async def test_closed_market_data_is_answered_from_memory_to_members_only(
    embedded: EmbeddedServers, door_url: str
) -> None:
    query = f"{{ {CANDLES} }}"
    known = {"version": 1, "sha256Hash": sha256(query.encode()).hexdigest()}
    extensions = {"persistedQuery": known}
    async with opened(embedded, door_url, public_market_data=False) as door:
        member, other = await door.session(), await door.session()
        first = [
            (await door.post(query, token=member, extensions=extensions)).json() for _ in range(3)
        ]

        again = await door.ask(query, other)
        strangers = [
            await door.post(query),
            await door.post(query, extensions=extensions),
            await door.post("", extensions=extensions),
        ]

    assert len(again["data"]["candles"]["candles"]) == 3
    assert again["data"] == first[-1]["data"]
    for answer in strangers[:2]:
        assert answer.json()["data"] is None
        assert answer.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert "data" not in strangers[2].json() or strangers[2].json()["data"] is None


async def test_tokens_that_are_tried_count_by_address_and_users_are_not_kept_out_by_them(
    embedded: EmbeddedServers, door_url: str
) -> None:
    async with opened(embedded, door_url, rate_queries=5, trusted_proxies=("127.0.0.1",)) as door:
        from_there = {"x-forwarded-for": "203.0.113.7"}
        token = await door.session()
        before = await door.post(ME, token=token, headers=from_there)

        tried = [
            (await door.post(MARKETS, token=f"forged{n}", headers=from_there)).status_code
            for n in range(8)
        ]
        after = await door.post(ME, token=token, headers=from_there)

    assert set(tried[:3]) == {401}
    assert set(tried[-3:]) == {429}
    assert (before.status_code, after.status_code) == (200, 200)


class Away:
    """Accounts whose database does not answer."""

    def lately(self, bearer: str) -> Principal | None:
        return None

    def is_read(self, bearer: str) -> bool:
        return False

    async def authenticate(self, bearer: str) -> Principal:
        raise AccountsUnavailable("away")

    async def check(self, claims: Claims) -> Principal:
        raise AccountsUnavailable("away")


async def test_while_accounts_are_away_public_fields_go_on_and_private_ones_say_why(
    door: Door,
) -> None:
    gate = Gate(
        RateLimits(rates_of(queries=9, mutations=9, sockets=9, logins=9), LocalWindows()),
        Costs(build_schema().core, available=100, max_bars=100),
        proxies=Proxies(),
        seconds=5,
    )
    away, permissions = Entrance(Away(), gate), Permissions()
    scope = {"type": "http", "headers": [(b"authorization", b"Bearer some")]}
    principal = await door.identity.authenticate(await door.session())
    signed_in = Caller(local=False, principal=principal)

    arriving = await away.of_request(HTTPConnection(scope), Caller(local=False))
    staying = await away.again(signed_in)
    connecting = await away.of_payload(Caller(local=False), {"authorization": "Bearer bgt_canary"})

    assert "canary" not in repr(connecting)
    for caller in (arriving, staying, connecting, await away.again(connecting)):
        permissions.check(Access.MARKET_DATA, caller)
        with pytest.raises(AccountsUnavailable):
            permissions.check(Access.SIGNED_IN, caller)
