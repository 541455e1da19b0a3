"""What a listener holds: a stream of bars, trades, books or tickers, joined at its first batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from market.bars import Bars
from market.clock import Clock
from market.quotes import OrderBook, Ticker
from plugins.alpaca.book import Book
from plugins.alpaca.line import Line
from plugins.alpaca.rows import Row, pushed_bar, pushed_time, pushed_trades
from plugins.alpaca.seat import Seat
from plugins.base import Trade

T = TypeVar("T")


class LiveStream(Generic[T]):
    """A `Stream`. *join* finds the line for the seat, and refuses what there is no stream of."""

    def __init__(self, seat: Seat[T], join: Callable[[Seat[T]], Awaitable[Line]]) -> None:
        self._seat = seat
        self._join = join
        self._line: Line | None = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._seat.left:
            raise StopAsyncIteration
        if self._line is None:
            self._line = await self._join(self._seat)
        return await self._seat.next()

    async def aclose(self) -> None:
        """Give the place back; the connection ends with its last one."""
        if self._line is None:
            self._seat.leave()
        else:
            await self._line.leave(self._seat)


def bars_seat(provider: str, symbol: str, *, clock: Clock) -> Seat[Bars]:
    """Every minute when it is over, and again when a late trade corrects it. One bar a batch."""
    return Seat(
        provider,
        frozenset({("bars", symbol), ("updatedBars", symbol)}),
        confirmation=Bars.empty(),
        translate=lambda messages: [pushed_bar(each, now=clock.now()) for each in messages],
    )


def trades_seat(provider: str, symbol: str) -> Seat[Sequence[Trade]]:
    """What was traded, as much as came at once."""

    def translate(messages: Sequence[Row]) -> list[Sequence[Trade]]:
        trades = pushed_trades(messages)
        return [trades] if trades else []

    return Seat(provider, frozenset({("trades", symbol)}), confirmation=(), translate=translate)


def book_seat(provider: str, symbol: str, depth: int) -> Seat[OrderBook | None]:
    """The newest state, after all that came at once."""

    def translate(books: Sequence[Book]) -> list[OrderBook | None]:
        state = books[-1].state(depth)
        return [state] if state is not None else []

    return Seat(
        provider, frozenset({("orderbooks", symbol)}), confirmation=None, translate=translate
    )


def ticker_seat(provider: str, symbol: str, *, sizes: bool) -> Seat[Ticker | None]:
    """The newest quote and trade. Without *sizes* these are left out."""
    return Seat(
        provider,
        frozenset({("quotes", symbol), ("trades", symbol)}),
        confirmation=None,
        translate=_Tape(sizes=sizes).tell,
    )


class _Tape:
    """The newest of each price, each with its own time: late reports do not replace newer ones."""

    def __init__(self, *, sizes: bool) -> None:
        self._sizes = sizes
        self._quote: Row = {}
        self._trade: Row = {}
        self._quoted = self._traded = 0

    def tell(self, messages: Sequence[Row]) -> list[Ticker | None]:
        for message in messages:
            time = pushed_time(message)
            if message["T"] == "q" and time >= self._quoted:
                self._quote, self._quoted = message, time
            elif message["T"] == "t" and time >= self._traded:
                self._trade, self._traded = message, time
        return [
            Ticker(
                max(self._quoted, self._traded),
                last=_price(self._trade, "p"),
                bid=_price(self._quote, "bp"),
                bid_size=_price(self._quote, "bs") if self._sizes else None,
                ask=_price(self._quote, "ap"),
                ask_size=_price(self._quote, "as") if self._sizes else None,
            )
        ]


def _price(message: Row, name: str) -> float | None:
    """Return a number above 0; Alpaca writes 0 for a side that nobody quotes."""
    value: Any = message.get(name)
    if value is None:
        return None
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError("a price that is not a number")
    return number or None
