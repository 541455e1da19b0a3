"""What is somebody's own, asked for by them, by others and by admins, wherever an id can be given.

Which fields take an id the schema tells, and what each id may name the answers to its owner. So a
new field is asked as well, and a new kind of entity without an example fails here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from db.accounts.permissions import Permission, Role, Scope
from db.accounts.repositories.credentials import CredentialSecrets
from db.embedded.servers import EmbeddedServers
from resolvers.identity.checking import CHECK_SECONDS
from resolvers.identity.principal import Origin
from resolvers.identity.saved_work import (
    LayoutToSave,
    PresetToSave,
    save_chart_layout,
    save_indicator_preset,
)
from schema.node import global_id
from schema.permissions import NODES, ROOTS, Access
from tests.accounts import api_token_of, credential_of, session_of
from tests.web.asking import (
    FIELDS,
    TRANSPORTS,
    asked_over,
    everything,
    field_of,
    operation,
    over_a_socket,
    paths_to_ids,
    with_id,
)
from tests.web.doors import EVENTS, NOW, TOKEN_LASTS, Door, opened, payload_of, sent
from tests.web.live.stage import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")

OWN = sorted(kind for kind, rule in NODES.items() if isinstance(rule, Permission))
"""Kinds of which each entity is somebody's."""
SHARED = sorted(kind for kind, rule in NODES.items() if rule is Access.SIGNED_IN)
"""Kinds that whoever is signed in may see."""
SERIES = {"provider": "sim", "symbol": "BTC/USDT", "timeframe": "1m"}
NOBODYS = {kind: global_id(kind, uuid4().hex) for kind in NODES}
"""Of each kind an id that never was anything's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an id can be given: an argument of *root*, or a field of what is its argument."""

    root: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((self.root, *self.path))

    @property
    def changes(self) -> bool:
        return self.root.startswith("Mutation.")

    def asking(self, id: str) -> dict[str, Any]:
        """Return a request with *id* there, for all that an answer may tell of it."""
        argument, *path = self.path
        field = field_of(self.root)
        given = {argument: with_id(field.args[argument].type, path, id)}
        return operation(self.root, given, selected=everything(field.type))


Aims = dict[Place, list[str]]
"""The kinds that can be named at each place."""


