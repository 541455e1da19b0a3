"""What a run found, as Markdown for `docs/benchmarks.md`."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from subprocess import check_output

from benchmarks.candles.servers import node_commands
from benchmarks.live.measuring import GRACE, WARMING, WHOLE, Sample
from benchmarks.live.rounds import Table, Workload
from benchmarks.live.servers import LIMIT, OURS, PEERS, Variant

_PYTHON = "strawberry-graphql graphql-core starlette uvicorn websockets uvloop orjson numpy redis"
_NODE = "graphql-ws ws graphql ioredis"

COST = 12e-6
"""The most seconds of CPU that a message of ours may cost, where many are sent."""
TAIL = 2.0
"""The most that our p99 may be of the limit's."""
MEMORY = 50_000
"""The most bytes that a connection of ours may take."""
SOON = 5e-3
"""Seconds from event to socket below which our p50 has to be, where few watch."""

_NOTES = f"""\
- The server of a line has one core, PostgreSQL and Valkey included, the load and the feed have
  another. Each round starts every server afresh for each number of sockets, in turn; a figure is
  the median of {{rounds}} rounds.
- All sockets watch the same running bar, which changes with each event. p50 and p99 in ms over all
  messages, from just before the load sends the event to Valkey to when it has read the message.
- us a message: the CPU of the server's process while measured, what it does besides included, by
  the messages it delivered in time; where it is saturated, some of it went into others.
- kB a connection: by how much the server's resident memory grew with the sockets once all watch,
  after {WARMING} others had come and gone.
- *saturated*: less than {WHOLE:.0%} of all messages came until {GRACE:g} s after the last event was
  due. Latency is that of those which came. Where messages queue up it grows with the time
  measured; Bargraph leaves out running bars that a newer one has made obsolete.
- Bargraph is `ROLE=api python -m web serve` as shipped, with its limits and metrics. The load says
  what a feed process would say, in the same bytes through the same broadcaster. Its own counters
  prove that it executes no event more than once.
- Every socket has an operation id of its own, and every message the same shape and size: a bar of
  seven fields and a cursor. One of each server was compared with what was sent. Peers have the
  update ready in one message from Valkey, and one subscription to it for the process.
- Strawberry: the shipped `Candle`, its own `graphql-transport-ws` handler. graphql-ws: on `ws`, a
  queue for each subscriber. *send_text*: a Starlette route that sends one ready string to each
  socket in turn.
"""


def report(
    table: Table,
    workloads: Sequence[Workload],
    variants: Sequence[Variant],
    *,
    facts: Mapping[str, str],
) -> str:
    lines = [*(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += [*_goals(table, workloads), ""]
    for workload in workloads:
        lines += [f"### {workload.title}", "", *_lines(table, workload, variants), ""]
    rounds = max(len(samples) for samples in table.values())
    lines.append(_NOTES.format(rounds=rounds).rstrip())
    busiest = max(sample.busy for samples in table.values() for sample in samples)
    lines.append(f"- The load never used more than {busiest:.0%} of its core.")
    return "\n".join(lines)


def _lines(table: Table, workload: Workload, variants: Sequence[Variant]) -> Iterator[str]:
    yield "| | p50 | p99 | p99 x limit | us a message | kB a connection | delivered |"
    yield "| --- |" + " ---: |" * 6
    limit = _percentile(table[workload.key, LIMIT], 0.99)
    for variant in variants:
        samples = table[workload.key, variant.key]
        delivered = median(sample.delivered for sample in samples)
        tail = _percentile(samples, 0.99)
        cells = [
            variant.title,
            f"{_percentile(samples, 0.5) * 1e3:,.1f}",
            f"{tail * 1e3:,.1f}",
            f"{tail / limit:.1f}",
            f"{_cost(samples) * 1e6:.1f}",
            f"{_memory(samples) / 1e3:.0f}",
            f"{delivered:.0%}{', saturated' if delivered < WHOLE else ''}",
        ]
        yield f"| {' | '.join(cells)} |"


def _goals(table: Table, workloads: Sequence[Workload]) -> Iterator[str]:
    """Yield what is to be reached, and how far it is, at the sizes it is meant for."""
    yield "| to reach | where | |"
    yield "| --- | --- | ---: |"
    for workload in workloads:
        ours = table[workload.key, OURS]
        if workload.key == "1000x50":
            cost = _cost(ours)
            what = f"at most {COST * 1e6:g} us of CPU a message"
            yield _goal(what, workload, f"{cost * 1e6:.1f} us", reached=cost <= COST)
        if workload.key in {"1000x50", "2000x1"}:
            tail = _percentile(ours, 0.99) / _percentile(table[workload.key, LIMIT], 0.99)
            what = f"p99 at most {TAIL:g} x the limit's"
            yield _goal(what, workload, f"{tail:.2f} x", reached=tail <= TAIL)
        if workload.rate == 1:
            memory = _memory(ours)
            what = f"at most {MEMORY / 1e3:g} kB a connection"
            yield _goal(what, workload, f"{memory / 1e3:.1f} kB", reached=memory <= MEMORY)
        if workload.size == 200:
            soon = _percentile(ours, 0.5)
            what = f"p50 below {SOON * 1e3:g} ms"
            yield _goal(what, workload, f"{soon * 1e3:.1f} ms", reached=soon < SOON)


def _goal(what: str, workload: Workload, figure: str, *, reached: bool) -> str:
    return f"| {what} | {workload.title} | {figure}, {'reached' if reached else 'missed'} |"


def _percentile(samples: Sequence[Sample], share: float) -> float:
    return median(sample.percentile(share) for sample in samples)


def _cost(samples: Sequence[Sample]) -> float:
    return median(sample.cost for sample in samples)


def _memory(samples: Sequence[Sample]) -> float:
    return median(sample.memory for sample in samples)


def facts_of_run(stores: str) -> dict[str, str]:
    """Return where, when and with what this ran."""
    node, _ = node_commands()
    packages = PEERS / "node_modules"
    peers = (
        f"{name} {json.loads((packages / name / 'package.json').read_text())['version']}"
        for name in _NODE.split()
    )
    python = (f"{name} {version(name)}" for name in _PYTHON.split())
    engine = check_output([node, "--version"], text=True).strip()
    return {
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Command": f"`python -m benchmarks.live {shlex.join(sys.argv[1:])}`".replace(" `", "`"),
        "Machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start",
        "Versions": f"Python {platform.python_version()}, {', '.join(python)}, {stores}; "
        f"Node {engine}, {', '.join(peers)}",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return platform.machine()
