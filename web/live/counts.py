"""What live transport counts. Plain integers, read at a scrape: a message has no time for more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(slots=True)
class Tally:
    """What one transport has open, and what it has done."""

    connections: int = 0
    operations: int = 0
    sent: int = 0
    conflated: int = 0
    slow: int = 0


class LiveCounts(Collector):
    """All counts of one process, shown by *registry*."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames = Tally()
        """WebSockets whose frames are written past ASGI."""
        self.websocket = Tally()
        """WebSockets of servers that do not offer that."""
        self.sse = Tally()
        self.multipart = Tally()
        self.groups = 0
        self.shared_executions = 0
        self.own_executions = 0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        tallies = {
            "websocket": self.frames,
            "websocket-asgi": self.websocket,
            "sse": self.sse,
            "multipart": self.multipart,
        }
        connections = GaugeMetricFamily(
            "bargraph_live_connections", "Sockets and streams that are open.", labels=["transport"]
        )
        operations = GaugeMetricFamily(
            "bargraph_live_operations", "Operations that run on them.", labels=["transport"]
        )
        sent = CounterMetricFamily(
            "bargraph_live_messages", "Messages written to clients.", labels=["transport"]
        )
        conflated = CounterMetricFamily(
            "bargraph_live_conflated",
            "Messages dropped because a newer one made them obsolete before they could be sent.",
            labels=["transport"],
        )
        slow = CounterMetricFamily(
            "bargraph_live_slow_closes", "Clients cut off as too slow.", labels=["transport"]
        )
        for name, tally in tallies.items():
            connections.add_metric([name], tally.connections)
            operations.add_metric([name], tally.operations)
            sent.add_metric([name], tally.sent)
            conflated.add_metric([name], tally.conflated)
            slow.add_metric([name], tally.slow)
        yield from (connections, operations, sent, conflated, slow)
        yield GaugeMetricFamily(
            "bargraph_live_groups", "Tails that run, each for all who share it.", self.groups
        )
        executions = CounterMetricFamily(
            "bargraph_live_executions",
            "Events executed: once for a group (shared), or for one operation (own).",
            labels=["kind"],
        )
        executions.add_metric(["shared"], self.shared_executions)
        executions.add_metric(["own"], self.own_executions)
        yield executions
