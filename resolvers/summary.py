"""Say what a run of bars did, in numbers and in one sentence that can be spoken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import numpy as np

from market.bars import Bars
from market.instrument import Series


class Trend(StrEnum):
    """Whether the last close is above, below or at the first opening."""

    UP = "up"
    DOWN = "down"
    FLAT = "flat"


@dataclass(frozen=True, slots=True)
class Summary:
    """Positions in the bars (None: there are none), and the change from first to last price."""

    first: int | None
    last: int | None
    highest: int | None
    lowest: int | None
    change: float | None
    change_percent: float | None
    trend: Trend | None
    sentence: str


def summarise(series: Series, bars: Bars) -> Summary:
    name = f"{series.listing.symbol}, {_spoken(series)} bars"
    if not len(bars):
        return Summary(None, None, None, None, None, None, None, f"{name}: none in this window.")
    highest, lowest = int(np.argmax(bars.high)), int(np.argmin(bars.low))
    opening, closing = float(bars.open[0]), float(bars.close[-1])
    change = closing - opening
    percent = 100 * change / abs(opening) if opening else None
    trend = Trend.UP if change > 0 else Trend.DOWN if change < 0 else Trend.FLAT
    moved = {Trend.UP: "up", Trend.DOWN: "down", Trend.FLAT: "unchanged"}[trend]
    if percent is not None and trend is not Trend.FLAT:
        moved = f"{moved} {abs(percent):.2f} percent"
    count = f"{len(bars)} {name}" if len(bars) > 1 else f"1 bar of {name}"
    sentence = (
        f"{count} from {_when(series, bars, 0)} to {_when(series, bars, -1)}: "
        f"{moved}, from {_price(opening)} to {_price(closing)}; "
        f"highest {_price(float(bars.high[highest]))} on {_when(series, bars, highest)}, "
        f"lowest {_price(float(bars.low[lowest]))} on {_when(series, bars, lowest)}."
    )
    return Summary(0, len(bars) - 1, highest, lowest, change, percent, trend, sentence)


def _spoken(series: Series) -> str:
    words = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
    words |= {"w": "week", "M": "month", "y": "year"}
    return f"{series.timeframe.count}-{words[series.timeframe.unit.value]}"


def _when(series: Series, bars: Bars, position: int) -> str:
    instant = datetime.fromtimestamp(int(bars.time[position]) / 1000, UTC)
    local = instant.astimezone(ZoneInfo(series.timezone))
    text = f"{local.day} {local:%B %Y}"
    return text if series.timeframe.step is None else f"{text} {local:%H:%M}"


def _price(value: float) -> str:
    return np.format_float_positional(value, precision=10, unique=True, trim="-")
