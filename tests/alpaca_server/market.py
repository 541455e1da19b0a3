"""What the local Alpaca lists, and the minutes of it: a pure function of symbol and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from tests.exchange_server.market import MINUTE, Candles, Market

NEW_YORK = ZoneInfo("America/New_York")
LISTED = 1_697_004_000_000
"""2023-10-11: clocks changed on 2023-11-05."""
SPLIT_AT = 1_699_900_000_000
"""Before this instant, on 2023-11-13, four shares of today were one."""
DIVIDEND = 0.99
IEX_SHARE = 0.125


def _in_extended_hours(minutes: Any) -> Any:
    """Which minutes lie between 04:00 and 20:00 in New York on Monday to Friday."""
    hours, of_minute = np.unique(minutes // 60, return_inverse=True)
    local = [datetime.fromtimestamp(hour * 3600, NEW_YORK) for hour in hours.tolist()]
    return np.array([t.weekday() < 5 and 4 <= t.hour < 20 for t in local], dtype=bool)[of_minute]


@dataclass(slots=True)
class Asset:
    """One line of the list of assets, and what is traded of it."""

    symbol: str
    market: Market
    asset_class: str = "us_equity"
    tradable: bool = True
    active: bool = True
    fractionable: bool = True
    rules: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return {
            "id": "904837e3-3b76-47ec-b432-046db621571b",
            "class": self.asset_class,
            "exchange": "NASDAQ" if self.asset_class == "us_equity" else "CRYPTO",
            "symbol": self.symbol,
            "name": f"{self.symbol} of the tests",
            "status": "active" if self.active else "inactive",
            "tradable": self.tradable,
            "marginable": False,
            "shortable": False,
            "easy_to_borrow": False,
            "fractionable": self.fractionable,
            **self.rules,
        }


def _stock(symbol: str, *, listed: int = LISTED, **facts: Any) -> Asset:
    traded = Market(symbol, "USD", listed=listed // MINUTE * MINUTE, trades_in=_in_extended_hours)
    return Asset(symbol, traded, **facts)


def _pair(base: str, tick: str, lot: str) -> Asset:
    rules = {
        "min_order_size": f"{float(lot) * 10:.9f}",
        "min_trade_increment": lot,
        "price_increment": tick,
    }
    return Asset(f"{base}/USD", Market(base, "USD"), "crypto", rules=rules)


STOCKS = (
    _stock("AAPL", fractionable=True),
    _stock("SPY", fractionable=True),
    _stock("WHOL", fractionable=False),
    # Listed on Friday, 2023-11-10, at noon in New York.
    _stock("YNG", listed=1_699_635_600_000),
    _stock("HALT", tradable=False),
    _stock("GONE", active=False),
)
PAIRS = (
    _pair("BTC", "1", "0.000000001"),
    _pair("ETH", "0.1", "0.000000001"),
    # Nothing is traded in two of three minutes.
    Asset("RARE/USD", Market("RARE", "USD", trades_in=lambda minutes: minutes % 3 == 2), "crypto"),
)


@dataclass(frozen=True, slots=True)
class Bars:
    """Columns as Alpaca has them: times in ms, and how many minutes each is made of as `n`."""

    candles: Candles
    n: Any

    def rows(self, since: int = 0, until: int = 2**62) -> Iterator[dict[str, Any]]:
        """Yield those that open in [since, until], as Alpaca writes them but for the time."""
        inside = slice(*np.searchsorted(self.candles.time, (since, until + 1)))
        kept = self.candles.take(inside)
        for row, n in zip(kept.rows(), self.n[inside].tolist(), strict=True):
            time, open_, high, low, close, volume = row
            yield {
                "t": time,
                "o": open_,
                "h": high,
                "l": low,
                "c": close,
                "v": volume,
                "n": n,
                "vw": round((high + low + close) / 3, 6),
            }


class History:
    """All minutes of one asset that are over at *now*, grouped on request."""

    def __init__(self, asset: Asset, now: int) -> None:
        self._asset = asset
        self._now = now

    @cached_property
    def _minutes(self) -> Candles:
        market = self._asset.market
        return market.candles(market.listed, self._now // MINUTE * MINUTE)

    def bars(self, frame: str, *, adjustment: str, share: float) -> Bars:
        minutes = self._adjusted(adjustment, share)
        edges = _opens(minutes.time, frame)
        opens, first = np.unique(edges, return_index=True)
        if not len(opens):
            return Bars(minutes, np.empty(0, np.int64))
        last = np.append(first[1:], len(edges)) - 1
        grouped = Candles(
            time=opens,
            open=minutes.open[first],
            high=np.maximum.reduceat(minutes.high, first),
            low=np.minimum.reduceat(minutes.low, first),
            close=minutes.close[last],
            volume=np.add.reduceat(minutes.volume, first),
        )
        return Bars(grouped, last - first + 1)

    def _adjusted(self, adjustment: str, share: float) -> Candles:
        minutes = self._minutes
        before = minutes.time < SPLIT_AT
        factor = np.ones(len(minutes.time))
        volume = minutes.volume * share
        if adjustment in ("split", "all"):
            factor = np.where(before, factor / 4, factor)
            volume = np.where(before, volume * 4, volume)
        if adjustment in ("dividend", "all"):
            factor = np.where(before, factor * DIVIDEND, factor)
        return Candles(
            minutes.time,
            minutes.open * factor,
            minutes.high * factor,
            minutes.low * factor,
            minutes.close * factor,
            volume,
        )


def _opens(times: Any, frame: str) -> Any:
    """Return when the bar of *frame* opened that each minute belongs to."""
    steps = {"1Min": 1, "5Min": 5, "15Min": 15, "30Min": 30, "1Hour": 60}
    if frame in steps:
        step = steps[frame] * MINUTE
        return times // step * step
    if frame != "1Day":
        raise KeyError(frame)
    # A day of stocks begins at New York's midnight, whatever its length.
    days: dict[int, int] = {}
    for hour in np.unique(times // (60 * MINUTE)).tolist():
        local = datetime.fromtimestamp(hour * 3600, NEW_YORK)
        midnight = local - timedelta(hours=local.hour)
        midnight = datetime(midnight.year, midnight.month, midnight.day, tzinfo=NEW_YORK)
        days[hour] = int(midnight.timestamp() * 1000)
    return np.array([days[hour] for hour in (times // (60 * MINUTE)).tolist()], dtype=np.int64)
