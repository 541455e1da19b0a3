"""What is ingested, and how far behind it is, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from datasources.ingest.counts import IngestCounts


class IngestCollector(Collector):
    """Reads *counts* at every scrape; Redis is not asked for it."""

    def __init__(self, counts: IngestCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts, lag = self._counts, self._counts.lag
        trades = CounterMetricFamily(
            "bargraph_ingested_trades",
            "Trades that this process put into the stream, read from a provider's past, let go "
            "for want of room, and stored from the stream.",
            labels=["what"],
        )
        for what in ("published", "filled", "shed", "stored"):
            trades.add_metric([what], getattr(counts, what))
        yield trades
        yield CounterMetricFamily(
            "bargraph_ingest_refused_batches",
            "Batches with a trade that cannot be true.",
            value=counts.refused,
        )
        yield CounterMetricFamily(
            "bargraph_ingest_buried_entries",
            "Entries that this process put among the dead letters.",
            value=counts.buried,
        )
        yield GaugeMetricFamily(
            "bargraph_ingest_sources",
            "Sources whose trades this process publishes.",
            value=counts.publishing,
        )
        stream = GaugeMetricFamily(
            "bargraph_ingest_stream",
            "What the stream holds that is not stored, as this process last saw it: entries, "
            "their bytes, and dead letters.",
            labels=["what"],
        )
        for what, held in (
            ("entries", lag.entries),
            ("bytes", lag.bytes),
            ("dead", lag.dead),
        ):
            stream.add_metric([what], held)
        yield stream
        yield GaugeMetricFamily(
            "bargraph_ingest_oldest_seconds",
            "Age of the oldest entry that is not stored.",
            value=lag.oldest_ms / 1000,
        )
        yield GaugeMetricFamily(
            "bargraph_ingest_bar_delay_seconds",
            "From the end of the minute of the bar that was stored last to its commit, by the "
            "provider's clock.",
            value=counts.bar_delay_ms / 1000,
        )
