"""The chain's counters as Prometheus metrics."""

from __future__ import annotations

from web.metrics import Metrics


class ChainMeter:
    """Counts for the chain; see `datasources.meter.Meter`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def bars(self, source: str, count: int) -> None:
        if count:
            self._metrics.bars_total.labels(source).inc(count)

    def lookup(self, layer: str, *, hit: bool) -> None:
        self._metrics.cache_lookups_total.labels(layer, "hit" if hit else "miss").inc()

    def call(self, provider: str, call: str, *, seconds: float, failed: bool) -> None:
        self._metrics.provider_calls_total.labels(provider, call).inc()
        self._metrics.provider_seconds.labels(provider, call).observe(seconds)
        if failed:
            self._metrics.provider_errors_total.labels(provider, call).inc()
