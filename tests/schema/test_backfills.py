"""Backfills over GraphQL: started, found, followed and cancelled, as clients write it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from datasources.backfill.service import BackfillService
from db.accounts.permissions import Role
from db.backfills import BackfillStore
from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from market.clock import FixedClock
from market.timeframe import Timeframe
from market.window import DAY, HOUR
from plugins.base import NativeFrame
from resolvers.paging import cursor_of, key_in
from tests.accounts import bearer_of
from tests.api import Asked, forget, served_with, settings_over
from tests.conftest import scratch_database
from tests.fakes import FakeProvider, Market
from web.app import build_app
from web.bootstrap import SQL, Wired, wire
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Role as ProcessRole

NOW = 1_760_000_000_000
MIDNIGHT = NOW - NOW % DAY
HERE, ELSEWHERE = "127.0.0.1", "203.0.113.7"
EVENTS = {"accept": "text/event-stream"}
NOBODY = {"authorization": ""}
NOBODYS = "5b1f9a3c-0d7e-4c52-9a41-6e2f8c07d913"
"""An id that nothing has."""

BACKFILL = """fragment backfill on Backfill {
  id state reason message percent bars rate since until
  series { provider market symbol timeframe native adjustment feed }
  createdAt startedAt endedAt updatedAt
}"""
START = f"""mutation Start($input: StartBackfillInput!) {{
  startBackfill(input: $input) {{
    __typename
    ... on BackfillStarted {{ backfill {{ ...backfill }} }}
    ... on Failure {{ code message }}
    ... on BackfillAlreadyRunning {{ running {{ ...backfill }} }}
    ... on IdempotencyConflict {{ idempotencyKey }}
    ... on TooManyBackfills {{ limit }}
  }}
}} {BACKFILL}"""
CANCEL = f"""mutation Cancel($id: ID!) {{
  cancelBackfill(input: {{id: $id}}) {{
    __typename
    ... on BackfillCancelled {{ backfill {{ ...backfill }} }}
    ... on Failure {{ code message }}
    ... on BackfillAlreadyOver {{ backfill {{ ...backfill }} }}
  }}
}} {BACKFILL}"""
FIND = f"""query Find($id: ID!) {{
  backfill(id: $id) {{ ...backfill }}
  node(id: $id) {{ __typename id ...backfill }}
}} {BACKFILL}"""
LIST = """query List($first: Int, $after: String) {
  backfills(first: $first, after: $after) {
    nodes { id }
    edges { cursor node { id } }
    pageInfo { hasPreviousPage hasNextPage startCursor endCursor }
  }
}"""
FOLLOW = """subscription Follow($id: ID!) {
  backfillProgress(id: $id) {
    state percent bars rate timeLeft backfill { id state percent bars }
  }
}"""


@dataclass
class Server:
    """A server that runs jobs only when told to, and clients of it; by default an admin's."""

    wired: Wired
    app: Any
    admin: dict[str, str] | None = None

    async def post(self, client: str = HERE, /, *, headers: Any = None, **body: Any) -> Any:
        if self.admin is None:
            self.admin = await self.signed_in(Role.ADMIN)
        transport = httpx.ASGITransport(self.app, client=(client, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.post("/graphql", json=body, headers={**self.admin, **(headers or {})})

    async def ask(self, query: str, *, headers: Any = None, **variables: Any) -> Asked:
        answer = await self.post(query=query, variables=variables, headers=headers)
        return Asked(answer.status_code, answer.json())

    async def signed_in(self, role: Role) -> dict[str, str]:
        return await bearer_of(self.wired.shared.identity, role)

    async def start(self, **input: Any) -> dict[str, Any]:
        """Return what starting a backfill answers; what is not given is ordinary."""
        answer = await self.ask(START, input=ordinary(**input))
        return answer.data["startBackfill"]

    async def started(self, **input: Any) -> dict[str, Any]:
        """Return the backfill that is started."""
        answer = await self.start(**input)
        assert answer["__typename"] == "BackfillStarted", answer
        return answer["backfill"]

    async def run(self, id: str) -> None:
        """Do the job with this id."""
        found = await self.wired.shared.backfills.page(first=500)
        (uuid,) = (b.id for b in found if key_in(id, field="id") == ("Backfill", str(b.id)))
        await self.wired.backfills.runner.run(uuid)

    async def find(self, id: str) -> dict[str, Any]:
        return (await self.ask(FIND, id=id)).data["backfill"]

    async def stored(self, since: int, until: int) -> int:
        """Return how many bars are stored of a stretch of time."""
        counted = await self.wired.pool.fetchval(
            "SELECT count(*) FROM bar "
            "WHERE timestamp >= from_epoch_ms($1) AND timestamp < from_epoch_ms($2)",
            since,
            until,
        )
        return int(counted)

    async def follow(self, id: str) -> list[Any]:
        """Return the payloads of all events until the end."""
        answer = await self.post(query=FOLLOW, variables={"id": id}, headers=EVENTS)
        lines = answer.text.splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    def with_room_for(self, most: int) -> Server:
        """Return the same server, where no more than *most* jobs may be unfinished."""
        wired = self.wired
        service = BackfillService(
            wired.registry,
            wired.shared.store,
            BackfillStore(wired.pool, most_unfinished=most),
            enqueue=nowhere,
            settle=120_000,
        )
        wired = replace(wired, shared=replace(wired.shared, backfills=service))
        return Server(wired, build_app(wired, Metrics()))


async def nowhere(_id: object) -> None:
    """Let nobody run it."""


def ordinary(symbol: str = "BTC/USDT", timeframe: str = "1m", **input: Any) -> dict[str, Any]:
    series = {"provider": "sim", "symbol": symbol, "timeframe": timeframe}
    given = {"series": series, "since": MIDNIGHT - DAY, "idempotencyKey": uuid4().hex}
    return given | {"until": MIDNIGHT} | input


@pytest.fixture(scope="module")
def template(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        asyncio.run(migrate(url, SQL))
        yield urlsplit(url).path[1:]


@pytest.fixture
def empty_store(embedded: EmbeddedServers, template: str) -> Iterator[str]:
    with scratch_database(embedded.postgres_url, template) as url:
        yield url


@pytest.fixture
async def server(embedded: EmbeddedServers, empty_store: str) -> AsyncIterator[Server]:
    settings = settings_over(embedded, empty_store, role=ProcessRole.API)
    metrics = Metrics()
    async with wire(settings, clock=FixedClock(NOW), meter=ChainMeter(metrics)) as wired:
        yield Server(wired, build_app(wired, metrics))
        await forget(wired)


async def test_a_backfill_is_started_done_and_found(server: Server) -> None:
    started = await server.started(timeframe="1h")

    await server.run(started["id"])

    assert started["state"] == "QUEUED"
    assert (started["percent"], started["bars"], started["rate"]) == (0.0, 0, None)
    assert (started["since"], started["until"]) == (MIDNIGHT - DAY, MIDNIGHT)
    assert started["series"] == {
        "provider": "sim",
        "market": "crypto",
        "symbol": "BTC/USDT",
        "timeframe": "1m",
        "native": False,
        "adjustment": None,
        "feed": None,
    }
    done = await server.find(started["id"])
    assert (done["state"], done["percent"], done["reason"]) == ("DONE", 100.0, None)
    assert done["rate"] > 0
    assert await server.stored(MIDNIGHT - DAY, MIDNIGHT) == 1440
    assert done["bars"] >= 1440  # the provider is asked for whole chunks


async def test_its_times_are_instants_in_utc(server: Server) -> None:
    started = await server.started()
    await server.run(started["id"])

    done = await server.find(started["id"])

    names = ("createdAt", "startedAt", "endedAt")
    assert all(done[name].endswith("Z") for name in names)
    times = [datetime.fromisoformat(done[name]) for name in names]
    assert times == sorted(times)
    assert (started["startedAt"], started["endedAt"]) == (None, None)


async def test_a_backfill_is_a_node(server: Server) -> None:
    started = await server.started()

    found = await server.ask(FIND, id=started["id"])

    assert found.data["backfill"] == started
    assert found.data["node"] == {"__typename": "Backfill", **started}


@pytest.mark.parametrize(
    "id",
    [
        "nonsense",
        "",
        cursor_of(("Backfill", "nonsense")),
        cursor_of(("Backfill", NOBODYS)),
        cursor_of(("Backfill",)),
        cursor_of(("Symbol", NOBODYS)),
    ],
)
async def test_an_id_of_no_backfill_finds_nothing(server: Server, id: str) -> None:
    found = await server.ask(FIND, id=id)
    cancelled = await server.ask(CANCEL, id=id)
    (followed,) = await server.follow(id)

    assert found.data == {"backfill": None, "node": None}
    assert cancelled.data["cancelBackfill"] == {
        "__typename": "BackfillNotFound",
        "code": "BACKFILL_NOT_FOUND",
        "message": "There is no backfill with this id.",
    }
    assert followed["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT", "field": "id"}


async def test_the_same_key_with_the_same_input_answers_with_the_first_backfill(
    server: Server,
) -> None:
    wish = ordinary(idempotencyKey="once")
    first = await server.started(**wish)
    await server.run(first["id"])

    again = await server.started(**wish)

    assert again["id"] == first["id"]
    assert again["state"] == "DONE"
    listed = await server.ask(LIST)
    assert len(listed.data["backfills"]["nodes"]) == 1


async def test_an_input_without_an_end_is_the_same_later(server: Server) -> None:
    clock = FixedClock(NOW)
    settings = server.wired.settings
    async with wire(settings, clock=clock, meter=ChainMeter(Metrics())) as wired:
        server = Server(wired, build_app(wired, Metrics()))
        wish = ordinary(idempotencyKey="once", until=None)
        first = await server.started(**wish)

        clock.at += HOUR
        server.admin = None  # the token is over
        again = await server.started(**wish)

    assert again["id"] == first["id"]


@pytest.mark.parametrize(
    "other", [{"since": MIDNIGHT - HOUR}, {"until": None}, {"symbol": "ETH/USDT"}]
)
async def test_the_same_key_with_another_input_is_refused(
    server: Server, other: dict[str, Any]
) -> None:
    await server.started(idempotencyKey="once")

    refused = await server.start(idempotencyKey="once", **other)

    assert refused["__typename"] == "IdempotencyConflict"
    assert refused["code"] == "IDEMPOTENCY_CONFLICT"
    assert refused["idempotencyKey"] == "once"


async def test_a_series_is_filled_by_one_backfill_at_a_time(server: Server) -> None:
    first = await server.started(timeframe="1h")

    refused = await server.start(timeframe="1m")

    assert refused["__typename"] == "BackfillAlreadyRunning"
    assert refused["code"] == "BACKFILL_RUNNING"
    assert refused["running"] == first


async def test_where_nothing_is_missing_nothing_is_started(server: Server) -> None:
    first = await server.started()
    await server.run(first["id"])

    refused = await server.start()

    assert (refused["__typename"], refused["code"]) == ("NothingToBackfill", "NOTHING_TO_FILL")


async def test_there_are_only_so_many_backfills(server: Server) -> None:
    small = server.with_room_for(1)
    await small.started()

    refused = await small.start(symbol="ETH/USDT")

    assert refused["__typename"] == "TooManyBackfills"
    assert (refused["code"], refused["limit"]) == ("TOO_MANY_BACKFILLS", 1)


async def test_a_series_of_which_no_past_can_be_had_is_not_filled(
    embedded: EmbeddedServers, empty_store: str
) -> None:
    clock = FixedClock(NOW)
    days = (NativeFrame(Timeframe.parse("1d")),)
    fake = FakeProvider(clock, {"COIN": Market()}, minutes=False, natives=days)
    settings = settings_over(embedded, empty_store, role=ProcessRole.API)
    series = {"provider": "fake", "symbol": "COIN", "timeframe": "1h"}
    async with served_with(settings, {"fake": lambda _: fake}, clock=clock) as api:
        api.client.headers.update(await bearer_of(api.wired.shared.identity, Role.ADMIN))
        answer = await api.ask(START, input=ordinary(series=series))

    refused = answer.data["startBackfill"]
    assert refused["__typename"] == "HistoryNotOffered"
    assert refused["code"] == "HISTORY_NOT_OFFERED"


@pytest.mark.parametrize(
    ("input", "code", "field"),
    [
        ({"symbol": "BTC/USD"}, "BAD_USER_INPUT", "symbol"),
        ({"timeframe": "1x"}, "BAD_USER_INPUT", "timeframe"),
        ({"since": MIDNIGHT, "until": MIDNIGHT}, "BAD_USER_INPUT", "since"),
        ({"since": NOW + DAY, "until": None}, "BAD_USER_INPUT", "since"),
        ({"since": -(2**50)}, "BAD_USER_INPUT", "since"),
        ({"until": 2**50}, "BAD_USER_INPUT", "until"),
        ({"idempotencyKey": ""}, "BAD_USER_INPUT", "idempotencyKey"),
        ({"idempotencyKey": "x" * 201}, "BAD_USER_INPUT", "idempotencyKey"),
        ({"idempotencyKey": "a\0b"}, "BAD_USER_INPUT", "idempotencyKey"),
    ],
)
async def test_what_cannot_be_is_an_error_as_for_queries(
    server: Server, input: dict[str, Any], code: str, field: str
) -> None:
    answer = await server.ask(START, input=ordinary(**input))

    assert answer.body["data"] is None
    assert answer.error["path"] == ["startBackfill"]
    assert answer.error["extensions"]["code"] == code
    assert answer.error["extensions"]["field"] == field


async def test_an_unknown_symbol_comes_with_the_nearest_three(server: Server) -> None:
    answer = await server.ask(START, input=ordinary(symbol="BTC/USD"))

    assert answer.error["extensions"]["suggestions"] == ["BTC/USDT", "ETH/USDT", "XRP/USDT"]


async def test_a_provider_that_is_disabled_is_an_error(server: Server) -> None:
    series = {"provider": "alpaca", "symbol": "AAPL", "timeframe": "1m"}

    answer = await server.ask(START, input=ordinary(series=series))

    assert answer.codes == ["PROVIDER_UNAVAILABLE"]


async def test_while_the_store_is_away_that_is_said(server: Server) -> None:
    await server.wired.pool.close()

    answers = [
        await server.ask(START, input=ordinary()),
        await server.ask(CANCEL, id=cursor_of(("Backfill", NOBODYS))),
        await server.ask(FIND, id=cursor_of(("Backfill", NOBODYS))),
        await server.ask(LIST),
    ]

    assert {code for answer in answers for code in answer.codes} == {"STORE_UNAVAILABLE"}


async def test_a_backfill_is_cancelled_and_again_without_harm(server: Server) -> None:
    started = await server.started()

    first = await server.ask(CANCEL, id=started["id"])
    again = await server.ask(CANCEL, id=started["id"])

    cancelled = first.data["cancelBackfill"]
    assert cancelled["__typename"] == "BackfillCancelled"
    assert cancelled["backfill"]["state"] == "CANCELLED"
    assert again.data["cancelBackfill"] == cancelled
    assert await server.started()


async def test_what_ended_by_itself_cannot_be_cancelled(server: Server) -> None:
    started = await server.started()
    await server.run(started["id"])

    answer = await server.ask(CANCEL, id=started["id"])

    refused = answer.data["cancelBackfill"]
    assert (refused["__typename"], refused["code"]) == ("BackfillAlreadyOver", "BACKFILL_OVER")
    assert refused["backfill"]["state"] == "DONE"


@pytest.mark.parametrize("role", [Role.USER, Role.READ_ONLY])
async def test_others_than_admins_may_neither_start_nor_cancel(server: Server, role: Role) -> None:
    running = await server.started()
    other = await server.signed_in(role)

    started = await server.ask(START, headers=other, input=ordinary(symbol="ETH/USDT"))
    cancelled = await server.ask(CANCEL, headers=other, id=running["id"])

    for refused in (started, cancelled):
        assert refused.codes == ["FORBIDDEN"]
        assert refused.body["data"] is None
    assert (await server.find(running["id"]))["state"] == "QUEUED"
    assert len((await server.ask(LIST)).data["backfills"]["nodes"]) == 1


async def test_being_at_the_machine_is_no_leave(server: Server) -> None:
    answer = await server.ask(START, headers=NOBODY, input=ordinary())

    assert answer.codes == ["UNAUTHENTICATED"]


async def test_who_may_not_start_does_not_learn_what_was_wrong(server: Server) -> None:
    other = await server.signed_in(Role.USER)

    answer = await server.ask(START, headers=other, input=ordinary(symbol="nonsense"))

    assert answer.codes == ["FORBIDDEN"]


@pytest.mark.parametrize("client", [ELSEWHERE, "10.0.0.1"])
async def test_an_admin_may_start_one_from_anywhere(server: Server, client: str) -> None:
    answer = await server.post(
        client, query=START, variables={"input": ordinary()}, headers={"via": "1.1 proxy"}
    )

    assert answer.json()["data"]["startBackfill"]["__typename"] == "BackfillStarted"


async def test_a_foreign_page_can_start_none(server: Server) -> None:
    answer = await server.post(
        query=START, variables={"input": ordinary()}, headers={"origin": "https://evil.example"}
    )

    assert answer.status_code == 403
    assert (await server.ask(LIST)).data["backfills"]["nodes"] == []


async def test_everybody_with_an_account_may_look(server: Server) -> None:
    started = await server.started()
    other = await server.signed_in(Role.READ_ONLY)

    found = await server.ask(FIND, headers=other, id=started["id"])

    assert found.data["backfill"] == started


async def test_nobody_else_may_look(server: Server) -> None:
    started = await server.started()

    found = await server.ask(FIND, headers=NOBODY, id=started["id"])

    assert found.codes == ["UNAUTHENTICATED"] * 2
    assert found.body["data"] == {"backfill": None, "node": None}


async def test_a_persisted_mutation_is_done_each_time_it_is_sent(server: Server) -> None:
    digest = hashlib.sha256(START.encode()).hexdigest()
    persisted = {"persistedQuery": {"version": 1, "sha256Hash": digest}}
    await server.post(query=START, extensions=persisted, variables={"input": ordinary()})

    answers = [
        await server.post(extensions=persisted, variables={"input": ordinary(symbol=symbol)})
        for symbol in ("ETH/USDT", "SOL/USDT")
    ]

    assert [answer.json()["data"]["startBackfill"]["__typename"] for answer in answers] == [
        "BackfillStarted"
    ] * 2
    assert len((await server.ask(LIST)).data["backfills"]["nodes"]) == 3


async def test_the_same_mutation_asked_again_is_not_answered_from_memory(server: Server) -> None:
    wish = ordinary()
    first = await server.started(**wish)
    await server.ask(CANCEL, id=first["id"])

    again = await server.started(**wish)

    assert (first["state"], again["state"]) == ("QUEUED", "CANCELLED")


async def test_every_page_is_what_the_rules_of_relay_say(server: Server) -> None:
    symbols = ["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT"]
    ids = [(await server.started(symbol=symbol))["id"] for symbol in symbols][::-1]
    whole = (await server.ask(LIST)).data["backfills"]
    cursors = [edge["cursor"] for edge in whole["edges"]]

    assert [node["id"] for node in whole["nodes"]] == ids
    for first, start in product(range(7), range(6)):
        after = cursors[start - 1] if start else None
        page = (await server.ask(LIST, first=first, after=after)).data["backfills"]

        end = min(start + first, 5)
        assert [node["id"] for node in page["nodes"]] == ids[start:end]
        assert [edge["node"] for edge in page["edges"]] == page["nodes"]
        assert [edge["cursor"] for edge in page["edges"]] == cursors[start:end]
        assert page["pageInfo"] == {
            "hasPreviousPage": start > 0,
            "hasNextPage": end < 5,
            "startCursor": cursors[start] if start < end else None,
            "endCursor": cursors[end - 1] if start < end else None,
        }


async def test_a_page_does_not_move_when_newer_ones_come(server: Server) -> None:
    old = await server.started(symbol="BTC/USDT")
    middle = await server.started(symbol="ETH/USDT")
    first = (await server.ask(LIST, first=1)).data["backfills"]

    await server.started(symbol="SOL/USDT")
    second = await server.ask(LIST, first=1, after=first["pageInfo"]["endCursor"])

    assert first["nodes"] == [{"id": middle["id"]}]
    assert second.data["backfills"]["nodes"] == [{"id": old["id"]}]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"first": -1}, "first"),
        ({"first": 501}, "first"),
        ({"after": "nonsense"}, "after"),
        ({"after": cursor_of(("crypto", "BTC/USDT"))}, "after"),
        ({"after": cursor_of(("backfill", "9" * 30))}, "after"),
        ({"after": cursor_of(("backfill", "-1"))}, "after"),
        ({"after": base64.urlsafe_b64encode(b"[1]").decode()}, "after"),
    ],
)
async def test_a_page_that_cannot_be_is_an_error(
    server: Server, arguments: dict[str, Any], field: str
) -> None:
    answer = await server.ask(LIST, **arguments)

    assert answer.error["extensions"]["code"] == "BAD_USER_INPUT"
    assert answer.error["extensions"]["field"] == field


