"""Limits as clients meet them: over HTTP, on sockets, behind proxies, and past every short way."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from graphql import GraphQLSchema, get_introspection_query
from websockets.exceptions import InvalidStatus

from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from market.clock import FixedClock
from tests.api import Api, served_with, settings_over
from tests.conftest import scratch_database
from tests.fakes import FakeProvider, Market, minutes_between
from tests.web.live.stage import TICKS, served
from web.bootstrap import SQL, open_redis
from web.limits.cost import Costs
from web.limits.gate import Gate
from web.limits.leases import RateLimits
from web.limits.proxies import Proxies
from web.limits.rates import DOCUMENT_KIB, Group, Rate, Rates
from web.limits.windows import LocalWindows

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = 1_760_000_000_000
SERIES = 'series: {provider: "fake", symbol: "COIN", timeframe: "1m"}'
BY_VARIABLE = f"query Q($last: Int) {{ candles({SERIES}, last: $last) {{ candles {{ time }} }} }}"
OPEN = Callable[..., Any]


@pytest.fixture(scope="module")
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        asyncio.run(migrate(url, SQL))
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def open_api(embedded: EmbeddedServers, database_url: str) -> OPEN:
    """Serve the application with some settings over a provider of a day of minutes."""
    clock = FixedClock(NOW)
    minutes = minutes_between(NOW - 24 * 3_600_000, NOW)

    @asynccontextmanager
    async def opened(
        *, symbols: int = 1, **settings: Any
    ) -> AsyncIterator[tuple[Api, FakeProvider]]:
        names = ("COIN", *(f"COIN{n}" for n in range(1, symbols)))
        market = Market.of(minutes)
        fake = FakeProvider(clock, dict.fromkeys(names, market), offered_from=minutes[0])
        given = settings_over(embedded, database_url, **settings)
        async with served_with(given, {"fake": lambda _: fake}, clock=clock) as api:
            yield api, fake

    return opened


def named(text: str) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"persistedQuery": {"version": 1, "sha256Hash": digest}}


def cost_of(answer: Any) -> dict[str, int]:
    return answer.body["extensions"]["cost"]


async def test_every_answer_tells_its_cost_also_when_it_comes_again(open_api: OPEN) -> None:
    async with open_api() as (api, _):
        first = await api.ask(BY_VARIABLE, last=70)
        again = await api.ask(BY_VARIABLE, last=70)
        other = await api.ask(BY_VARIABLE, last=90)
        taken = await api.text("/metrics")

    assert first.data == again.data
    assert len(other.data["candles"]["candles"]) == 90
    assert cost_of(first) == cost_of(again) == {"requested": 72, "available": 100_000}
    assert cost_of(other)["requested"] == 92
    assert 'cache_lookups_total{layer="request",result="hit"} 2.0' in taken


async def test_what_costs_too_much_is_refused_also_when_less_of_it_came_before(
    open_api: OPEN,
) -> None:
    async with open_api(max_cost=100) as (api, _):
        for last in (10, 10, 20):
            assert cost_of(await api.ask(BY_VARIABLE, last=last))["available"] == 100
        refused = await api.ask(BY_VARIABLE, last=500)
        wrong = await api.ask("{ candles { nowhere } }")

    assert refused.codes == ["COST_EXCEEDED"]
    assert refused.error["extensions"]["cost"] == {"requested": 502, "available": 100}
    assert "data" not in refused.body
    assert set(wrong.codes) == {"GRAPHQL_VALIDATION_FAILED"}


async def test_defaults_admit_long_windows_watchlists_and_graphiql(open_api: OPEN) -> None:
    rows = "candles { time open high low close volume }"
    async with open_api() as (api, _):
        answers = [
            await api.ask(f"{{ candles({SERIES}, last: 5000) {{ {rows} }} }}"),
            await api.ask(
                '{ symbols(provider: "fake", first: 50) { nodes { symbol '
                f'candles(timeframe: "1m", last: 100) {{ {rows} }} }} }} }}'
            ),
            await api.ask(get_introspection_query()),
        ]

    for answer in answers:
        assert answer.data
        assert cost_of(answer)["requested"] < cost_of(answer)["available"]


async def test_what_grows_larger_than_its_cost_says_is_ended_while_it_is_answered(
    open_api: OPEN,
) -> None:
    fields = " ".join(f"a{n}: symbol" for n in range(450))
    async with open_api(symbols=500, max_cost=10_000_000) as (api, _):
        answer = await api.ask(
            f'{{ symbols(provider: "fake", first: 500) {{ nodes {{ {fields} }} }} }}'
        )

    assert "COST_EXCEEDED" in answer.codes
    assert "200000" in answer.error["message"]


async def test_too_many_requests_are_429_and_say_when_to_come_again(open_api: OPEN) -> None:
    async with open_api(rate_queries=3) as (api, _):
        answers = [
            await api.client.post("/graphql", json={"query": "{ markets { name } }"})
            for _ in range(5)
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    (error,) = answers[3].json()["errors"]
    assert error["extensions"]["code"] == "RATE_LIMITED"
    assert error["extensions"]["retryAfter"] == int(answers[3].headers["retry-after"]) > 0


async def test_a_hundred_requests_a_minute_are_admitted_by_default(open_api: OPEN) -> None:
    async with open_api(rate_queries=1_200) as (api, _):
        answers = [await api.ask("{ markets { name } }") for _ in range(100)]

    assert all(answer.status == 200 for answer in answers)


@pytest.mark.parametrize(
    "query", ["{", "{ nowhere }", "{ markets { name } }", "query A { a } query B { b }"]
)
async def test_what_is_refused_counts_as_well(open_api: OPEN, query: str) -> None:
    async with open_api(rate_queries=2) as (api, _):
        codes = [(await api.ask(query)).status for _ in range(3)]

    assert codes[2] == 429
    assert 429 not in codes[:2]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"query": 7}', b"x" * 2_000])
async def test_what_cannot_be_read_counts_as_well(open_api: OPEN, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    async with open_api(rate_queries=2, max_body=1_000) as (api, _):
        answers = [
            await api.client.post("/graphql", content=body, headers=headers) for _ in range(3)
        ]

    assert {answer.status_code for answer in answers[:2]} <= {400, 413}
    assert answers[2].status_code == 429


async def test_a_digest_that_nobody_knows_counts_before_redis_is_asked(
    open_api: OPEN, embedded: EmbeddedServers
) -> None:
    async with open_api(rate_queries=2) as (api, _), open_redis(embedded.redis_url, 1) as redis:

        async def ask(n: int) -> tuple[int, int]:
            """Return the status, and how often Redis was asked for a document until now."""
            body = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": f"{n:064x}"}}}
            status = (await api.client.post("/graphql", json=body)).status_code
            return status, (await redis.info("commandstats"))["cmdstat_getex"]["calls"]

        answers = [await ask(n) for n in range(5)]

    assert [status for status, _ in answers] == [200, 200, 429, 429, 429]
    assert len({asked for _, asked in answers[1:]}) == 1


async def test_nobody_has_more_documents_kept_than_one_may(open_api: OPEN) -> None:
    kept = DOCUMENT_KIB // 31
    texts = [f"{{ markets {{ name }} }} # {n} {'x' * 31_000}" for n in range(kept + 2)]
    async with open_api() as (api, _):

        async def ask(**body: Any) -> dict[str, Any]:
            return (await api.client.post("/graphql", json=body)).json()

        answers = [await ask(query=text, extensions=named(text)) for text in texts]
        by_digest = [await ask(extensions=named(text)) for text in (texts[0], *texts[kept - 1 :])]

    assert all("data" in answer for answer in answers)
    assert ["data" in answer for answer in by_digest] == [True, True, False, False]


async def test_a_document_of_many_logins_counts_each_of_them(open_api: OPEN) -> None:
    logins = " ".join(
        f'a{n}: login(input: {{username: "u{n}", password: $wrong}}) {{ __typename }}'
        for n in range(6)
    )
    async with open_api(rate_logins=10) as (api, _):
        first, second = [
            await api.ask(f"mutation M($wrong: Secret!) {{ {logins} }}", wrong="wrong")
            for _ in range(2)
        ]

    assert first.status == 200
    assert (second.status, second.codes) == (429, ["RATE_LIMITED"])


async def test_behind_a_trusted_proxy_each_caller_counts_by_itself(open_api: OPEN) -> None:
    async with open_api(rate_queries=2, trusted_proxies=("127.0.0.1",)) as (api, _):

        async def ask(forwarded: str) -> int:
            body = {"query": "{ markets { name } }"}
            headers = {"x-forwarded-for": forwarded}
            return (await api.client.post("/graphql", json=body, headers=headers)).status_code

        ann = [await ask("203.0.113.7") for _ in range(3)]
        bob = [await ask("2001:db8:1:2::1"), await ask("2001:db8:1:2::2")]
        bobs = await ask("2001:db8:1:2::3")
        forged = [await ask(f"198.51.100.{n}, 203.0.113.7") for n in range(3)]

    assert ann == [200, 200, 429]
    assert (bob, bobs) == ([200, 200], 429)
    assert forged == [429, 429, 429]


async def test_without_a_trusted_proxy_headers_change_nothing(open_api: OPEN) -> None:
    async with open_api(rate_queries=2) as (api, _):
        statuses = []
        for n in range(4):
            headers = {"x-forwarded-for": f"198.51.100.{n}", "forwarded": f"for=198.51.100.{n}"}
            body = {"query": "{ markets { name } }"}
            answer = await api.client.post("/graphql", json=body, headers=headers)
            statuses.append(answer.status_code)

    assert statuses == [200, 200, 429, 429]


async def test_who_is_at_the_machine_is_not_limited(open_api: OPEN) -> None:
    async with open_api(rate_queries=1) as (api, _):
        statuses = [
            (
                await api.client.post(
                    "http://localhost/graphql", json={"query": "{ markets { name } }"}
                )
            ).status_code
            for _ in range(5)
        ]

    assert statuses == [200] * 5


async def test_a_query_that_takes_too_long_is_given_up(open_api: OPEN) -> None:
    async with open_api(execution_timeout=0.2) as (api, fake):
        fake.gate = asyncio.Event()
        late = await api.ask(f"{{ candles({SERIES}, last: 3) {{ candles {{ time }} }} }}")
        fake.gate.set()

        async def answered() -> bool:
            answer = await api.ask(f"{{ candles({SERIES}, last: 3) {{ candles {{ time }} }} }}")
            return not answer.errors

        async with asyncio.timeout(20):
            while not await answered():
                await asyncio.sleep(0.01)

    assert (late.status, late.codes) == (504, ["EXECUTION_TIMEOUT"])


async def test_variables_that_only_cost_are_refused(open_api: OPEN) -> None:
    query = "query Q($of: SeriesInput!) { candles(series: $of) { cursor } }"
    async with open_api() as (api, _):
        answer = await api.ask(query, of={f"x{n}": n for n in range(10_000)})

    assert (answer.status, answer.codes) == (400, ["BAD_REQUEST"])


async def test_production_keeps_the_schema_and_graphiql_to_itself(open_api: OPEN) -> None:
    secure = {"env": "production", "public_url": "https://bars.example", "registration": "closed"}
    async with open_api(**secure) as (api, _):
        schema = await api.ask("{ __schema { types { name } } }")
        typo = await api.ask("{ markats { name } }")
        value = await api.ask(
            'query Q($t: InstrumentType) { symbols(provider: "fake", type: $t) { nodes { id } } }',
            t="SPO",
        )
        page = await api.client.get("/graphiql")
        answer = await api.client.get("/graphql", params={"query": "{ markets { name } }"})

    assert set(schema.codes) == {"GRAPHQL_VALIDATION_FAILED"}
    assert "markets" not in typo.error["message"]
    assert "SPOT" not in value.error["message"]
    assert page.status_code == 404
    assert "strict-transport-security" in answer.headers


async def test_only_trusted_documents_are_answered(open_api: OPEN, tmp_path: Path) -> None:
    known = "{ markets { name } }"
    digest = hashlib.sha256(known.encode()).hexdigest()
    file = tmp_path / "documents.json"
    file.write_text(json.dumps({digest: known}))
    async with open_api(trusted_documents=file) as (api, _):
        by_digest = await api.client.post(
            "/graphql",
            json={"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}}},
        )
        by_text, other = await api.ask(known), await api.ask("{ markets { id } }")

    assert by_digest.json()["data"] == by_text.data
    assert (other.status, other.codes) == (403, ["FORBIDDEN"])


async def test_a_page_of_an_allowed_origin_may_read_answers(open_api: OPEN) -> None:
    origin = "https://app.example"
    async with open_api(allowed_origins=(origin,)) as (api, _):
        answer = await api.client.post(
            "/graphql", json={"query": "{ markets { name } }"}, headers={"origin": origin}
        )
        foreign = await api.client.post(
            "/graphql",
            json={"query": "{ markets { name } }"},
            headers={"origin": "https://evil.example"},
        )

    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-origin" not in foreign.headers


# Sockets and streams


def gate_with(
    *, cost: int = 1_000, seconds: float = 60.0, **amounts: int
) -> Callable[[GraphQLSchema], Gate]:
    rates = {Group(name): Rate(amount) for name, amount in amounts.items()}

    def made(schema: GraphQLSchema) -> Gate:
        limits = RateLimits(Rates(address=rates, user={}, account={}), LocalWindows())
        costs = Costs(schema, available=cost, max_bars=1_000)
        return Gate(limits, costs, proxies=Proxies(["127.0.0.1"]), seconds=seconds)

    return made


REMOTE = {"x-forwarded-for": "203.0.113.7"}


async def test_an_operation_on_a_socket_is_limited_and_the_socket_stays() -> None:
    async with (
        served(gate=gate_with(queries=3)) as serving,
        serving.client(additional_headers=REMOTE) as client,
    ):
        for n in range(5):
            await client.subscribe(f"{n}", "{ hello }")
        answers = [await client.of(f"{n}") for n in range(5)]

        assert [answer["type"] for answer in answers] == ["next"] * 3 + ["error"] * 2
        extensions = answers[3]["payload"][0]["extensions"]
        assert extensions["code"] == "RATE_LIMITED"
        assert extensions["retryAfter"] > 0
        assert await client.alive()


async def test_an_answer_on_a_socket_tells_its_cost_and_what_costs_too_much_is_refused() -> None:
    async with served(gate=gate_with(cost=50)) as serving, serving.client() as client:
        await client.subscribe("1", "{ hello }")
        assert await client.answer("1") == {
            "data": {"hello": "hello world"},
            "extensions": {"cost": {"requested": 1, "available": 50}},
        }

        await client.subscribe("2", TICKS)
        refused = await client.of("2")

        assert refused["type"] == "error"
        assert refused["payload"][0]["extensions"] == {
            "code": "COST_EXCEEDED",
            "cost": {"requested": 103, "available": 50},
        }
        assert await client.alive()


async def test_a_slow_query_on_a_socket_is_given_up() -> None:
    async with served(gate=gate_with(seconds=0.2)) as serving, serving.client() as client:
        await client.subscribe("1", "{ slow(seconds: 20) }")

        answer = await client.of("1")

        assert answer["type"] == "error"
        assert answer["payload"][0]["extensions"]["code"] == "EXECUTION_TIMEOUT"


async def test_too_many_sockets_are_429_before_they_open() -> None:
    async with served(gate=gate_with(sockets=2)) as serving:
        for _ in range(2):
            async with serving.client(additional_headers=REMOTE) as client:
                assert await client.alive()
        with pytest.raises(InvalidStatus) as refused:
            async with serving.client(additional_headers=REMOTE):
                pass
        async with serving.client() as local:
            assert await local.alive()

    response = refused.value.response
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert json.loads(response.body)["errors"][0]["extensions"]["code"] == "RATE_LIMITED"


async def test_a_stream_counts_once_as_a_query_and_once_as_a_socket() -> None:
    headers = {"accept": "text/event-stream", **REMOTE}

    async def ask(http: httpx.AsyncClient) -> int:
        body = {"query": "{ hello }"}
        return (await http.post("/graphql", json=body, headers=headers)).status_code

    for limits in ({"queries": 2}, {"sockets": 2}):
        async with served(gate=gate_with(**limits)) as serving, serving.http() as http:
            assert [await ask(http) for _ in range(3)] == [200, 200, 429]


THREE = """mutation { a: add(number: 1) ...More }
fragment More on Mutation { b: add(number: 2) ... on Mutation { c: add(number: 3) } }"""


async def test_each_change_of_a_request_counts_on_every_transport() -> None:
    async with (
        served(gate=gate_with(mutations=7)) as serving,
        serving.http() as http,
        serving.client(additional_headers=REMOTE) as client,
    ):
        first = await http.post("/graphql", json={"query": THREE}, headers=REMOTE)
        await client.subscribe("1", THREE)
        second = await client.answer("1")
        third = await http.post("/graphql", json={"query": THREE}, headers=REMOTE)
        await client.subscribe("2", THREE)
        fourth = await client.of("2")

    assert first.json()["data"] == second["data"] == {"a": 2, "b": 3, "c": 4}
    assert third.status_code == 429
    assert fourth["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


async def test_changes_asked_for_by_digest_count_as_many_as_written_out() -> None:
    by_digest = {"extensions": named(THREE)}
    async with served(gate=gate_with(mutations=6)) as serving, serving.http() as http:
        answers = [
            await http.post("/graphql", json=body, headers=REMOTE)
            for body in ({"query": THREE, **by_digest}, by_digest, by_digest)
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_a_digest_on_a_socket_counts_before_it_is_looked_for() -> None:
    message = {"type": "subscribe", "payload": {"extensions": named("{ hello }")}}
    async with (
        served(gate=gate_with(queries=2)) as serving,
        serving.client(additional_headers=REMOTE) as client,
    ):
        codes = []
        for n in range(3):
            await client.send({**message, "id": f"{n}"})
            codes.append((await client.of(f"{n}"))["payload"][0]["extensions"]["code"])

    assert codes == ["PERSISTED_QUERY_NOT_FOUND"] * 2 + ["RATE_LIMITED"]


async def test_who_is_at_the_machine_is_limited_in_tries_and_in_nothing_else() -> None:
    async with (
        served(gate=gate_with(mutations=1, login=2)) as serving,
        serving.http() as http,
    ):
        changes = [await http.post("/graphql", json={"query": THREE}) for _ in range(3)]
        tries = [await http.post("/graphql", json={"query": "mutation { login }"}) for _ in "123"]

    assert [answer.status_code for answer in changes] == [200, 200, 200]
    assert [answer.status_code == 429 for answer in tries] == [False, False, True]


async def test_subscriptions_on_one_socket_count_as_queries() -> None:
    async with (
        served(gate=gate_with(queries=2)) as serving,
        serving.client(additional_headers=REMOTE) as client,
    ):
        for n in range(3):
            await client.subscribe(f"{n}", TICKS)

        assert (await client.of("2"))["type"] == "error"


@pytest.mark.parametrize("query", ["{ nowhere }", "{ hello { nothing } }"])
async def test_what_is_wrong_is_looked_for_once(query: str) -> None:
    async with served(gate=gate_with()) as serving, serving.http() as http:
        answer = await http.post("/graphql", json={"query": query})

        assert answer.json()["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
        assert serving.stage.documents.validations == 1
