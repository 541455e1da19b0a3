"""An order book, kept from whole states and the changes after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import nlargest, nsmallest
from typing import Any

from market.quotes import OrderBook
from plugins.alpaca.rows import pushed_time

MAX_LEVELS = 20_000
_CROSSED = 100


class Book:
    """What Alpaca has said of a book since its last whole state.

    It gives neither a number nor a checksum; a connection loses nothing between two messages.
    """

    def __init__(self) -> None:
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}
        self._time = 0
        self._whole = False
        self._crossed = 0

    def apply(self, message: Mapping[str, Any]) -> None:
        """Take in a message. Raises `ValueError` for a book that cannot be true."""
        if message.get("r"):
            self._bids, self._asks, self._whole = {}, {}, True
        _change(self._bids, message.get("b") or ())
        _change(self._asks, message.get("a") or ())
        self._time = pushed_time(message)
        # One message may be half of a change; a book that stays crossed has lost something.
        self._crossed = self._crossed + 1 if self._is_crossed() else 0
        if self._crossed > _CROSSED or len(self._bids) + len(self._asks) > MAX_LEVELS:
            raise ValueError("an order book that cannot be true")

    def state(self, depth: int) -> OrderBook | None:
        """Return the best *depth* levels a side, None while they are not known or cross."""
        if not self._whole or self._crossed:
            return None
        bids, asks = nlargest(depth, self._bids), nsmallest(depth, self._asks)
        return OrderBook(
            self._time,
            bids=tuple((price, self._bids[price]) for price in bids),
            asks=tuple((price, self._asks[price]) for price in asks),
        )

    def _is_crossed(self) -> bool:
        return bool(self._bids and self._asks) and max(self._bids) >= min(self._asks)


def _change(side: dict[float, float], levels: Iterable[Mapping[str, Any]]) -> None:
    for level in levels:
        price, size = float(level["p"]), float(level["s"])
        if not (0 < price < float("inf") and 0 <= size < float("inf")):
            raise ValueError("a level without a price or a size")
        if size:
            side[price] = size
        else:
            side.pop(price, None)
