"""Trades as ccxt hands them on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from market.errors import ProviderUnavailable
from plugins.base import Trade
from plugins.ccxt_exchange.tap import taken
from plugins.ccxt_exchange.unread import EveryTrade, Unread


class TradesTap:
    """Every trade once.

    The first batch may reach back before the subscription, where an exchange begins with its newest
    trades; from the first trade of the first batch on, none is missing.
    """

    kind = "trades"
    has = "Trades"
    keeps_state = False
    empty: Sequence[Trade] = ()

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.name = f"{self.kind} {symbol}"
        self.arguments = (symbol,)

    def serves(self, other: object) -> bool:
        return True

    def unread(self) -> Unread[Sequence[Trade]]:
        return EveryTrade()

    async def next(self, exchange: Any) -> Sequence[Trade]:
        said = await exchange.watch_trades(self.symbol, None, None, {})
        taken(exchange, exchange.trades.get(self.symbol), said, "tradesLimit")
        try:
            trades = [_trade(one) for one in said]
        except (TypeError, ValueError, KeyError) as error:
            raise ProviderUnavailable(exchange.id, "it sent trades that cannot be read") from error
        numbered = all(trade.id.isdecimal() for trade in trades)
        trades.sort(key=lambda trade: (trade.time, int(trade.id) if numbered else 0))
        return trades

    def forget(self, exchange: Any) -> None:
        exchange.trades.pop(self.symbol, None)


def _trade(said: Mapping[str, Any]) -> Trade:
    price, amount = float(said["price"]), float(said["amount"])
    if not (math.isfinite(price) and math.isfinite(amount)):
        raise ValueError("a trade without a price or an amount")
    return Trade(
        id=str(said.get("id") or ""), time=int(said["timestamp"]), price=price, amount=amount
    )
