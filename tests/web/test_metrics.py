"""What `/metrics` shows, and that its labels stay bounded."""

import httpx
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from web.metrics import Metrics, metrics_route


async def scrape(metrics: Metrics, accept: str = "text/plain") -> httpx.Response:
    app = Starlette(routes=[metrics_route(metrics)])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        return await client.get("/metrics", headers={"accept": accept})


async def test_scrape_shows_every_metric_and_the_process() -> None:
    metrics = Metrics()
    metrics.observe_request("Candles", "query", outcome="ok", seconds=0.02)
    metrics.bars_total.labels("cache").inc(500)
    metrics.cache_lookups_total.labels("redis", "hit").inc()
    metrics.provider_calls_total.labels("binance", "history").inc()
    metrics.provider_errors_total.labels("binance", "rate_limited").inc()
    metrics.provider_seconds.labels("binance", "history").observe(0.3)

    answer = await scrape(metrics)

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["bargraph_requests_total", "Candles", "ok", "query"] == 1
    assert samples["bargraph_request_seconds_count", "Candles", "query"] == 1
    assert samples["bargraph_request_seconds_bucket", "0.01", "Candles", "query"] == 0
    assert samples["bargraph_request_seconds_bucket", "0.025", "Candles", "query"] == 1
    assert samples["bargraph_bars_total", "cache"] == 500
    assert samples["bargraph_cache_lookups_total", "redis", "hit"] == 1
    assert samples["bargraph_provider_calls_total", "history", "binance"] == 1
    assert samples["bargraph_provider_errors_total", "rate_limited", "binance"] == 1
    assert samples["bargraph_provider_seconds_count", "history", "binance"] == 1
    assert any(name == "python_gc_objects_collected_total" for name, *_ in samples)
    assert any(name == "python_info" for name, *_ in samples)


async def test_scrape_speaks_openmetrics_when_asked() -> None:
    plain = await scrape(Metrics())
    open_metrics = await scrape(Metrics(), "application/openmetrics-text; version=1.0.0")

    assert plain.headers["content-type"].startswith("text/plain")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


def test_clients_cannot_make_labels_without_bound() -> None:
    metrics = Metrics(max_operations=3)

    labels = [metrics.operation(f"Q{number}") for number in range(1_000)]

    assert set(labels) == {"Q0", "Q1", "Q2", "other"}
    assert metrics.operation("Q1") == "Q1"
    assert metrics.operation(None) == "anonymous"


@pytest.mark.parametrize("length", [61, 100_000])
def test_long_names_are_no_labels(length: int) -> None:
    assert Metrics().operation("Q" * length) == "other"


async def test_pools_are_asked_at_every_scrape() -> None:
    metrics = Metrics()
    used = [0]
    metrics.watch_pool("postgres", {"used": lambda: used[0], "limit": lambda: 10})

    before = await scrape(metrics)
    used[0] = 7
    after = await scrape(metrics)

    assert 'bargraph_pool_connections{pool="postgres",state="used"} 0.0' in before.text
    assert 'bargraph_pool_connections{pool="postgres",state="used"} 7.0' in after.text
    assert 'bargraph_pool_connections{pool="postgres",state="limit"} 10.0' in after.text


def test_two_servers_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()

    one.bars_total.labels("cache").inc()

    assert two.registry.get_sample_value("bargraph_bars_total", {"source": "cache"}) is None
    assert (
        prometheus_client.REGISTRY.get_sample_value("bargraph_bars_total", {"source": "cache"})
        is None
    )
