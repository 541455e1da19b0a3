"""What the chain should answer, worked out minute by minute from what was traded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from datasources.found import Answer, GapReason
from market.bars import CLOSED
from tests.fakes import Row

MS = {"s": 1000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True)
class Bar:
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float
    trades: int
    closed: bool
    minutes: int
    """How many minutes it is made of."""


@lru_cache(maxsize=100_000)
def midnight(zone: str, day: date) -> int:
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return int(local.timestamp() * 1000)


@lru_cache(maxsize=200_000)
def bucket(timeframe: str, zone: str, time: int) -> tuple[int, int]:
    """Return where the bucket around *time* opens and closes, around the clock."""
    count, unit = int(timeframe[:-1]), timeframe[-1]
    day = datetime.fromtimestamp(time / 1000, UTC).astimezone(ZoneInfo(zone)).date()
    if unit in MS:
        start, end = midnight(zone, day), midnight(zone, day + timedelta(days=1))
        step = count * MS[unit]
        opening = start + (time - start) // step * step
        return opening, min(opening + step, end)
    if unit == "d":
        first = date(1970, 1, 1) + (day - date(1970, 1, 1)) // timedelta(days=count) * timedelta(
            days=count
        )
        after = first + timedelta(days=count)
    elif unit == "w":
        monday = date(1970, 1, 5)
        weeks = (day - monday).days // 7 // count * count
        first, after = monday + timedelta(weeks=weeks), monday + timedelta(weeks=weeks + count)
    else:
        months = (day.year * 12 + day.month - 1) // count * count
        first = date(months // 12, months % 12 + 1, 1)
        months += count
        after = date(months // 12, months % 12 + 1, 1)
    return midnight(zone, first), midnight(zone, after)


def bars_of(
    rows: Mapping[int, Row], timeframe: str, zone: str, *, now: int, minutes_from: int
) -> list[Bar]:
    """Return every bar that can be told from minutes, the forming one last."""
    inside: dict[tuple[int, int], list[Row]] = {}
    for minute in sorted(rows):
        inside.setdefault(bucket(timeframe, zone, minute), []).append(rows[minute])
    bars = []
    for (opening, closing), parts in inside.items():
        if opening < minutes_from and timeframe != "1m":
            continue
        volume = math.fsum(part.volume for part in parts)
        turnover = math.fsum(part.volume * part.vwap for part in parts)
        bars.append(
            Bar(
                time=opening,
                open=parts[0].open,
                high=max(part.high for part in parts),
                low=min(part.low for part in parts),
                close=parts[-1].close,
                volume=volume,
                vwap=turnover / volume,
                trades=sum(part.trades for part in parts),
                closed=closing <= now,
                minutes=len(parts),
            )
        )
    return bars


def assert_says(answer: Answer, expected: list[Bar]) -> None:
    """Fail unless the bars of *answer* are *expected*: prices bit for bit, sums to 1e-12."""
    bars = answer.bars
    assert bars.time.tolist() == [bar.time for bar in expected]
    for name in ("open", "high", "low", "close", "trades"):
        assert getattr(bars, name).tolist() == [getattr(bar, name) for bar in expected], name
    for name in ("volume", "vwap"):
        for got, bar in zip(getattr(bars, name).tolist(), expected, strict=True):
            assert math.isclose(got, getattr(bar, name), rel_tol=1e-12), name
    assert ((bars.flags & CLOSED) != 0).tolist() == [bar.closed for bar in expected]


def assert_accounts_for(
    answer: Answer, timeframe: str, zone: str, *, since: int | None, until: int, now: int
) -> None:
    """Fail unless bars and gaps follow each other from the start of the window to its end.

    The bucket that runs may be missing: its first trade may still come. Around the clock only.
    """
    pieces = [(gap.since, gap.until) for gap in answer.gaps]
    pieces += [bucket(timeframe, zone, time) for time in answer.bars.time.tolist()]
    pieces.sort()
    running = bucket(timeframe, zone, now)
    for (_, end), (start, _) in pairwise(pieces):
        assert end == start or (end, start) == running, f"a hole or an overlap at {end}..{start}"
    for gap in answer.gaps:
        assert gap.since < gap.until
        if gap.reason is GapReason.NO_TRADES:
            assert bucket(timeframe, zone, gap.since)[0] == gap.since
            assert bucket(timeframe, zone, gap.until)[0] == gap.until
    last_opening, last_closing = bucket(timeframe, zone, min(until, now) - 1)
    ends = {last_closing, until}
    if last_opening == running[0]:
        ends |= {running[0]}
    if until > now:
        ends |= {running[0]}
    if not pieces:
        if last_opening == running[0]:
            last_opening, _ = bucket(timeframe, zone, running[0] - 1)
        assert since is None or since > last_opening
        return
    assert pieces[-1][1] in ends
    if since is not None and not answer.has_earlier:
        opening, closing = bucket(timeframe, zone, since)
        assert pieces[0][0] in {since, opening if opening == since else closing}
