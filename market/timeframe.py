"""A bar's length: a count of seconds, minutes, hours, days, weeks, months or years."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from market.errors import UnknownName
from market.window import DAY, HOUR, MINUTE


class Unit(StrEnum):
    """The letter of a timeframe. Case matters: `1m` is a minute, `1M` a month."""

    SECOND = "s"
    MINUTE = "m"
    HOUR = "h"
    DAY = "d"
    WEEK = "w"
    MONTH = "M"
    YEAR = "y"


_STEP = {Unit.SECOND: 1000, Unit.MINUTE: MINUTE, Unit.HOUR: HOUR}
_NOMINAL = {
    Unit.DAY: DAY,
    Unit.WEEK: 7 * DAY,
    Unit.MONTH: 30 * DAY,
    Unit.YEAR: 365 * DAY,
}
# The largest count of each unit: a day of what counts within the day, a century of the rest.
_LARGEST = {
    Unit.SECOND: 86_400,
    Unit.MINUTE: 1_440,
    Unit.HOUR: 24,
    Unit.DAY: 36_525,
    Unit.WEEK: 5_217,
    Unit.MONTH: 1_200,
    Unit.YEAR: 100,
}
# What a smaller unit is called once its count makes a whole larger one with the same buckets.
# 24h stays itself: on a day of 25 hours it ends before the day does. So does 7d: it starts on a
# Thursday.
_LARGER = {
    Unit.SECOND: (60, Unit.MINUTE),
    Unit.MINUTE: (60, Unit.HOUR),
    Unit.MONTH: (12, Unit.YEAR),
}
_WORDS = {unit.value: unit for unit in Unit} | {
    "sec": Unit.SECOND,
    "second": Unit.SECOND,
    "min": Unit.MINUTE,
    "minute": Unit.MINUTE,
    "hour": Unit.HOUR,
    "day": Unit.DAY,
    "week": Unit.WEEK,
    "mon": Unit.MONTH,
    "month": Unit.MONTH,
    "year": Unit.YEAR,
    # Unambiguous capitals that exchanges and charting libraries write.
    "H": Unit.HOUR,
    "D": Unit.DAY,
    "W": Unit.WEEK,
    "Y": Unit.YEAR,
}
_PATTERN = re.compile(r"(\d{1,6})\s?([A-Za-z]{0,7})", re.ASCII)
_EXAMPLES = ("1s", "1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M", "3M", "1y")


@dataclass(frozen=True, slots=True)
class Timeframe:
    """`count` units, always in lowest terms: 60m is 1h and 12M is 1y, with the same buckets."""

    count: int
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        """Return the timeframe that *text* names: `7m`, `1min`, `1mon`, or `60` for minutes.

        Raises `UnknownName` for anything else, for a count of 0 and for one that is too large.
        """
        match = _PATTERN.fullmatch(text.strip())
        if not match:
            raise UnknownName("timeframe", text, _EXAMPLES, field="timeframe")
        count, word = int(match[1]), match[2]
        unit = _unit(word)
        if unit is None or not 0 < count <= _LARGEST[unit]:
            raise UnknownName("timeframe", text, _EXAMPLES, field="timeframe")
        while unit in _LARGER and count % _LARGER[unit][0] == 0:
            count, unit = count // _LARGER[unit][0], _LARGER[unit][1]
        return cls(count, unit)

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def step(self) -> int | None:
        """Milliseconds of a bar that counts elapsed time; None where the calendar decides."""
        return self.count * _STEP[self.unit] if self.unit in _STEP else None

    @property
    def nominal(self) -> int:
        """Milliseconds of a typical bar, for estimates only: a month counts 30 days."""
        return self.count * (_STEP.get(self.unit) or _NOMINAL[self.unit])


def _unit(word: str) -> Unit | None:
    if not word:
        return Unit.MINUTE
    if word in _WORDS:
        return _WORDS[word]
    folded = word.casefold()
    return _WORDS.get(folded) or (_WORDS.get(folded.removesuffix("s")) if len(word) > 3 else None)


MINUTE_FRAME = Timeframe(1, Unit.MINUTE)
SECOND_FRAME = Timeframe(1, Unit.SECOND)
DAY_FRAME = Timeframe(1, Unit.DAY)
