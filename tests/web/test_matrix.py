"""Every field of the API, asked by everybody there is, over everything that carries it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    get_named_type,
    is_leaf_type,
)

from db.accounts.permissions import PERMISSIONS, SCOPED, Permission, Role, Scope
from db.embedded.servers import EmbeddedServers
from schema import permissions
from schema.build import build_schema
from schema.permissions import NODES, ROOTS, Access, NoRule, guard, roots_of
from tests.conftest import scratch_database
from tests.web.doors import EVENTS, Door, opened, payload_of, sent

pytestmark = pytest.mark.asyncio(loop_scope="session")

CORE = build_schema().core
FIELDS = roots_of(CORE)
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


@pytest.fixture(scope="module")
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Door]:
    async with opened(embedded, database_url) as door:
        yield door


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def closed_door(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Door]:
    """A server whose market data takes an account."""
    async with opened(embedded, database_url, public_market_data=False) as door:
        yield door


def some(type: GraphQLInputType) -> Any:
    """Return some value of *type*: names that nobody has, and no more than is required."""
    if isinstance(type, GraphQLNonNull):
        return some(type.of_type)
    if isinstance(type, GraphQLList):
        return [some(type.of_type)]
    if isinstance(type, GraphQLEnumType):
        return next(iter(type.values))
    if isinstance(type, GraphQLInputObjectType):
        return {name: some(field.type) for name, field in type.fields.items() if is_needed(field)}
    assert isinstance(type, GraphQLScalarType)
    return {"Int": 1, "Float": 1.0, "Boolean": True, "Timestamp": 0}.get(type.name, "x")


def is_needed(of: Any) -> bool:
    return isinstance(of.type, GraphQLNonNull) and not has_default(of)


def has_default(of: Any) -> bool:
    return of.default_value is not None and repr(of.default_value) != "Undefined"


def operation(root: str) -> dict[str, Any]:
    """Return a request for the field *root*, such as `Query.me`; its values are variables."""
    kind, name = root.split(".")
    owner = {"Query": CORE.query_type, "Mutation": CORE.mutation_type}.get(
        kind, CORE.subscription_type
    )
    assert owner is not None
    field: GraphQLField = owner.fields[name]
    needed = {n: argument.type for n, argument in field.args.items() if is_needed(argument)}
    declared = ", ".join(f"${n}: {of}" for n, of in needed.items())
    given = ", ".join(f"{n}: ${n}" for n in needed)
    selected = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    call = f"{name}({given})" if given else name
    text = f"{kind.lower()}{f'({declared})' if declared else ''} {{ {call}{selected} }}"
    return {"query": text, "variables": {n: some(of) for n, of in needed.items()}}


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


async def over_http(door: Door, token: str | None, roots: list[str]) -> dict[str, str]:
    answers = {root: await door.post(token=token, **operation(root)) for root in roots}
    return {root: outcome(answer.json().get("errors", [])) for root, answer in answers.items()}


async def over_events(door: Door, token: str | None, roots: list[str]) -> dict[str, str]:
    found = {}
    for root in roots:
        answer = await door.post(token=token, headers=EVENTS, **operation(root))
        events = sent(answer.text)
        assert events, answer.text
        found[root] = outcome(events[0].get("errors", []))
    return found


async def over_a_socket(door: Door, token: str | None, roots: list[str]) -> dict[str, str]:
    found = {}
    async with door.serving.socket() as socket:
        await socket.init(payload_of(token))
        for root in roots:
            await socket.subscribe(root, **operation(root))
            message = await socket.of(root)
            payload = message["payload"]
            errors = payload if message["type"] == "error" else payload.get("errors", [])
            found[root] = outcome(errors)
    return found


TRANSPORTS = pytest.mark.parametrize("asked", [over_http, over_events, over_a_socket])


def asked_over(transport: Callable[..., Any]) -> list[str]:
    """Return the fields that *transport* carries; the one that ends a session comes last."""
    plain = transport is over_http
    roots = [root for root in FIELDS if not (plain and root.startswith("Subscription."))]
    return sorted(roots, key=lambda root: root == "Mutation.logout")


@KNOWN
@TRANSPORTS
async def test_whoever_may_ask_is_let_in_and_nobody_else(door: Door, asked: Any, who: Asks) -> None:
    roots = asked_over(asked)

    found = await asked(door, await who(door), roots)

    assert found == {root: expected(root, HELD[who]) for root in roots}


@KNOWN
@TRANSPORTS
async def test_market_data_takes_an_account_where_a_setting_says_so(
    closed_door: Door, asked: Any, who: Asks
) -> None:
    roots = [root for root in asked_over(asked) if ROOTS[root] is Access.MARKET_DATA]

    found = await asked(closed_door, await who(closed_door), roots)

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
