"""Turn trades as a provider tells them into columns that can be stored, or refuse them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from market.clock import Clock
from market.errors import BargraphError
from market.lru import LRU
from market.trades import Trades
from market.window import HOUR
from plugins.base import Trade

_EARLIEST = -62_135_596_800_000
"""The year 1: nothing before it can be stored."""
_AHEAD = HOUR
"""How far a provider's trades may be ahead of what it calls now."""
_LONGEST_ID = 100
_REMEMBERED = 2_000
"""Trades without an id that are counted where they look the same."""


class InvalidTrades(BargraphError):
    """A provider told of a trade that cannot be true."""

    code = "INVALID_TRADES"


class Normalizer:
    """For the trades of one stream, in their order.

    A trade without an id is named by what is known of it, and counted among those that look the
    same: told again from the beginning, it gets the same name.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._alike: LRU[tuple[int, float, float], int] = LRU(max_count=_REMEMBERED)

    def columns(self, trades: Sequence[Trade]) -> Trades:
        """Return *trades* as columns. Raises `InvalidTrades`, and then takes none of them."""
        latest = self._clock.now() + _AHEAD
        for trade in trades:
            _check(trade, latest)
        return Trades.of(
            [trade.time for trade in trades],
            [trade.price for trade in trades],
            [trade.amount for trade in trades],
            [(trade.id or self._name(trade)).encode() for trade in trades],
        )

    def _name(self, trade: Trade) -> str:
        alike = (trade.time, trade.price, trade.amount)
        nth = (self._alike.get(alike) or 0) + 1
        self._alike.put(alike, nth)
        return f"{trade.price!r} x {trade.amount!r} #{nth}"


def _check(trade: Trade, latest: int) -> None:
    if not math.isfinite(trade.price):
        raise InvalidTrades("a price that is not a finite number")
    if not math.isfinite(trade.amount) or trade.amount < 0:
        raise InvalidTrades("an amount that is not a number >= 0")
    if not _EARLIEST <= trade.time <= latest:
        raise InvalidTrades("a time that cannot be, or has not come")
    if len(trade.id) > _LONGEST_ID or not trade.id.isprintable():
        raise InvalidTrades("an id that is too long, or not text")