def places() -> list[Place]:
    found = [
        Place(root, (name, *path))
        for root in FIELDS
        for name, argument in field_of(root).args.items()
        for path in paths_to_ids(argument.type)
    ]
    return sorted(found, key=lambda place: place.changes)  # what they change is looked at before


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody with a token, and the id of one thing of theirs of each kind."""

    user_id: UUID
    token: str
    ids: dict[str, str]


async def owner_at(door: Door) -> Owner:
    signed_in = await session_of(door.identity)
    token = signed_in.access.text.get_secret_value()
    principal = await door.identity.authenticate(token)
    layout = await save_chart_layout(door.identity, principal, LayoutToSave("plain", {}))
    preset = await save_indicator_preset(door.identity, principal, PresetToSave("rsi", "slow", {}))
    key, api_token = credential_of(signed_in.user_id), api_token_of(signed_in.user_id)
    secrets = CredentialSecrets(SecretStr("venue-key-abcd1234"), SecretStr("venue-secret"))
    async with door.identity.accounts.transaction() as transaction:
        await transaction.credentials.add(key, secrets)
        await transaction.api_tokens.add(api_token)
        done = door.identity.entry("update-profile", Origin(), user_id=signed_in.user_id)
        await transaction.audit.add(done)
    own = {
        "User": signed_in.user_id,
        "UserSession": signed_in.session_id,
        "ApiToken": api_token.id,
        "Credential": key.id,
        "ChartLayout": layout.id,
        "IndicatorPreset": preset.id,
    }
    ids = {kind: str(global_id(kind, each.hex)) for kind, each in own.items()}
    return Owner(signed_in.user_id, token, ids)


async def shared_at(door: Door, symbol: str = "BTC/USDT") -> dict[str, str]:
    """Return the id of one entity of each kind that is nobody's own, each time the same."""
    start = "mutation S($i: StartBackfillInput!) { startBackfill(input: $i) { ...S } }"
    text = f"{start} fragment S on BackfillStarted {{ backfill {{ id }} }}"
    wanted = {
        "series": {**SERIES, "symbol": symbol},
        "since": NOW - 86_400_000,
        "idempotencyKey": symbol,
    }
    answer = await door.ask(text, await door.session(Role.ADMIN), i=wanted)
    return {"Backfill": answer["data"]["startBackfill"]["backfill"]["id"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(embedded: EmbeddedServers, door_url: str) -> AsyncIterator[Door]:
    """A server whose market data takes an account."""
    async with opened(embedded, door_url, public_market_data=False) as door:
        yield door


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(door: Door) -> dict[str, str]:
    return await shared_at(door)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aims(door: Door) -> Aims:
    """Each place with the kinds of one's own of which an id there is understood."""
    return {place: await understood_at(door, place) for place in places()}


async def understood_at(door: Door, place: Place) -> list[str]:
    """Return the kinds of which its owner is answered otherwise than of what never was."""
    owner = await owner_at(door)
    return await told_apart(door, owner.token, place, owner.ids)


async def told_apart(
    door: Door, token: str, place: Place, ids: dict[str, str], *, role: Role = Role.USER
) -> list[str]:
    """Return those kinds whose one of *ids* is answered otherwise than one that never was.

    Somebody else of *role* asks for the latter, for nobody may try keys that often.
    """
    asked = {kind: place.asking(NOBODYS[kind]) for kind in ids}
    nobodys = await over_a_socket(door, await door.session(role), asked)
    asked = {kind: place.asking(own) for kind, own in ids.items()}
    found = await over_a_socket(door, token, asked)
    return [
        kind for kind in ids if said(found[kind], ids[kind]) != said(nobodys[kind], NOBODYS[kind])
    ]


def said(answer: dict[str, Any], id: str) -> str:
    """Return *answer* as it would be about any id."""
    text = json.dumps(answer, sort_keys=True)
    for fault in ("INTERNAL", "GRAPHQL_VALIDATION_FAILED", "RATE_LIMITED"):
        assert fault not in text, text
    return text.replace(id, "ID")


Rows = dict[str, list[tuple[Any, ...]]]


async def rows_of(door_url: str, user_id: UUID) -> Rows:
    """Return every row of every table that tells of a user."""
    connection = await asyncpg.connect(door_url)
    try:
        tables = await connection.fetch(
            "SELECT table_schema || '.' || table_name AS name, column_name AS owner "
            "FROM information_schema.columns "
            "WHERE column_name = 'user_id' OR (table_name, column_name) = ('users', 'id')"
        )
        assert len(tables) > 5
        found: Rows = {}
        for name, owner in tables:
            rows = await connection.fetch(f"SELECT * FROM {name} WHERE {owner} = $1", user_id)
            found[name] = sorted((tuple(row) for row in rows), key=repr)
        return found
    finally:
        await connection.close()


async def test_each_kind_that_is_somebodys_has_an_example(
    door: Door, shared: dict[str, str]
) -> None:
    owner = await owner_at(door)

    assert set(OWN) - set(owner.ids) == set(), "owner_at() makes no example of them"
    assert set(SHARED) - set(shared) == set(), "shared_at() makes no example of them"


async def test_at_each_place_for_an_id_something_can_be_named(
    door: Door, aims: Aims, shared: dict[str, str]
) -> None:
    admin = await door.session(Role.ADMIN)

    nothing = [
        str(place)
        for place, kinds in aims.items()
        if not kinds and not await told_apart(door, admin, place, shared, role=Role.ADMIN)
    ]

    assert nothing == [], "no example can be named there"
    assert {kind for kinds in aims.values() for kind in kinds} == set(OWN)


ADMINS_SEE = {"Query.auditLog.filter.userId User"}
"""What of another's an admin is told."""


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
@TRANSPORTS
async def test_of_what_is_anothers_one_learns_and_changes_as_much_as_of_what_never_was(
    door: Door, door_url: str, aims: Aims, asked: Any, role: Role
) -> None:
    owner, token = await owner_at(door), await door.session(role)
    before = await rows_of(door_url, owner.user_id)
    carried = asked_over(asked)
    aimed = {
        f"{place} {kind}": (place, kind)
        for place, kinds in aims.items()
        for kind in kinds
        if place.root in carried
    }
    assert aimed

    anothers = await asked(
        door, token, {name: at.asking(owner.ids[kind]) for name, (at, kind) in aimed.items()}
    )
    nobodys = await asked(
        door, token, {name: at.asking(NOBODYS[kind]) for name, (at, kind) in aimed.items()}
    )

    told = {
        name
        for name, (_, kind) in aimed.items()
        if said(anothers[name], owner.ids[kind]) != said(nobodys[name], NOBODYS[kind])
    }
    assert told == (ADMINS_SEE if role is Role.ADMIN else set())
    assert await rows_of(door_url, owner.user_id) == before


@TRANSPORTS
async def test_what_is_nobodys_own_looks_the_same_to_all_who_are_signed_in(
    door: Door, aims: Aims, shared: dict[str, str], asked: Any
) -> None:
    carried = [place for place in aims if place.root in asked_over(asked) and not place.changes]
    requests = {
        f"{place} {kind}": place.asking(of) for place in carried for kind, of in shared.items()
    }

    first, second = [await asked(door, await door.session(), requests) for _ in range(2)]

    assert first == second
    assert all(one in json.dumps(first) for one in shared.values())


TAKE_AN_ACCOUNT = [
    root
    for root in FIELDS
    if root.startswith("Subscription.") and ROOTS[root] is not Access.MARKET_DATA
]


async def session_that_expires(door: Door) -> tuple[str, Callable[[], Awaitable[None]]]:
    """Return a token, and what ends it."""

    async def end() -> None:
        door.clock.at += TOKEN_LASTS + 1

    return await door.session(), end


async def api_token_that_is_revoked(door: Door) -> tuple[str, Callable[[], Awaitable[None]]]:
    """Return a token, and what ends it in another process."""
    token = await door.api_token(Scope.READ)
    claims = (await door.identity.authenticate(token)).claims
    assert claims.api_token_id is not None

    async def end() -> None:
        async with door.identity.accounts.transaction() as transaction:
            await transaction.api_tokens.delete(claims.user_id, claims.api_token_id)
        door.clock.at += int(CHECK_SECONDS * 1000)

    return token, end


@asynccontextmanager
async def streamed(
    door: Door, token: str, asked: dict[str, Any]
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Yield what comes of a subscription as server-sent events."""

    async def events(pieces: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
        read, told = "", 0
        async for piece in pieces:
            read += piece
            for event in sent(read.rpartition("\n\n")[0])[told:]:
                told += 1
                yield event

    headers = {"authorization": f"Bearer {token}", **EVENTS}
    async with (
        door.serving.http() as http,
        http.stream("POST", "/graphql", json=asked, headers=headers) as stream,
    ):
        yield events(stream.aiter_text())


@pytest.mark.parametrize("shown", [session_that_expires, api_token_that_is_revoked])
async def test_a_subscription_ends_with_the_token_that_began_it(door: Door, shown: Any) -> None:
    token, end = await shown(door)
    given = {"series": SERIES, "id": (await shared_at(door, "ETH/USDT"))["Backfill"]}
    asked = {
        root: operation(root, {n: given[n] for n in field_of(root).args if n in given})
        for root in (*TAKE_AN_ACCOUNT, "Subscription.bars")
    }
    begun, ended, rest = {}, {}, {}
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        socket = await stack.enter_async_context(door.serving.socket())
        await socket.init(payload_of(token))
        streams = {}
        for root, request in asked.items():
            await socket.subscribe(root, **request)
            streams[root] = await stack.enter_async_context(streamed(door, token, request))
            begun[root] = [await socket.answer(root), await anext(streams[root])]

        await end()

        for root, stream in streams.items():
            while (message := await socket.of(root))["type"] == "next":
                pass
            ended[root] = [codes(message["payload"])]
            rest[root] = [event async for event in stream]
            ended[root].append(codes(rest[root][-1]["errors"]))
        assert await socket.alive()

    assert all("errors" not in event for events in begun.values() for event in events), begun
    assert ended == dict.fromkeys(asked, [["UNAUTHENTICATED"]] * 2)


def codes(errors: list[dict[str, Any]]) -> list[str]:
    return [error["extensions"]["code"] for error in errors]