async def test_no_backfill_is_an_empty_page(server: Server) -> None:
    answer = await server.ask(LIST, first=None)

    assert answer.data["backfills"] == {
        "nodes": [],
        "edges": [],
        "pageInfo": {
            "hasPreviousPage": False,
            "hasNextPage": False,
            "startCursor": None,
            "endCursor": None,
        },
    }


async def test_who_follows_one_sees_it_to_its_end(server: Server) -> None:
    started = await server.started(since=MIDNIGHT - 10 * DAY)
    followers = [asyncio.create_task(server.follow(started["id"])) for _ in range(3)]

    await server.run(started["id"])
    seen = await asyncio.gather(*followers)

    done = await server.find(started["id"])
    for payloads in seen:
        events = [payload["data"]["backfillProgress"] for payload in payloads]
        assert [event["percent"] for event in events] == sorted(e["percent"] for e in events)
        assert events[-1] == {
            "state": "DONE",
            "percent": 100.0,
            "bars": done["bars"],
            "timeLeft": 0.0,
            "rate": done["rate"],
            "backfill": {name: done[name] for name in ("id", "state", "percent", "bars")},
        }
        assert all(event["state"] in {"QUEUED", "RUNNING"} for event in events[:-1])


async def test_who_follows_one_that_is_over_is_told_so_once(server: Server) -> None:
    started = await server.started()
    await server.ask(CANCEL, id=started["id"])

    (payload,) = await server.follow(started["id"])

    assert payload["data"]["backfillProgress"]["state"] == "CANCELLED"
    assert payload["data"]["backfillProgress"]["timeLeft"] is None
