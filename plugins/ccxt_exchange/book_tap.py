"""Order books as ccxt keeps them, down to the levels that are known for sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from market.clock import Clock
from market.errors import ProviderUnavailable
from market.quotes import Level, OrderBook
from plugins.ccxt_exchange.client import BookBroken
from plugins.ccxt_exchange.depths import depth_to_ask
from plugins.ccxt_exchange.unread import Newest, Unread
from plugins.ccxt_exchange.wire import LEAST_SNAPSHOT


class BookTap:
    """Whole order books of *depth* levels a side, or as many as there are and can be had."""

    kind = "order_book"
    has = "OrderBook"
    keeps_state = True
    empty: OrderBook | None = None

    def __init__(self, symbol: str, depth: int, *, clock: Clock) -> None:
        self.symbol = symbol
        self.name = f"{self.kind} {symbol}"
        self.arguments = (symbol,)
        self.depth = depth
        self._clock = clock

    def serves(self, other: object) -> bool:
        return isinstance(other, BookTap) and other.depth <= self.depth

    def unread(self) -> Unread[OrderBook | None]:
        return Newest()

    async def next(self, exchange: Any) -> OrderBook | None:
        limit = depth_to_ask(exchange.id, self.depth)
        book = await exchange.watch_order_book(self.symbol, limit, {})
        if not exchange.verify(self.symbol, book):
            raise BookBroken("the checksum is another")
        bid_edge, ask_edge = self._edges(exchange, book, limit)
        nonce = book.get("nonce")
        try:
            return OrderBook(
                time=int(book.get("timestamp") or self._clock.now()),
                bids=self._levels(book["bids"], worst=bid_edge, sign=-1, limit=limit),
                asks=self._levels(book["asks"], worst=ask_edge, sign=1, limit=limit),
                sequence=None if nonce is None else int(nonce),
                checksum=book.get("checksum"),
            )
        except (TypeError, ValueError) as error:
            raise ProviderUnavailable(exchange.id, "its order book cannot be read") from error

    def forget(self, exchange: Any) -> None:
        exchange.orderbooks.pop(self.symbol, None)
        exchange.edges.pop(self.symbol, None)

    def _edges(
        self, exchange: Any, book: Any, limit: int | None
    ) -> tuple[float | None, float | None]:
        """Return the worst prices up to which *book* is known, None for all of a side.

        A book that began with a snapshot of so many levels knows nothing of those beyond it but
        what has changed since; and what is beyond *limit* has been cut off by ccxt.
        """
        if self.symbol not in exchange.edges:
            return None, None
        bid, ask = exchange.edges[self.symbol]
        if limit is not None and len(book["bids"]) >= limit:
            bid = max(book["bids"][-1][0], -math.inf if bid is None else bid)
        if limit is not None and len(book["asks"]) >= limit:
            ask = min(book["asks"][-1][0], math.inf if ask is None else ask)
        exchange.edges[self.symbol] = bid, ask
        return bid, ask

    def _levels(
        self,
        side: Sequence[Sequence[Any]],
        *,
        worst: float | None,
        sign: int,
        limit: int | None,
    ) -> tuple[Level, ...]:
        levels = tuple((float(price), float(amount)) for price, amount, *_ in side[: self.depth])
        if not all(math.isfinite(number) for level in levels for number in level):
            raise ValueError("a level is not a number")
        if worst is None:
            return levels
        known = tuple(level for level in levels if level[0] * sign <= worst * sign)
        if len(known) < min(self.depth, limit or LEAST_SNAPSHOT // 2):
            raise BookBroken("the market has left the prices that are known")
        return known
