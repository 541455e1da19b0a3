"""The bars that a recording must give, worked out row by row with nothing but the standard library.

It shares no code with the server: dates and zones come from `zoneinfo`, sums from `math.fsum`.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cache
from math import fsum
from pathlib import Path
from zoneinfo import ZoneInfo

UTC = ZoneInfo("UTC")
NEW_YORK = ZoneInfo("America/New_York")
OPENING_BELL, CLOSING_BELL = time(9, 30), time(16)
SECONDS = {"m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Row:
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass
class Bucket:
    opens: int
    closes: int
    rows: list[Row] = field(default_factory=list)

    @property
    def prices(self) -> tuple[float, float, float, float]:
        high, low = max(row.high for row in self.rows), min(row.low for row in self.rows)
        return self.rows[0].open, high, low, self.rows[-1].close

    @property
    def volume(self) -> float:
        return fsum(row.volume for row in self.rows)


@cache
def read(path: Path) -> Sequence[Row]:
    with path.open(encoding="utf-8") as lines:
        return tuple(
            Row(int(line["timestamp_ms"]), *(float(line[name]) for name in PRICES_AND_VOLUME))
            for line in csv.DictReader(lines)
        )


PRICES_AND_VOLUME = ("open", "high", "low", "close", "volume")


@cache
def midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, time(), zone).timestamp()) * 1000


def local_date(instant: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(instant / 1000, zone).date()


def bounds(instant: int, timeframe: str, zone: ZoneInfo) -> tuple[int, int]:
    """Return opening and close of the bucket that *instant* lies in, no session chosen."""
    count, unit = int(timeframe[:-1]), timeframe[-1]
    day = local_date(instant, zone)
    if unit in SECONDS:
        start, end = midnight(day, zone), midnight(day + timedelta(1), zone)
        step = count * SECONDS[unit] * 1000
        opens = start + (instant - start) // step * step
        return opens, min(opens + step, end)
    if unit == "M":
        month = (day.year - 1970) * 12 + day.month - 1
        first, past = month // count * count, month // count * count + count
        return tuple(
            midnight(date(1970 + month // 12, month % 12 + 1, 1), zone) for month in (first, past)
        )
    origin, length = (date(1970, 1, 1), count) if unit == "d" else (date(1970, 1, 5), 7 * count)
    group = (day - origin).days // length
    first = origin + timedelta(group * length)
    return midnight(first, zone), midnight(first + timedelta(length), zone)


def session_bounds(
    instant: int, timeframe: str, half_days: Iterable[date] = ()
) -> tuple[int, int] | None:
    """Return the bucket of *instant* counted from New York's opening bell, None after hours."""
    day = local_date(instant, NEW_YORK)
    closing = time(13) if day in half_days else CLOSING_BELL
    start, end = (
        int(datetime.combine(day, bell, NEW_YORK).timestamp()) * 1000
        for bell in (OPENING_BELL, closing)
    )
    if not start <= instant < end:
        return None
    step = int(timeframe[:-1]) * SECONDS[timeframe[-1]] * 1000
    opens = start + (instant - start) // step * step
    return opens, min(opens + step, end)


def recompute(rows: Sequence[Row], timeframe: str, zone: ZoneInfo = UTC) -> list[Bucket]:
    """Return every bucket that holds a row and is known whole, oldest first.

    A recording vouches for the days on which it has a row; at an exchange weekends are empty
    without being recorded. A day that has not come by the last row cannot be missing.
    """
    recorded = {local_date(row.time, zone) for row in rows}
    newest = max(recorded)
    exchange = zone is not UTC

    def known(day: date) -> bool:
        return day in recorded or day > newest or (exchange and day.weekday() > 4)

    found: dict[int, Bucket] = {}
    for row in rows:
        opens, closes = bounds(row.time, timeframe, zone)
        found.setdefault(opens, Bucket(opens, closes)).rows.append(row)
    return [bucket for bucket in found.values() if all(map(known, days_of(bucket, zone)))]


def days_of(bucket: Bucket, zone: ZoneInfo) -> list[date]:
    first, last = (local_date(instant, zone) for instant in (bucket.opens, bucket.closes - 1))
    return [first + timedelta(n) for n in range((last - first).days + 1)]
