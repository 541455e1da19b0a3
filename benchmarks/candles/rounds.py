"""The rounds: every line measured once in each, in turn, and its state looked at afterwards."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.candles.load import LoadFailed, Sample, Target, measure
from benchmarks.candles.origins import Origins, check_origin, origins_of
from benchmarks.candles.report import Measured
from benchmarks.candles.servers import Variant
from benchmarks.candles.workloads import Workload

MANY = 8
_FEWEST = 3
_FORMING_TTL = 1.0
"""Seconds after which a live answer is computed anew; a shorter measurement would not see it."""

Key = tuple[str, str]
"""A line of the tables: the keys of its workload and its variant."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure; all times in seconds."""

    rounds: int
    """At the most; of more than three, only as many as fit into *budget*."""
    budget: float
    crowded: float
    """One measurement with many connections."""
    alone: float
    """One measurement with one connection."""
    refreshes: int
    """How often a live answer grows old within each measurement, which then takes longer."""
    at_least: int
    """Requests in a measurement with many connections, however slow the server."""


FULL = Plan(rounds=7, budget=300, crowded=0.4, alone=0.15, refreshes=2, at_least=2 * MANY)
QUICK = Plan(rounds=1, budget=60, crowded=0.15, alone=0.05, refreshes=1, at_least=MANY)


@dataclass(frozen=True, slots=True)
class Results:
    """What the rounds found: samples by line, origins of bars by variant of ours."""

    table: defaultdict[Key, Measured] = field(default_factory=lambda: defaultdict(Measured))
    origins: defaultdict[str, Origins] = field(default_factory=lambda: defaultdict(Counter))

    @property
    def rounds(self) -> int:
        return max(len(measured.crowded) for measured in self.table.values())


async def measure_all(
    plan: Plan,
    workloads: Sequence[Workload],
    variants: Sequence[Variant],
    *,
    targets: Mapping[Key, Target],
    say: Callable[[str], None],
) -> Results:
    """Raises `LoadFailed` and `WrongState`."""
    results = Results()
    began = perf_counter()
    for number in range(plan.rounds):
        spent = perf_counter() - began
        if number >= _FEWEST and spent * (number + 1) / number > plan.budget:
            break
        say(f"round {number + 1} of {plan.rounds} at most, after {spent:.0f} s")
        for workload in workloads:
            # Each round begins with another, so that the start of a turn favours none.
            for variant in _turned(variants, number):
                key = workload.key, variant.key
                before = await origins_of(variant)
                longer = plan.refreshes * _FORMING_TTL if variant.live else 0.0
                crowded, alone = await _measured(plan, targets[key], key, longer=longer)
                results.table[key].crowded.append(crowded)
                results.table[key].alone.append(alone)
                counted = await origins_of(variant) - before
                answers = len(crowded.latencies) + len(alone.latencies)
                check_origin(variant, counted, bars=answers * workload.bars)
                if variant.ours:
                    results.origins[variant.key] += counted
    return results


async def _measured(
    plan: Plan, target: Target, key: Key, *, longer: float
) -> tuple[Sample, Sample]:
    """Return the samples with many connections and with one."""
    try:
        crowded = await measure(
            target, connections=MANY, seconds=plan.crowded + longer, at_least=plan.at_least
        )
        alone = await measure(target, connections=1, seconds=plan.alone + longer)
    except (LoadFailed, TimeoutError) as error:
        raise LoadFailed(f"{' on '.join(key)}: {error!r}") from error
    return crowded, alone


def _turned(variants: Sequence[Variant], number: int) -> list[Variant]:
    start = number % len(variants)
    return [*variants[start:], *variants[:start]]
