"""Whether our server sent messages in the way it is meant to, by its own counters."""

from __future__ import annotations

import re
from collections import Counter

from benchmarks.candles.load import get

_LIVE = re.compile(r'^bargraph_live_(\w+)\{\w+="([\w-]+)"\} (\S+)$', re.MULTILINE)

Tallies = Counter[tuple[str, str]]
"""Counters of live transport by name and label."""


class WrongState(Exception):
    """A server that did what it was supposed not to do."""


async def tallies_of(port: int) -> Tallies:
    text = (await get(port, "/metrics")).decode()
    return Counter({(name, label): int(float(n)) for name, label, n in _LIVE.findall(text)})


def check_tallies(counted: Tallies, *, events: int, delivered: int) -> None:
    """Raise `WrongState` unless each of *events* was executed once at most, for all sockets."""
    shared, own = counted["executions_total", "shared"], counted["executions_total", "own"]
    sent = counted["messages_total", "websocket"]
    if own or shared > events or sent < delivered or counted["slow_closes_total", "websocket"]:
        raise WrongState(f"{events} events, {delivered} messages came: {dict(counted)}")
