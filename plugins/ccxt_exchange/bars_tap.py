"""Bars as ccxt hands them on: rows of (time, open, high, low, close, volume)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from market.bars import CLOSED, Bars
from market.clock import Clock
from market.errors import InvalidBars, ProviderUnavailable
from plugins.ccxt_exchange.tap import taken
from plugins.ccxt_exchange.unread import NewestOfEachBar, Unread


class BarsTap:
    """Bars as they are at the exchange; see `PushesBars` for what is certain of them."""

    kind = "ohlcv"
    has = "OHLCV"
    keeps_state = False
    empty = Bars.empty()

    def __init__(self, symbol: str, frame: str, *, step: int, clock: Clock) -> None:
        """*frame* is ccxt's name of the timeframe, *step* its length in milliseconds."""
        self.symbol = symbol
        self.name = f"{self.kind} {frame} {symbol}"
        self.arguments = (symbol, frame)
        self._frame = frame
        self._step = step
        self._clock = clock
        self._newest = -1

    def serves(self, other: object) -> bool:
        return True

    def unread(self) -> Unread[Bars]:
        return NewestOfEachBar()

    async def next(self, exchange: Any) -> Bars | None:
        said = await exchange.watch_ohlcv(self.symbol, self._frame, None, None, {})
        kept = (exchange.ohlcvs.get(self.symbol) or {}).get(self._frame)
        taken(exchange, kept, said, "OHLCVLimit")
        try:
            rows = {int(row[0]): tuple(row[1:6]) for row in said}
            whole = {time: row for time, row in sorted(rows.items()) if _is_whole(row)}
        except (TypeError, ValueError) as error:
            raise ProviderUnavailable(exchange.id, "it sent rows that are not bars") from error
        if any(time <= self._newest for time in rows.keys() - whole.keys()):
            # What was pushed of that bar before is no longer what the exchange says of it.
            raise ProviderUnavailable(exchange.id, "it sent a known bar with a value missing")
        if not whole:
            return None
        self._newest = max(self._newest, *whole)
        return self._bars(exchange, whole)

    def forget(self, exchange: Any) -> None:
        (exchange.ohlcvs.get(self.symbol) or {}).pop(self._frame, None)
        exchange.finals.pop((self.symbol, self._frame), None)

    def _bars(self, exchange: Any, rows: Mapping[int, tuple[Any, ...]]) -> Bars:
        time = np.fromiter(rows, dtype=np.int64, count=len(rows))
        if np.any(time % self._step):
            raise ProviderUnavailable(
                exchange.id, "it sent bars that do not open on the grid of their timeframe"
            )
        columns = np.array(list(rows.values()), dtype=np.float64).T
        final = time <= exchange.finals.get((self.symbol, self._frame), -1)
        updated = np.minimum(time + self._step, self._clock.now())
        try:
            return Bars.of(
                time, *columns, updated=updated, flags=np.where(final, CLOSED, 0)
            ).checked()
        except InvalidBars as error:
            raise ProviderUnavailable(
                exchange.id, f"it sent bars that cannot be true: {error}"
            ) from error


def _is_whole(row: tuple[Any, ...]) -> bool:
    return len(row) == 5 and all(v is not None and not math.isnan(v) for v in row)
