"""What this process counts about itself, in a registry of its own, and the route that shows it.

Labels never grow without bound: operation names come from clients, so only the first hundred are
told apart; all other labels are ours.
"""

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Every metric of one process. Times are in seconds."""

    def __init__(self, *, max_operations: int = 100) -> None:
        self.registry = registry = CollectorRegistry()
        self._operations: set[str] = set()
        self._max_operations = max_operations
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        self.requests_total = Counter(
            "bargraph_requests_total",
            "GraphQL requests; outcome is ok, errors, refused, unregistered or failed.",
            ["operation", "type", "outcome"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "bargraph_request_seconds",
            "Time from reading a GraphQL request to its encoded answer.",
            ["operation", "type"],
            buckets=SECONDS,
            registry=registry,
        )
        self.bars_total = Counter(
            "bargraph_bars_total",
            "Bars answered, by the source that had them.",
            ["source"],
            registry=registry,
        )
        self.cache_lookups_total = Counter(
            "bargraph_cache_lookups_total",
            "Lookups by cache layer; result is hit or miss.",
            ["layer", "result"],
            registry=registry,
        )
        self.provider_calls_total = Counter(
            "bargraph_provider_calls_total",
            "Calls made to a provider.",
            ["provider", "call"],
            registry=registry,
        )
        self.provider_errors_total = Counter(
            "bargraph_provider_errors_total",
            "Calls to a provider that failed.",
            ["provider", "call"],
            registry=registry,
        )
        self.provider_seconds = Histogram(
            "bargraph_provider_seconds",
            "Time a provider took to answer.",
            ["provider", "call"],
            buckets=SECONDS,
            registry=registry,
        )
        self._cache_bytes = Gauge(
            "bargraph_cache_bytes",
            "Bytes that a cache of this process holds.",
            ["cache"],
            registry=registry,
        )
        self._live = Gauge(
            "bargraph_live",
            "What is followed live here: feeds run, bars held while the store is away, series "
            "watched, and whether the broadcaster is connected.",
            ["what"],
            registry=registry,
        )
        self._backfills = Gauge(
            "bargraph_backfills",
            "Backfills run by this process: how many are running, bars they stored since it "
            "started, and seconds of missing time they still have to fill.",
            ["what"],
            registry=registry,
        )
        self._aggregates = Gauge(
            "bargraph_aggregates",
            "TimescaleDB's aggregates, where this process refreshes them: marks of time not "
            "refreshed yet, seconds since the oldest, aggregates whose own job lags or fails, jobs "
            "of any kind that failed, windows refreshed and refreshes that failed since the start.",
            ["what"],
            registry=registry,
        )
        self._retention = Gauge(
            "bargraph_retention",
            "Bars dropped for their age, where this process drops them: bars, and chunks dropped "
            "whole, since the start; series left for later by the last pass; passes that failed "
            "since the start. too_old: bars this process was given since the start, and did not "
            "store because such are not kept.",
            ["what"],
            registry=registry,
        )
        self._pool_connections = Gauge(
            "bargraph_pool_connections",
            "Connections of a pool by state.",
            ["pool", "state"],
            registry=registry,
        )

    def operation(self, name: str | None) -> str:
        """Return the label for the operation *name*: itself, `anonymous`, or `other`."""
        if name is None:
            return "anonymous"
        if name not in self._operations:
            if len(self._operations) >= self._max_operations or len(name) > 60:
                return OTHER
            self._operations.add(name)
        return name

    def observe_request(self, operation: str, type: str, *, outcome: str, seconds: float) -> None:
        """Count one request under the label *operation* (see `operation`)."""
        self.requests_total.labels(operation, type, outcome).inc()
        self.request_seconds.labels(operation, type).observe(seconds)

    def watch_cache(self, cache: str, held: Callable[[], float]) -> None:
        """Show the bytes that *cache* holds, asked for at every scrape."""
        self._cache_bytes.labels(cache).set_function(held)

    def watch_live(self, what: str, count: Callable[[], float]) -> None:
        """Show a number of what is followed live, asked for at every scrape."""
        self._live.labels(what).set_function(count)

    def watch_backfills(self, what: str, count: Callable[[], float]) -> None:
        """Show a number of the backfills that run here, asked for at every scrape."""
        self._backfills.labels(what).set_function(count)

    def watch_aggregates(self, what: str, count: Callable[[], float]) -> None:
        """Show a number of the aggregates that are refreshed here, asked for at every scrape."""
        self._aggregates.labels(what).set_function(count)

    def watch_retention(self, what: str, count: Callable[[], float]) -> None:
        """Show a number of what is dropped for its age, asked for at every scrape."""
        self._retention.labels(what).set_function(count)

    def watch_pool(self, pool: str, states: Mapping[str, Callable[[], float]]) -> None:
        """Show the connections of *pool*, asked for at every scrape, one gauge for each state."""
        for state, count in states.items():
            self._pool_connections.labels(pool, state).set_function(count)


def metrics_route(metrics: Metrics) -> Route:
    """Return the route `/metrics` in Prometheus' text format or OpenMetrics, as is asked for."""

    async def scrape(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"content-type": content_type})

    return Route("/metrics", scrape, methods=["GET"], name="metrics")
