"""What a text says of how long bars are kept, and which texts say nothing sensible."""

from __future__ import annotations

import pytest

from market.retention import Retention
from market.timeframe import Timeframe
from market.window import DAY, HOUR


def kept(text: str, timeframe: str) -> int | None:
    return Retention.parse(text).period(Timeframe.parse(timeframe))


def test_what_is_not_named_is_kept_as_long_as_the_next_longer_timeframe() -> None:
    text = "1h:10y, 1m:400d"

    assert kept(text, "1m") == kept(text, "1s") == 400 * DAY
    assert kept(text, "5m") == kept(text, "1h") == 3650 * DAY
    assert kept(text, "4h") is None


def test_bars_are_dropped_up_to_a_midnight() -> None:
    retention = Retention.parse("1m:7d")

    line = retention.line(Timeframe.parse("1m"), 20 * DAY + 5 * HOUR)

    assert line == 13 * DAY
    assert retention.line(Timeframe.parse("1d"), 20 * DAY) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1m", "each with days"),
        ("1m:400", "each with days"),
        ("1m:12h", "each with days"),
        ("1m:-3d", "each with days"),
        ("minutely:7d", "timeframes"),
        ("1m:6d", "1m for 7d at least"),
        ("1h:20d", "1h for 21d at least"),
        ("1d:1y", "1d for 500d at least"),
        ("1m:30d,60s:40d", "once"),
        ("1m:400d,1h:300d", "1h shorter than those of 1m"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Retention.parse(text)
