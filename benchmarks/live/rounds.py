"""The rounds: every server measured once in each with every number of sockets, in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.live.feeds import OurFeed, PeerFeed
from benchmarks.live.measuring import Sample, Timed, measure
from benchmarks.live.servers import OURS, Variant, serving
from benchmarks.live.viewers import LoadFailed

SIZES = (200, 1000, 2000)
RATES = (1, 50)


@dataclass(frozen=True, slots=True)
class Workload:
    """So many sockets, and so many events a second."""

    size: int
    rate: int

    @property
    def key(self) -> str:
        return f"{self.size}x{self.rate}"

    @property
    def title(self) -> str:
        return f"{self.size} sockets, {self.rate} event{'s' if self.rate > 1 else ''} a second"


WORKLOADS = tuple(Workload(size, rate) for size in SIZES for rate in RATES)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: *seconds* by events a second."""

    rounds: int
    seconds: dict[int, float]


FULL = Plan(rounds=3, seconds={1: 6, 50: 4})
QUICK = Plan(rounds=1, seconds={1: 2, 50: 1})

Table = defaultdict[tuple[str, str], list[Sample]]
"""Samples of all rounds by the keys of workload and variant."""


async def measure_all(
    plan: Plan,
    workloads: Sequence[Workload],
    variants: Sequence[Variant],
    feeds: tuple[OurFeed, PeerFeed],
    *,
    folder: Path,
    core: int,
    say: Callable[[str], None],
) -> Table:
    """Raises `LoadFailed`, `ServerFailed`, `WrongMessage`, `WrongState`."""
    table: Table = defaultdict(list)
    ours, peer = feeds
    for number in range(plan.rounds):
        for size in sorted({workload.size for workload in workloads}):
            say(f"round {number + 1} of {plan.rounds}, {size} sockets")
            chosen = [workload for workload in workloads if workload.size == size]
            timed = [Timed(one.rate, plan.seconds[one.rate]) for one in chosen]
            # Each round begins with another, so that the start of a turn favours none.
            for variant in (*variants[number:], *variants[:number]):
                feed = ours if variant.key == OURS else peer
                try:
                    async with serving(variant, folder, core) as server:
                        samples = await measure(variant, server, feed, size=size, timed=timed)
                except (LoadFailed, TimeoutError) as error:
                    raise LoadFailed(f"{variant.key}, {size} sockets: {error!r}") from error
                for workload, sample in zip(chosen, samples, strict=True):
                    table[workload.key, variant.key].append(sample)
    return table
