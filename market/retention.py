"""How long bars are kept, by timeframe, and before which instant they are dropped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from market.errors import UnknownName
from market.timeframe import Timeframe
from market.window import DAY

SHORTEST = 7 * DAY
"""What is newer may still be revised, looked at once more, or wait for its aggregates."""
FEWEST_BARS = 500
"""A chart opens with so many; they are always kept."""
_PERIODS = {"d": DAY, "w": 7 * DAY, "y": 365 * DAY}
_PERIOD = re.compile(r"(\d{1,5})([dwy])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many milliseconds bars of some timeframes are kept, the shortest timeframe first.

    A timeframe that is not named is kept as long as the next longer one that is; those longer than
    all of them for ever. So no bar outlives the longer ones that are made of it.
    """

    periods: tuple[tuple[Timeframe, int], ...]

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Return what a text like `1m:400d,1h:10y` says. Raises `ValueError` with the reason."""
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        periods = sorted(map(_entry, entries), key=lambda entry: entry[0].nominal)
        for (timeframe, period), (longer, kept) in pairwise(periods):
            if timeframe.nominal == longer.nominal:
                raise ValueError(f"must name each timeframe once; {longer} stands there again")
            if kept < period:
                raise ValueError(
                    f"must not keep bars of {longer} shorter than those of {timeframe}, of which "
                    "they are made"
                )
        return cls(tuple(periods))

    def period(self, timeframe: Timeframe) -> int | None:
        """Return for how long bars of *timeframe* are kept; None: for ever."""
        return next(
            (period for named, period in self.periods if named.nominal >= timeframe.nominal), None
        )

    def line(self, timeframe: Timeframe, now: int) -> int | None:
        """Return the midnight UTC before which bars of *timeframe* are dropped; None: none are."""
        period = self.period(timeframe)
        return None if period is None else (now - period) // DAY * DAY


def _entry(text: str) -> tuple[Timeframe, int]:
    name, _, length = (part.strip() for part in text.partition(":"))
    match = _PERIOD.fullmatch(length)
    if not match:
        raise ValueError(
            f"must be timeframes, each with days, weeks or years, such as 1m:400d; {text!r} is not"
        )
    try:
        timeframe = Timeframe.parse(name)
    except UnknownName as error:
        raise ValueError(f"must be timeframes: {error}") from None
    period = int(match[1]) * _PERIODS[match[2]]
    least = max(SHORTEST, FEWEST_BARS * timeframe.nominal)
    if period < least:
        raise ValueError(f"must keep bars of {timeframe} for {-(-least // DAY)}d at least")
    return timeframe, period
