"""The application as operators see it: whether it lives, whether it can answer, what it counts."""

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from tests.api import Api, served, served_with, settings_over
from tests.conftest import scratch_database
from tests.fakes import FakeProvider, Market, minutes_between

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = 1_760_000_000_000
NOWHERE = "postgresql://reader:hunter2@127.0.0.1:1/nothing"
CANDLES = """query Chart($symbol: String!) {
  candles(series: {provider: "sim", symbol: $symbol, timeframe: "1m"}, last: 20) {
    columns { time }
  }
}"""


@pytest.fixture(scope="module")
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def api(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Api]:
    async with served(settings_over(embedded, database_url), clock=FixedClock(NOW)) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def storeless(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Api]:
    """A server whose PostgreSQL is away, but for the accounts."""
    clock = FixedClock(NOW)
    minutes = minutes_between(NOW - 3_600_000, NOW)
    fake = FakeProvider(clock, {"COIN": Market.of(minutes)}, offered_from=minutes[0])
    accounts_url = SecretStr(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    settings = settings_over(embedded, NOWHERE, accounts_url=accounts_url)
    async with served_with(settings, {"fake": lambda _: fake}, clock=clock) as api:
        yield api


async def samples(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(await api.text("/metrics"))
        for sample in family.samples
    }


async def test_a_server_with_its_stores_lives_and_is_ready(api: Api) -> None:
    live, ready = await api.client.get("/livez"), await api.client.get("/readyz")

    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "postgres": "ok", "redis": "ok", "providers": 1}


async def test_readiness_says_that_the_store_is_away_and_answers_go_on(storeless: Api) -> None:
    ready = await storeless.client.get("/readyz")
    answer = await storeless.ask(
        '{ candles(series: {provider: "fake", symbol: "COIN", timeframe: "1m"}, last: 5)'
        "{ columns { time revision } cursor } }"
    )

    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["postgres"] == "away"
    window = answer.data["candles"]
    assert len(window["columns"]["time"]) == 5
    assert window["columns"]["revision"] == [0] * 5
    assert window["cursor"]


async def test_a_store_that_is_away_shows_no_secret(
    storeless: Api, caplog: pytest.LogCaptureFixture
) -> None:
    query = '{ candles(series: {provider: "fake", symbol: "COIN", timeframe: "7m"}) { cursor } }'

    answer = await storeless.ask(query)

    assert answer.errors == []
    assert "hunter2" not in caplog.text + str(answer.body) + await storeless.text("/readyz")


async def test_without_store_and_providers_nothing_can_be_answered(
    embedded: EmbeddedServers, database_url: str
) -> None:
    accounts_url = SecretStr(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    settings = settings_over(embedded, NOWHERE, accounts_url=accounts_url)
    async with served_with(settings, {}, clock=FixedClock(NOW)) as api:
        ready = await api.client.get("/readyz")
        live = await api.client.get("/livez")

    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert live.status_code == 200


async def test_a_query_known_by_its_text_is_registered_by_its_digest_too(api: Api) -> None:
    variables = {"symbol": "SOL/USDT"}
    persisted = {
        "persistedQuery": {"version": 1, "sha256Hash": sha256(CANDLES.encode()).hexdigest()}
    }
    by_digest = {"extensions": persisted, "variables": variables}
    for _ in range(2):
        await api.ask(CANDLES, **variables)

    unknown = await api.client.post("/graphql", json=by_digest)
    both = await api.client.post("/graphql", json=by_digest | {"query": CANDLES})
    known = await api.client.post("/graphql", json=by_digest)

    assert unknown.json()["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    assert known.json() == both.json()
    assert len(known.json()["data"]["candles"]["columns"]["time"]) == 20


async def test_metrics_count_requests_bars_lookups_and_calls(api: Api) -> None:
    before = await samples(api)

    for symbol in ("BTC/USDT", "BTC/USDT", "NOPE"):
        await api.ask(CANDLES, symbol=symbol)

    after = await samples(api)

    def grown(name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(
            value - before.get(key, 0.0)
            for key, value in after.items()
            if key[0] == name and wanted <= key[1]
        )

    chart = {"operation": "Chart", "type": "query"}
    assert grown("bargraph_requests_total", **chart, outcome="ok") == 2
    assert grown("bargraph_requests_total", **chart, outcome="errors") == 1
    assert grown("bargraph_request_seconds_count", **chart) == 3
    assert grown("bargraph_bars_total", source="provider") >= 20
    assert grown("bargraph_cache_lookups_total", result="miss") >= 1
    assert grown("bargraph_provider_calls_total", provider="sim") >= 1
    assert grown("bargraph_provider_seconds_count", provider="sim") >= 1
    assert grown("bargraph_provider_errors_total") == 0


@pytest.mark.parametrize(("pool", "limit"), [("postgres", 10), ("redis", 50)])
async def test_metrics_show_the_pools_and_what_the_cache_holds(
    api: Api, pool: str, limit: int
) -> None:
    for symbol in ("ETH/USDT", "BTC/USDT"):  # what one is told is kept before the next is looked up
        await api.ask(CANDLES, symbol=symbol)

    shown = await samples(api)

    states = {
        dict(labels)["state"]: value
        for (name, labels), value in shown.items()
        if name == "bargraph_pool_connections" and ("pool", pool) in labels
    }
    assert states["limit"] == limit
    assert 1 <= states["open"] <= states["limit"]
    assert states["used"] == 0
    assert any(name == "bargraph_cache_bytes" and value > 0 for (name, _), value in shown.items())


async def test_a_provider_that_fails_is_counted(
    embedded: EmbeddedServers, database_url: str
) -> None:
    clock = FixedClock(NOW)
    fake = FakeProvider(clock, {"COIN": Market()})
    fake.failing = lambda call: True
    async with served_with(
        settings_over(embedded, database_url), {"fake": lambda _: fake}, clock=clock
    ) as api:
        query = (
            '{ candles(series: {provider: "fake", symbol: "COIN", timeframe: "1m"}) { cursor } }'
        )
        answer = await api.ask(query)
        health = await api.ask("{ providers { health { state reason failedAt } } }")
        shown = await samples(api)

    assert answer.codes == ["PROVIDER_UNAVAILABLE"]
    assert health.data["providers"][0]["health"] == {
        "state": "FAILING",
        "reason": "told to fail",
        "failedAt": NOW,
    }
    assert sum(v for (name, _), v in shown.items() if name == "bargraph_provider_errors_total") >= 1
