"""Providers whose streams a test directs: what they push, when they are lost, fall silent or lie.

Their history is that of `FakeProvider`, and their clock stands until it is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeVar
from uuid import uuid4

from market.bars import CLOSED, Bars
from market.clock import FixedClock
from market.errors import ProviderUnavailable
from market.instrument import Instrument, Listing
from market.quotes import OrderBook, Ticker
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, MINUTE, Window
from plugins.base import Trade
from tests.datasources.chains import NOW
from tests.fakes import FakeProvider, Market, Row, days_before, minutes_between, to_bars

T = TypeVar("T")

LISTED = days_before(NOW, 3)


class Pushed(Generic[T]):
    """One stream: a confirmation, then what the test pushes, until it is lost or closed."""

    def __init__(self, owner: Streams[T], confirmation: T | None, failure: str | None) -> None:
        self._owner = owner
        self._coming: asyncio.Queue[T | ProviderUnavailable] = asyncio.Queue()
        if failure is not None:
            self._coming.put_nowait(ProviderUnavailable("fake", failure))
        elif confirmation is not None:
            self._coming.put_nowait(confirmation)

    @property
    def drained(self) -> bool:
        """Whether all that came was read."""
        return self._coming.empty()

    def put(self, batch: T | ProviderUnavailable) -> None:
        self._coming.put_nowait(batch)

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            batch = await self._coming.get()
            if isinstance(batch, ProviderUnavailable):
                raise batch
            yield batch

    async def aclose(self) -> None:
        self._owner.open.remove(self)


class Streams(Generic[T]):
    """All streams of one provider. *confirmation* is their first batch, None for none."""

    def __init__(self, confirmation: T | None) -> None:
        self.open: list[Pushed[T]] = []
        self.opened = 0
        self.most_open = 0
        self.confirmation = confirmation
        self.refusing: str | None = None
        """While set, every new stream fails with this reason."""

    def stream(self) -> Pushed[T]:
        stream = Pushed(self, self.confirmation, self.refusing)
        self.open.append(stream)
        self.opened += 1
        self.most_open = max(self.most_open, len(self.open))
        return stream

    def push(self, batch: T) -> None:
        for stream in self.open:
            stream.put(batch)

    def lose(self, reason: str = "cut off") -> None:
        for stream in self.open:
            stream.put(ProviderUnavailable("fake", reason))


class _Fake(FakeProvider):
    """One symbol with a trade in every minute."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        market = Market.of(minutes_between(LISTED, NOW + 2 * DAY))
        given = {"offered_from": LISTED, "page_limit": 1_000}
        super().__init__(clock, {uuid4().hex: market}, **(given | others))  # type: ignore[arg-type]

    @property
    def market(self) -> Market:
        (market,) = self.markets.values()
        return market

    def seen(self, minute: int, *, flags: int = 0) -> Bars:
        """Return the bar of *minute* as it is to be seen now; none if nothing was traded."""
        rows = self.market.seen_at(self.clock.now(), Window(minute, minute + MINUTE))
        return to_bars(rows, self.clock.now(), flags=flags)


class Polled(_Fake):
    """A provider that pushes nothing."""


class PushesBars(_Fake):
    """A provider that pushes minutes."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        super().__init__(clock, **others)
        self.streams: Streams[Bars] = Streams(Bars.empty())
        self._runs: dict[Pushed[Bars], int] = {}
        """The minute that each stream has not told the end of."""

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        return (MINUTE_FRAME,)

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> Pushed[Bars]:
        stream = self.streams.stream()
        self._runs[stream] = self.clock.now() // MINUTE * MINUTE
        return stream

    def tick(self, at: int, *, closing: bool = True) -> None:
        """Set the clock, and push as an exchange does: what closed by then, and what runs.

        Minutes that are over are marked closed if *closing*.
        """
        self.clock.at = at
        running = at // MINUTE * MINUTE
        for stream in self.streams.open:
            for minute in range(self._runs[stream], running, MINUTE):
                stream.put(self.seen(minute, flags=CLOSED if closing else 0))
            stream.put(self.seen(running))
            self._runs[stream] = running

    def push_row(self, minute: int, row: Row, *, flags: int = 0) -> None:
        self.streams.push(to_bars({minute: row}, self.clock.now(), flags=flags))


class PushesTrades(_Fake):
    """A provider that pushes trades, and has those of the past."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        super().__init__(clock, **others)
        self.streams: Streams[Sequence[Trade]] = Streams(())
        self.executed: list[Trade] = []

    async def trades(self, listing: Listing, window: Window) -> Sequence[Trade]:
        now = self.clock.now()
        until = min(window.until, now + 1)
        return [trade for trade in self.executed if window.since <= trade.time < until]

    def stream_trades(self, listing: Listing) -> Pushed[Sequence[Trade]]:
        return self.streams.stream()

    def execute(self, at: int, price: float, amount: float) -> None:
        """Set the clock to *at*, and let somebody trade then."""
        self.clock.at = max(at, self.clock.at)
        trade = Trade(str(len(self.executed)), at, price, amount)
        self.executed.append(trade)
        self.streams.push([trade])


class PushesQuotes(_Fake):
    """A provider that pushes order books, tickers and trades."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        super().__init__(clock, **others)
        self.books: Streams[OrderBook | None] = Streams(None)
        self.tickers: Streams[Ticker | None] = Streams(None)
        self.trades_made: Streams[Sequence[Trade]] = Streams(())

    def stream_book(self, listing: Listing, depth: int) -> Pushed[OrderBook | None]:
        return self.books.stream()

    def stream_ticker(self, listing: Listing) -> Pushed[Ticker | None]:
        return self.tickers.stream()

    def stream_trades(self, listing: Listing) -> Pushed[Sequence[Trade]]:
        return self.trades_made.stream()
