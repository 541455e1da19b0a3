"""Trades, order books and tickers as bytes, for the broadcaster.

Each message is whole by itself, so one that was lost leaves the next one as true as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from datasources.live.events import FeedState, Status
from datasources.live.keys import Kind
from market.quotes import OrderBook, Ticker
from plugins.base import Trade

Quote = Sequence[Trade] | OrderBook | Ticker
_VERSION = 1


@dataclass(frozen=True, slots=True)
class QuoteEvent:
    """What was pushed, or (None) nothing but how the feed is doing.

    *number* counts the events that this process took in of one stream; it is not sent.
    """

    quote: Quote | None
    status: Status | None = None
    number: int = 0

    def packed(self) -> bytes:
        status = self.status
        return orjson.dumps(
            [
                _VERSION,
                None if self.quote is None else _out(self.quote),
                status and (status.state, status.at, status.message),
            ]
        )

    @classmethod
    def unpacked(cls, kind: Kind, packed: bytes) -> QuoteEvent | None:
        """Return the event that was packed; None for what another version packed."""
        try:
            version, quote, status = orjson.loads(packed)
            if version != _VERSION:
                return None
            return cls(
                None if quote is None else _IN[kind](quote),
                status and Status(FeedState(status[0]), status[1], status[2]),
            )
        except (ValueError, TypeError, LookupError, AttributeError):
            return None


def _out(quote: Quote) -> Any:
    if isinstance(quote, OrderBook):
        return [quote.time, quote.bids, quote.asks, quote.sequence, quote.checksum]
    if isinstance(quote, Ticker):
        return [getattr(quote, name) for name in _TICKER]
    return [(trade.id, trade.time, trade.price, trade.amount) for trade in quote]


_TICKER = ("time", "last", "bid", "bid_size", "ask", "ask_size", "volume")


def _trades(rows: Any) -> list[Trade]:
    return [Trade(*row) for row in rows]


def _book(row: Any) -> OrderBook:
    time, bids, asks, sequence, checksum = row
    return OrderBook(
        time,
        tuple((price, amount) for price, amount in bids),
        tuple((price, amount) for price, amount in asks),
        sequence,
        checksum,
    )


def _ticker(row: Any) -> Ticker:
    return Ticker(*row)


_IN: dict[Kind, Callable[[Any], Quote]] = {
    Kind.TRADES: _trades,
    Kind.BOOK: _book,
    Kind.TICKER: _ticker,
}
