"""Live trades, order books and tickers, without GraphQL types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from datasources.live.events import Status
from datasources.live.fanout import Overflowed, Reader
from datasources.live.keys import FeedKey, Kind
from datasources.live.quotes import QuoteEvent
from datasources.live.quotes_feed import opening
from market.clock import Clock
from market.errors import BadInput
from market.instrument import Instrument, Listing
from market.quotes import Level, OrderBook, Ticker
from plugins.base import Trade
from resolvers.directory import Directory
from resolvers.live import Shown
from resolvers.live_bars import LiveSources

MAX_DEPTH = 100
MAX_TICKERS = 50


@dataclass(frozen=True, slots=True)
class Named:
    """An instrument in a client's words."""

    provider: str
    symbol: str
    market: str | None


@dataclass(frozen=True, slots=True)
class LiveTrades:
    """Trades as they happen; a `LiveEvents`. What is lost on the way is not told again."""

    live: LiveSources
    feed: FeedKey
    clock: Clock

    @property
    def key(self) -> Hashable:
        return ("trades", self.feed)

    async def __aiter__(self) -> AsyncIterator[Sequence[Trade]]:
        async with self.tail() as tail:
            async for shown in tail:
                yield shown.event

    async def catch_up(self) -> AsyncIterator[Sequence[Trade]]:
        """Yield nothing: trades begin with the next one."""
        return
        yield

    def told(self, place: object) -> bool:
        return False

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[Sequence[Trade]]]]:
        async with self.live.quotes.open(self.feed, self.clock) as reader:
            yield self._shown(reader)

    async def _shown(self, reader: Reader[QuoteEvent]) -> AsyncIterator[Shown[Sequence[Trade]]]:
        async for event in _unbroken(reader):
            if isinstance(event.quote, Sequence) and event.quote:
                yield Shown(event.quote)


@dataclass(frozen=True, slots=True)
class TickerOf:
    """A state of the ticker of one instrument."""

    instrument: Instrument
    ticker: Ticker


@dataclass(frozen=True, slots=True)
class LiveTickers:
    """The tickers of some instruments, each whenever it moves; a `LiveEvents`."""

    live: LiveSources
    feeds: tuple[tuple[FeedKey, Instrument], ...]
    clock: Clock

    @property
    def key(self) -> Hashable:
        return ("tickers", self.feeds)

    async def __aiter__(self) -> AsyncIterator[TickerOf]:
        async with self.tail() as tail:
            async for shown in tail:
                yield shown.event

    async def catch_up(self) -> AsyncIterator[TickerOf]:
        """Yield the newest state of each, as far as it is known."""
        for feed, instrument in self.feeds:
            newest = self.live.quotes.newest(feed)
            if newest is not None and isinstance(newest.quote, Ticker):
                yield TickerOf(instrument, newest.quote)

    def told(self, place: object) -> bool:
        return False

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[TickerOf]]]:
        shown: Reader[Shown[TickerOf]] = Reader()

        async def forward(instrument: Instrument, reader: Reader[QuoteEvent]) -> None:
            async for event in _unbroken(reader):
                if isinstance(event.quote, Ticker):
                    ticker = Shown(TickerOf(instrument, event.quote), instrument.symbol)
                    shown.put(ticker, instrument.symbol)

        async with AsyncExitStack() as stack:
            readers = [
                (
                    instrument,
                    await stack.enter_async_context(self.live.quotes.open(feed, self.clock)),
                )
                for feed, instrument in self.feeds
            ]
            tasks = [
                asyncio.create_task(forward(instrument, reader), name=f"ticker {instrument.symbol}")
                for instrument, reader in readers
            ]
            try:
                yield shown
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """The best levels of both sides; deltas with a higher number change them."""

    number: int
    book: OrderBook


@dataclass(frozen=True, slots=True)
class BookDelta:
    """Levels that changed after the state of number *previous*; an amount of 0 removes one."""

    number: int
    previous: int
    time: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    sequence: int | None
    checksum: int | None


BookEvent = BookSnapshot | BookDelta | Status


