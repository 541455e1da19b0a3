"""A request that comes again is answered as before, past the executor, and never past a check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from graphql import OperationType
from prometheus_client.parser import text_string_to_metric_families
from strawberry.types.execution import PreExecutionError

from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from market.clock import FixedClock
from schema.build import build_schema
from schema.context import Context
from tests.api import Api, served_with, settings_over
from tests.conftest import scratch_database
from tests.fakes import FakeProvider, Market, minutes_between
from web.bootstrap import SQL, wire
from web.documents import Documents, Operation
from web.graphql_request import GraphQLRequest
from web.hot import HotRequests
from web.meter import ChainMeter
from web.metrics import Metrics

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = 1_760_000_000_000
SERIES = 'series: {provider: "fake", symbol: "COIN", timeframe: "5m"}'
WINDOW = """
    series { provider timeframe session adjustment kind: __typename }
    candles { time o: open close isClosed revision source __typename }
    columns { time vwap trades }
    gaps { since until reason }
    hasEarlier cursor __typename
"""
CHART = f"{{ candles({SERIES}, last: 20) {{ {WINDOW} }} }}"
TWO = f"{{ a: candles({SERIES}, last: 3) {{ hasEarlier }} b: candles({SERIES}) {{ {WINDOW} }} }}"
WATCHLIST = f"""{{
  symbols(provider: "fake") {{
    totalCount
    edges {{ cursor node {{ symbol id candles(timeframe: "5m", last: 5) {{ {WINDOW} }} }} }}
  }}
}}"""
NAMED = f"""query Q($last: Int, $no: Boolean = false) {{
  candles({SERIES}, last: $last) {{ ...W gaps @include(if: $no) {{ since }} }}
}}
fragment W on CandleWindow {{ candles {{ time close }} }}"""
CLOCKS = """{
  symbols(provider: "fake") {
    nodes { provider { clock { now } } candles(timeframe: "1h") { hasEarlier } }
  }
}"""


class Chart:
    """A server over a fake provider, and how often the short path was taken."""

    def __init__(self, api: Api, clock: FixedClock, provider: FakeProvider) -> None:
        self.ask = api.ask
        self.clock = clock
        self.provider = provider
        self._api = api

    async def taken(self) -> int:
        text = await self._api.text("/metrics")
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "bargraph_cache_lookups_total"
            and sample.labels == {"layer": "request", "result": "hit"}
        )


@pytest.fixture(scope="module")
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        asyncio.run(migrate(url, SQL))
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def chart(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Chart]:
    clock = FixedClock(NOW)
    minutes = minutes_between(NOW - 6 * 3_600_000, NOW + 3_600_000)
    fake = FakeProvider(
        clock, {name: Market.of(minutes) for name in ("COIN", "NICKEL")}, offered_from=minutes[0]
    )
    settings = settings_over(embedded, database_url)
    async with served_with(settings, {"fake": lambda _: fake}, clock=clock) as api:
        yield Chart(api, clock, fake)


@pytest.mark.parametrize("query", [CHART, TWO, WATCHLIST, NAMED])
async def test_what_comes_again_is_answered_the_same_past_the_executor(
    chart: Chart, query: str
) -> None:
    first = await chart.ask(query, last=7)

    second, third = await chart.ask(query, last=7), await chart.ask(query, last=7)

    assert first.data == second.data == third.data
    assert await chart.taken() == 2


async def test_other_variables_are_another_request(chart: Chart) -> None:
    seven = await chart.ask(NAMED, last=7)
    eight = await chart.ask(NAMED, last=8)

    assert len(seven.data["candles"]["candles"]) == 7
    assert len(eight.data["candles"]["candles"]) == 8
    assert await chart.taken() == 0


async def test_time_goes_on_for_a_request_that_comes_again(chart: Chart) -> None:
    query = f"{{ candles({SERIES}, last: 1) {{ candles {{ time isClosed }} }} }}"
    before = await chart.ask(query)

    chart.clock.at += 300_000
    after = await chart.ask(query)

    (old,), (new,) = before.data["candles"]["candles"], after.data["candles"]["candles"]
    assert new["time"] - old["time"] == 300_000
    assert await chart.taken() == 1


@pytest.mark.parametrize(
    "query",
    [
        "{ providers { name clock { now } } }",
        f"{{ candles({SERIES}) {{ hasEarlier }} providers {{ name health {{ state }} }} }}",
        CLOCKS,
        f"{{ candles({SERIES}) {{ summary {{ sentence }} }} }}",
    ],
)
async def test_what_may_change_by_itself_is_always_left_to_the_executor(
    chart: Chart, query: str
) -> None:
    for _ in range(3):
        assert (await chart.ask(query)).errors == []

    assert await chart.taken() == 0


async def test_a_failure_of_a_hot_request_is_the_ordinary_error(chart: Chart) -> None:
    query = (
        f"{{ candles({SERIES}, since: {NOW + 60_000}, until: {NOW + 3_600_000}) "
        "{ candles { time } } }"
    )
    assert (await chart.ask(query)).errors == []

    chart.clock.at += 1_800_000
    chart.provider.failing = lambda _: True
    refused = await chart.ask(query)

    assert refused.codes == ["PROVIDER_UNAVAILABLE"]
    assert refused.body["data"] is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ candles(" + SERIES + ") { candles { nonsense } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ candles(" + SERIES, "GRAPHQL_PARSE_FAILED"),
        ("{ candles(" + SERIES + ", last: 100000000) { hasEarlier } }", "BAD_USER_INPUT"),
        (
            "{ candles(" + SERIES + ") { candles { " + "time " * 3000 + "} } }",
            "GRAPHQL_PARSE_FAILED",
        ),
    ],
)
async def test_a_forbidden_document_is_refused_however_often_it_comes(
    chart: Chart, query: str, code: str
) -> None:
    for _ in range(3):
        assert (await chart.ask(query)).codes == [code]

    assert await chart.taken() == 0


BY_VARIABLES = """query Q($series: SeriesInput!, $last: Int = 4, $since: Timestamp) {
  candles(series: $series, last: $last, since: $since) { candles { time close } hasEarlier }
  again: candles(series: {provider: "fake", symbol: "NICKEL", timeframe: "1h"}, last: $last) {
    columns { time close }
  }
}"""


@pytest.mark.parametrize(
    "variables",
    [
        {"last": 9},
        {"last": None},
        {"since": NOW - 3_600_000, "last": 2},
        {"series": {"provider": "fake", "symbol": "NICKEL", "timeframe": "7m", "session": "ALL"}},
    ],
)
async def test_variables_that_only_say_which_bars_take_the_short_path_too(
    chart: Chart, variables: dict
) -> None:
    usual = {"series": {"provider": "fake", "symbol": "COIN", "timeframe": "5m"}}
    await chart.ask(BY_VARIABLES, **usual)
    before = await chart.taken()

    short = await chart.ask(BY_VARIABLES, **(usual | variables))

    assert await chart.taken() == before + 1
    # A comment makes it a document that nobody has seen.
    assert short.data == (await chart.ask(BY_VARIABLES + "#", **(usual | variables))).data
    assert await chart.taken() == before + 1


@pytest.mark.parametrize(
    "variables",
    [
        {"series": {"provider": "fake", "symbol": "COIN", "timeframe": "0m"}},
        {"series": {"provider": "fake", "symbol": "CON", "timeframe": "5m"}},
        {"series": {"provider": "fake", "symbol": "COIN"}},
        {"series": {"provider": "fake", "symbol": "COIN", "timeframe": "5m", "session": "NIGHT"}},
        {"last": -1},
        {"last": "seven"},
        {"since": 1.5},
        {"series": None},
    ],
)
async def test_wrong_variables_of_a_hot_document_get_the_ordinary_error(
    chart: Chart, variables: dict
) -> None:
    usual = {"series": {"provider": "fake", "symbol": "COIN", "timeframe": "5m"}}
    await chart.ask(BY_VARIABLES, **usual)

    hot = await chart.ask(BY_VARIABLES, **(usual | variables))

    assert hot.codes == ["BAD_USER_INPUT"]
    fresh = await chart.ask(BY_VARIABLES + "#", **(usual | variables))
    assert (hot.status, hot.body) == (fresh.status, fresh.body)


BESIDE = """query Q($search: String!, $series: SeriesInput!) {
  symbols(provider: "fake", search: $search) { totalCount nodes { symbol } }
  candles(series: $series, last: 2) { candles { time } }
}"""


async def test_variables_that_also_say_something_else_are_another_request(chart: Chart) -> None:
    coins = {"provider": "fake", "symbol": "COIN", "timeframe": "5m"}
    first = await chart.ask(BESIDE, search="COIN", series=coins)

    other = await chart.ask(BESIDE, search="NICKEL", series=coins)

    assert first.data["symbols"]["nodes"] == [{"symbol": "COIN"}]
    assert other.data["symbols"]["nodes"] == [{"symbol": "NICKEL"}]
    assert other.data == (await chart.ask(BESIDE, search="NICKEL", series=coins)).data
    assert await chart.taken() == 1


async def test_a_provider_that_fails_a_hot_request_is_not_asked_again_for_the_error(
    chart: Chart,
) -> None:
    query = f"{{ candles({SERIES}, last: 20) {{ hasEarlier }} }}"
    await chart.ask(query)
    chart.clock.at += 86_400_000
    chart.provider.failing = lambda _: True
    before = len(chart.provider.calls)

    hot = await chart.ask(query)
    between = len(chart.provider.calls)
    cold = await chart.ask(query + "#")

    assert hot.body == cold.body
    assert between - before == len(chart.provider.calls) - between


async def test_variables_that_nest_too_deep_to_be_told_apart_are_not_mixed_up(chart: Chart) -> None:
    deep: list = []
    for _ in range(300):
        deep = [deep]
    series = {"provider": "fake", "symbol": "COIN", "timeframe": "5m"}
    await chart.ask(BY_VARIABLES, series=series)
    await chart.ask(BY_VARIABLES, series=series, last=2, unused=deep)

    other = await chart.ask(BY_VARIABLES, series=series, last=3, unused=deep)

    assert len(other.data["candles"]["candles"]) == 3


@pytest.mark.parametrize(
    ("type", "short"), [(OperationType.QUERY, True), (OperationType.MUTATION, False)]
)
async def test_what_a_mutation_answered_is_never_said_again(
    embedded: EmbeddedServers, database_url: str, type: OperationType, short: bool
) -> None:
    text = (
        '{ candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1h"}) { hasEarlier } }'
    )
    asked = GraphQLRequest(text, None, None, None)
    documents = Documents()
    schema = build_schema([documents.extension])
    meter = ChainMeter(Metrics())
    settings = settings_over(embedded, database_url)
    async with wire(settings, clock=FixedClock(NOW), meter=meter) as wired:
        hot = HotRequests(wired.shared, documents, schema.core, meter=meter)
        context = Context(wired.shared, takes_fragments=True)
        result = await schema.execute(text, context_value=context)
        assert not isinstance(result, PreExecutionError)

        hot.learn(text, asked, Operation(type, None), context, result)

        assert isinstance(await hot.again(text, asked), tuple) is short
