"""Since when bars of a series and its aggregates are kept: what may be dropped, and what not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from market.buckets import Grid
from market.calendars import calendar
from market.retention import Retention
from market.timeframe import Timeframe
from market.window import DAY

_BARS_AT_ONCE = 40_000
"""About how many bars one step passes: 28 days of minutes."""

Lines = Mapping[int, int]
"""Since when there are bars, in ms, by level: 0 is the bars themselves. Absent: since ever."""


@dataclass(frozen=True, slots=True)
class Level:
    """An aggregate, and the number of the one it is computed from; None: from the minutes."""

    number: int
    timeframe: Timeframe
    computed_from: int | None

    def opening(self, instant: int) -> int:
        """Return where the bucket opens in which *instant* lies."""
        bucket = Grid(self.timeframe, zone="UTC", calendar=calendar("24/7")).at(instant)
        assert bucket is not None
        return bucket.since


def lines_of(
    retention: Retention, timeframe: Timeframe, levels: Sequence[Level], now: int, *, cursor: int
) -> Lines:
    """Return the lines of a series of *timeframe* with these *levels*, none beyond *cursor*.

    Empty where its bars are kept for ever. All lines are midnights, UTC. The bucket in which the
    bars' line lies may still change, and so may the one above it that is made of it: so what these
    are made of is kept.
    """
    target = retention.line(timeframe, now)
    if target is None:
        return {}
    base = min(target, cursor // DAY * DAY)
    lines = {0: base}
    for level in levels:
        own = retention.line(level.timeframe, now)
        if own is not None:
            above = [other for other in levels if other.computed_from == level.number]
            lines[level.number] = min(own, base, *(one.opening(base) for one in (level, *above)))
    return lines


def cursors(beginning: int, end: int, timeframe: Timeframe) -> Iterator[int]:
    """Yield the instants up to which bars are dropped step by step, the last of them *end*."""
    step = max(DAY, _BARS_AT_ONCE * timeframe.nominal // DAY * DAY)
    yield from range(beginning // DAY * DAY + step, end, step)
    yield end
