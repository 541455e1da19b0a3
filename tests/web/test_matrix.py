"""Every field of the API, asked by everybody there is, over everything that carries it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from db.accounts.permissions import PERMISSIONS, SCOPED, Permission, Role, Scope
from db.embedded.servers import EmbeddedServers
from schema import permissions
from schema.build import build_schema
from schema.permissions import NODES, ROOTS, Access, NoRule, guard
from tests.web.asking import CORE, FIELDS, TRANSPORTS, asked_over, operation
from tests.web.doors import EVENTS, Door, opened, payload_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSALS = {"UNAUTHENTICATED", "FORBIDDEN"}
PUBLIC = [
    *("Query.markets", "Query.providers", "Query.symbols", "Query.instrument", "Query.candles"),
    *("Query.node", "Subscription.bars", "Subscription.trades", "Subscription.orderBook"),
    *("Subscription.ticker", "Mutation.register", "Mutation.verifyEmail"),
    *("Mutation.requestVerification", "Mutation.login", "Mutation.refresh", "Mutation.logout"),
    *("Mutation.requestPasswordReset", "Mutation.resetPassword"),
]
"""What the world may ask. Whoever adds to this list adds to what strangers can do."""
ADMINS = ["Mutation.startBackfill", "Mutation.cancelBackfill"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def closed_door(embedded: EmbeddedServers, door_url: str) -> AsyncIterator[Door]:
    """A server whose market data takes an account."""
    async with opened(embedded, door_url, public_market_data=False) as door:
        yield door


async def anonymous(_door: Door) -> None:
    return None


async def member(door: Door) -> str:
    return await door.session()


async def read_only_member(door: Door) -> str:
    return await door.session(Role.READ_ONLY)


async def admin(door: Door) -> str:
    return await door.session(Role.ADMIN)


async def read_only_token(door: Door) -> str:
    return await door.api_token(Scope.READ)


async def admins_token(door: Door) -> str:
    return await door.api_token(*Scope, role=Role.ADMIN)


async def expired(door: Door) -> str:
    return await door.expired()


async def revoked(door: Door) -> str:
    return await door.api_token(Scope.READ, revoked=True)


Asks = Callable[[Door], Awaitable[str | None]]
HELD: dict[Asks, frozenset[Permission] | None] = {
    anonymous: None,
    member: PERMISSIONS[Role.USER],
    read_only_member: PERMISSIONS[Role.READ_ONLY],
    admin: PERMISSIONS[Role.ADMIN],
    read_only_token: SCOPED[Scope.READ],
    admins_token: frozenset[Permission]().union(*SCOPED.values()),
}
KNOWN = pytest.mark.parametrize("who", HELD, ids=lambda who: who.__name__)
UNKNOWN = pytest.mark.parametrize("who", [expired, revoked], ids=lambda who: who.__name__)


def expected(root: str, held: frozenset[Permission] | None, *, public: bool = True) -> str:
    """Return what asking for *root* comes to by the table: `let in`, or why not."""
    rule = ROOTS[root]
    if rule is Access.ANYBODY or (rule is Access.MARKET_DATA and public):
        return "let in"
    if held is None:
        return "UNAUTHENTICATED"
    if rule in (Access.SIGNED_IN, Access.MARKET_DATA) or rule in held:
        return "let in"
    return "FORBIDDEN"


def outcome(errors: list[dict[str, Any]]) -> str:
    """Return how an answer with *errors* is to be understood, as `expected` puts it.

    A name that nobody has is refused later than a caller who may not ask.
    """
    codes = {error["extensions"]["code"] for error in errors}
    assert not codes & {"INTERNAL", "GRAPHQL_VALIDATION_FAILED"}, errors
    return next(iter(codes & REFUSALS), "let in")


async def outcomes(asked: Any, door: Door, token: str | None, roots: list[str]) -> dict[str, str]:
    answers = await asked(door, token, {root: operation(root) for root in roots})
    return {root: outcome(answer.get("errors", [])) for root, answer in answers.items()}


@KNOWN
@TRANSPORTS
async def test_whoever_may_ask_is_let_in_and_nobody_else(door: Door, asked: Any, who: Asks) -> None:
    roots = asked_over(asked)

    found = await outcomes(asked, door, await who(door), roots)

    assert found == {root: expected(root, HELD[who]) for root in roots}


@KNOWN
@TRANSPORTS
async def test_market_data_takes_an_account_where_a_setting_says_so(
    closed_door: Door, asked: Any, who: Asks
) -> None:
    roots = [root for root in asked_over(asked) if ROOTS[root] is Access.MARKET_DATA]

    found = await outcomes(asked, closed_door, await who(closed_door), roots)

    assert found == {root: expected(root, HELD[who], public=False) for root in roots}


@UNKNOWN
@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["http", "events"])
async def test_a_token_that_does_not_count_gets_no_field_at_all(
    door: Door, headers: dict[str, str], who: Asks
) -> None:
    token = await who(door)

    answers = {
        root: await door.post(token=token, headers=headers, **operation(root)) for root in FIELDS
    }

    assert {root: answer.status_code for root, answer in answers.items()} == dict.fromkeys(
        FIELDS, 401
    )
    for answer in answers.values():
        (error,) = answer.json()["errors"]
        assert error["extensions"]["code"] == "UNAUTHENTICATED"
        assert "data" not in answer.json()


@UNKNOWN
async def test_a_token_that_does_not_count_gets_no_socket(door: Door, who: Asks) -> None:
    token = await who(door)

    async with door.serving.socket() as socket:
        await socket.send({"type": "connection_init", "payload": payload_of(token)})

        assert await socket.closed() == (4403, "Forbidden")


async def test_whoever_tries_what_they_may_not_is_in_the_audit_log_once_for_each_try(
    door: Door,
) -> None:
    tried = [
        root
        for root in FIELDS
        if root.startswith("Mutation.")
        and expected(root, SCOPED[Scope.READ]) == "FORBIDDEN"
        and ROOTS[root] is not Permission.SAVED_WORK_CHANGE
    ]
    token = await door.api_token(Scope.READ)

    for root in tried:
        answer = await door.post(**operation(root), token=token)
        assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN", root
    log = await door.ask("{ auditLog(first: 500) { nodes { action result } } }", token)

    lines = log["data"]["auditLog"]["nodes"]
    refused = [line["action"] for line in lines if line["result"] == "FORBIDDEN"]
    assert len(refused) == len(set(refused)) == len(tried) > 15


async def test_the_rules_are_about_the_fields_there_are() -> None:
    node = CORE.get_type("Node")
    kinds = {kind.name for kind in CORE.get_possible_types(node)}  # type: ignore[arg-type]

    assert set(ROOTS) == set(FIELDS)
    assert set(NODES) == kinds


async def test_strangers_may_ask_for_nothing_but_this() -> None:
    assert sorted(r for r in FIELDS if expected(r, None) == "let in") == sorted(PUBLIC)


async def test_only_admins_run_backfills() -> None:
    for root in ADMINS:
        may = {role for role in Role if expected(root, PERMISSIONS[role]) == "let in"}

        assert may == {Role.ADMIN}


@pytest.mark.parametrize("forgotten", ["Query.me", "Mutation.startBackfill", "Subscription.bars"])
async def test_a_field_without_a_rule_keeps_the_schema_from_being_built(
    forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {name: rule for name, rule in ROOTS.items() if name != forgotten}
    monkeypatch.setattr(permissions, "ROOTS", rules)

    with pytest.raises(NoRule, match=forgotten):
        build_schema()


async def test_a_kind_of_entity_without_a_rule_does_so_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = {name: rule for name, rule in NODES.items() if name != "User"}
    monkeypatch.setattr(permissions, "NODES", rules)

    with pytest.raises(NoRule, match="User"):
        guard(CORE)