@dataclass(slots=True)
class LiveBook:
    """The best *depth* levels of a book: a snapshot, then what changes; a `LiveEvents`."""

    live: LiveSources
    feed: FeedKey
    depth: int
    clock: Clock
    reached: int = 0
    """The number of the state that the catch-up gave."""

    @property
    def key(self) -> Hashable:
        return ("book", self.feed, self.depth)

    async def __aiter__(self) -> AsyncIterator[BookEvent]:
        async with self.tail() as tail:
            async for event in self.catch_up():
                yield event
            async for shown in tail:
                if not self.told(shown.place):
                    yield shown.event

    async def catch_up(self) -> AsyncIterator[BookEvent]:
        """Yield the newest state, if one is known."""
        newest = self.live.quotes.newest(self.feed)
        if newest is not None and isinstance(newest.quote, OrderBook):
            self.reached = newest.number
            yield BookSnapshot(newest.number, cut(newest.quote, self.depth))

    def told(self, place: object) -> bool:
        return isinstance(place, int) and place <= self.reached

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[BookEvent]]]:
        async with self.live.quotes.open(self.feed, self.clock) as reader:
            yield self._shown(reader)

    async def _shown(self, reader: Reader[QuoteEvent]) -> AsyncIterator[Shown[BookEvent]]:
        # Each state is told against the one before it, so that all who see the tail can follow from
        # whichever state their catch-up gave them.
        last: BookSnapshot | None = None
        while True:
            try:
                event = await anext(reader)
            except StopAsyncIteration:
                return
            except Overflowed:
                last = None
                continue
            if event.status is not None:
                yield Shown(event.status, "status")
            if not isinstance(event.quote, OrderBook):
                continue
            if last is not None and event.number <= last.number:
                continue
            state = BookSnapshot(event.number, cut(event.quote, self.depth))
            yield Shown(state if last is None else delta(last, state), place=event.number)
            last = state


def cut(book: OrderBook, depth: int) -> OrderBook:
    """Return the best *depth* levels of each side."""
    return replace(book, bids=book.bids[:depth], asks=book.asks[:depth])


def delta(before: BookSnapshot, after: BookSnapshot) -> BookDelta:
    """Return what turns one state into the other."""
    return BookDelta(
        number=after.number,
        previous=before.number,
        time=after.book.time,
        bids=_changed(before.book.bids, after.book.bids),
        asks=_changed(before.book.asks, after.book.asks),
        sequence=after.book.sequence,
        checksum=after.book.checksum,
    )


def _changed(before: tuple[Level, ...], after: tuple[Level, ...]) -> tuple[Level, ...]:
    held, now = dict(before), dict(after)
    gone = [(price, 0.0) for price in held if price not in now]
    new = [(price, amount) for price, amount in after if held.get(price) != amount]
    return (*gone, *new)


async def live_trades(directory: Directory, live: LiveSources, named: Named) -> LiveTrades:
    """Return the trades that are meant. Raises what `Directory.instrument` does, `BadInput`."""
    feed, _, clock = await _feed(directory, Kind.TRADES, named)
    return LiveTrades(live, feed, clock)


async def live_book(directory: Directory, live: LiveSources, named: Named, depth: int) -> LiveBook:
    """Return the book that is meant. Raises what `Directory.instrument` does, `BadInput`."""
    if not 1 <= depth <= MAX_DEPTH:
        raise BadInput(f"depth must be from 1 to {MAX_DEPTH}, not {depth}.", field="depth")
    feed, _, clock = await _feed(directory, Kind.BOOK, named)
    return LiveBook(live, feed, depth, clock)


async def live_tickers(
    directory: Directory,
    live: LiveSources,
    provider: str,
    symbols: Sequence[str],
    market: str | None,
) -> LiveTickers:
    """Return the tickers that are meant. Raises what `Directory.instrument` does, `BadInput`."""
    names = list(dict.fromkeys(symbols))
    if not 1 <= len(names) <= MAX_TICKERS:
        message = f"symbols must name from 1 to {MAX_TICKERS} symbols, not {len(names)}."
        raise BadInput(message, field="symbols")
    found = [
        await _feed(directory, Kind.TICKER, Named(provider, symbol, market)) for symbol in names
    ]
    feeds = tuple((feed, instrument) for feed, instrument, _ in found)
    return LiveTickers(live, feeds, found[0][2])


async def _feed(
    directory: Directory, kind: Kind, named: Named
) -> tuple[FeedKey, Instrument, Clock]:
    instrument = await directory.instrument(named.provider, named.symbol, named.market)
    provider = directory.provider(instrument.provider)
    listing = Listing(
        instrument.provider,
        instrument.market,
        instrument.symbol,
        dataset=provider.description.dataset,
    )
    feed = FeedKey(kind, listing)
    try:
        opening(feed, provider)
    except LookupError as missing:
        raise BadInput(f"{missing}.", field="provider") from missing
    return feed, instrument, provider.clock


async def _unbroken(reader: Reader[QuoteEvent]) -> AsyncIterator[QuoteEvent]:
    """Yield what comes; where too much came at once, go on with what comes next."""
    while True:
        try:
            yield await anext(reader)
        except Overflowed:
            continue
        except StopAsyncIteration:
            return
