"""What a run found, as Markdown for `docs/benchmarks.md`."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from subprocess import check_output

from benchmarks.candles.load import Sample
from benchmarks.candles.origins import Origins, shown
from benchmarks.candles.servers import (
    COLD,
    MERCURIUS,
    NO_ENCODED_CHUNKS,
    PEERS,
    STOCK,
    STORE,
    WARM,
    Variant,
    node_commands,
)
from benchmarks.candles.workloads import Workload

_PYTHON = (
    "strawberry-graphql graphql-core starlette uvicorn uvloop httptools orjson numpy asyncpg redis"
)
_NODE = "fastify mercurius graphql-jit graphql-yoga graphql"

_NOTES = """\
- Every server of the table has one core, PostgreSQL and Valkey included, the load has another.
  Each round measures every line once, in turn; a figure is the median of {rounds} rounds.
- req/s, and p50 and p99 on the right, with {many} kept-alive connections; p50 and p99 on the left
  with one. Latency in ms. Of a round with fewer than 100 requests p99 is the slowest.
- Requests are a POST with a document and its variables, the same for every server but for the
  windows named below. Each line's first two answers were compared with the recordings, number by
  number; of all others status, length and beginning were looked at.
- Bargraph runs as shipped, with its limits, metrics and caches, over recordings that replay at
  real speed. Only settings and requests make its states, and its own counters prove them.
- *warm*: the same request for the newest bars, the forming one included, again and again. What
  was answered within the last second (FORMING_TTL) is not looked up anew; each measurement lasts
  long enough to hold the moments in which it is.
- *cold*: as *warm*, but with {encoded} nothing that was encoded is kept: the bars are in
  the process, and every request writes all of them as JSON.
- *cold, new window*: besides, each request asks for another window, all of them over, so no answer
  is at hand either and the chain is asked each time. All bars are in the process.
- *cold, new document*: besides, each document has a response key that no earlier one had, and so
  is parsed, validated and planned anew.
- *straight from the store*: windows as in *cold, new window*, but CACHE_BYTES=0 and a Redis user
  that may read and not write: no cache ever holds a bar and PostgreSQL is asked each time. What it
  gave is still offered to Redis, as after any miss.
- Strawberry: the shipped `Candle` and `CandleColumns` in a schema of four fields, its own view,
  executor and encoder, objects in memory. The peers in JavaScript serve the same from memory.
- *static bytes*: a Starlette route that answers ready bytes.
"""


@dataclass(slots=True)
class Measured:
    """The rounds of one line."""

    alone: list[Sample] = field(default_factory=list)
    crowded: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return median(sample.rate for sample in self.crowded)

    def latency(self, share: float, *, alone: bool) -> float:
        samples = self.alone if alone else self.crowded
        return median(sample.percentile(share) for sample in samples) * 1000

    @property
    def tail(self) -> float:
        """How many times p50 p99 is, where many ask at once."""
        return median(s.percentile(0.99) / s.percentile(0.5) for s in self.crowded)


Table = Mapping[tuple[str, str], Measured]
"""Lines by the keys of workload and variant."""


@dataclass(frozen=True, slots=True)
class Goal:
    variant: str
    against: str
    times: float


GOALS = (
    Goal(WARM, STOCK, 80),
    Goal(WARM, MERCURIUS, 3),
    Goal(COLD, STOCK, 20),
    Goal(STORE, STOCK, 8),
)
TAIL = 4.0
"""The most that p99 may be of p50, with many connections, of whatever is ours and warm."""


def report(
    table: Table,
    workloads: Sequence[Workload],
    variants: Sequence[Variant],
    *,
    facts: Mapping[str, str],
    origins: Mapping[str, Origins],
    notes: str,
) -> str:
    lines = [*(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += [*_goals(table, workloads, variants), ""]
    for workload in workloads:
        lines += [f"### {workload.title}", "", *_lines(table, workload, variants), ""]
    lines.append(notes.rstrip())
    lines += [
        f"- Where bars of *{variant.title}* came from while measured: "
        f"{shown(origins[variant.key])}."
        for variant in variants
        if variant.key in origins
    ]
    busiest = max(s.busy for m in table.values() for s in (*m.alone, *m.crowded))
    lines.append(f"- The load never used more than {busiest:.0%} of its core.")
    return "\n".join(lines)


def _lines(table: Table, workload: Workload, variants: Sequence[Variant]) -> Iterator[str]:
    yield (
        "| | req/s | x stock | x mercurius | p50, 1 conn. | p99, 1 conn. | p50 | p99 | p99 / p50 |"
    )
    yield "| --- |" + " ---: |" * 8
    stock, mercurius = (table[workload.key, key].rate for key in (STOCK, MERCURIUS))
    for variant in variants:
        found = table[workload.key, variant.key]
        latencies = [
            f"{found.latency(share, alone=alone):.2f}"
            for alone in (True, False)
            for share in (0.5, 0.99)
        ]
        cells = [
            variant.title,
            _figure(found.rate),
            _figure(found.rate / stock),
            _figure(found.rate / mercurius),
            *latencies,
            f"{found.tail:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _goals(
    table: Table, workloads: Sequence[Workload], variants: Sequence[Variant]
) -> Iterator[str]:
    """Yield what is to be reached, and how far it is, at the sizes it is meant for."""
    titles = {variant.key: variant.title for variant in variants}
    meant = [w for w in workloads if w.key in {"1000-rows", "5000-rows"}]
    if not meant:
        return
    yield f"| to reach | {' | '.join(w.title for w in meant)} |"
    yield "| --- |" + " ---: |" * len(meant)
    for goal in GOALS:
        reached = [table[w.key, goal.variant].rate / table[w.key, goal.against].rate for w in meant]
        cells = [_mark(times, times >= goal.times, "x") for times in reached]
        what = f"{titles[goal.variant]}: at least {goal.times:g} x {titles[goal.against]}"
        yield f"| {what} | {' | '.join(cells)} |"
    tails = [_mark(table[w.key, WARM].tail, table[w.key, WARM].tail <= TAIL, "x") for w in meant]
    yield f"| {titles[WARM]}: p99 at most {TAIL:g} x p50 | {' | '.join(tails)} |"


def _mark(value: float, reached: bool, unit: str) -> str:
    return f"{_figure(value)} {unit}, {'reached' if reached else 'missed'}"


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def notes_of_run(rounds: int, connections: int) -> str:
    """Return what must be known to read the figures."""
    encoded = ", ".join(f"{name}={value}" for name, value in NO_ENCODED_CHUNKS.items())
    return _NOTES.format(rounds=rounds, many=connections, encoded=encoded)


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
        "Command": f"`python -m benchmarks.candles {shlex.join(sys.argv[1:])}`".replace(" `", "`"),
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
