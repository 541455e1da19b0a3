"""Tickers as ccxt hands them on."""

from __future__ import annotations

import math
from typing import Any

from market.clock import Clock
from market.errors import ProviderUnavailable
from market.quotes import Ticker
from plugins.ccxt_exchange.unread import Newest, Unread


class TickerTap:
    """The newest prices."""

    kind = "ticker"
    has = "Ticker"
    keeps_state = True
    empty: Ticker | None = None

    def __init__(self, symbol: str, *, clock: Clock) -> None:
        self.symbol = symbol
        self.name = f"{self.kind} {symbol}"
        self.arguments = (symbol,)
        self._clock = clock

    def serves(self, other: object) -> bool:
        return True

    def unread(self) -> Unread[Ticker | None]:
        return Newest()

    async def next(self, exchange: Any) -> Ticker | None:
        said = await exchange.watch_ticker(self.symbol, {})
        try:
            return Ticker(
                time=int(said.get("timestamp") or self._clock.now()),
                last=_told(said.get("last")),
                bid=_told(said.get("bid")),
                bid_size=_told(said.get("bidVolume")),
                ask=_told(said.get("ask")),
                ask_size=_told(said.get("askVolume")),
                volume=_told(said.get("baseVolume")),
            )
        except (TypeError, ValueError) as error:
            raise ProviderUnavailable(exchange.id, "its ticker cannot be read") from error

    def forget(self, exchange: Any) -> None:
        exchange.tickers.pop(self.symbol, None)


def _told(number: Any) -> float | None:
    value = None if number is None else float(number)
    return value if value is not None and math.isfinite(value) else None
