"""Books, tickers and trades reach viewers as they are at the provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasources.live.events import FeedState, Status
from datasources.live.keys import FeedKey, Kind
from market.clock import FixedClock
from market.quotes import Level, OrderBook, Ticker
from plugins.base import Trade
from resolvers.live_quotes import (
    BookDelta,
    BookEvent,
    BookSnapshot,
    LiveBook,
    LiveTickers,
    LiveTrades,
    TickerOf,
    cut,
    delta,
)
from tests.datasources.chains import NOW, listing_of, on_embedded
from tests.datasources.live.processes import Process, ProcessOpener, until
from tests.datasources.live.streaming import PushesQuotes

levels = st.dictionaries(st.integers(1, 12).map(float), st.integers(1, 4).map(float), max_size=10)
books = st.builds(
    lambda bids, asks: OrderBook(
        NOW, tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items()))
    ),
    levels,
    levels,
)


class Held:
    """A book as a client keeps it: a snapshot, and what changed since."""

    def __init__(self) -> None:
        self.number = 0
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.states: list[Status] = []

    def take(self, event: BookEvent) -> None:
        match event:
            case BookSnapshot(number, book):
                self.number, self.bids, self.asks = number, dict(book.bids), dict(book.asks)
            case BookDelta():
                assert event.previous == self.number
                self.number = event.number
                for side, changed in ((self.bids, event.bids), (self.asks, event.asks)):
                    for price, amount in changed:
                        side.pop(price, None)
                        if amount:
                            side[price] = amount
            case Status():
                self.states.append(event)

    @property
    def book(self) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        return (
            tuple(sorted(self.bids.items(), reverse=True)),
            tuple(sorted(self.asks.items())),
        )


@given(states=st.lists(books, min_size=1, max_size=8), depth=st.integers(1, 12))
def test_deltas_applied_to_the_snapshot_are_the_book(states: list[OrderBook], depth: int) -> None:
    held = Held()
    cuts = [BookSnapshot(n, cut(book, depth)) for n, book in enumerate(states, start=1)]
    held.take(cuts[0])

    for before, after in pairwise(cuts):
        change = delta(before, after)
        held.take(change)

        assert held.book == (after.book.bids, after.book.asks)
        # Nothing is told that did not change.
        assert all((price, amount) not in before.book.bids for price, amount in change.bids)
        assert all((price, amount) not in before.book.asks for price, amount in change.asks)


@pytest.fixture
def provider() -> PushesQuotes:
    return PushesQuotes(FixedClock(NOW))


def key_of(process: Process, kind: Kind) -> FeedKey:
    return FeedKey(kind, listing_of(process.instrument))


@asynccontextmanager
async def following(events: Any, take: Callable[[Any], None]) -> AsyncIterator[None]:
    """Give each of *events* to *take* for as long as the block runs."""

    async def follow() -> None:
        async for event in events:
            take(event)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()


def book(n: int) -> OrderBook:
    """Return the n-th state of a book that moves."""
    bids = tuple((100.0 - (n + i) % 17 - i * 17, 1.0 + (n * i) % 5) for i in range(6))
    asks = tuple((101.0 + (n + i) % 13 + i * 13, 2.0 + (n + i) % 3) for i in range(6))
    return OrderBook(NOW + n, bids, asks, sequence=n)


@on_embedded
async def test_viewers_of_a_book_hold_what_the_provider_has(
    provider: PushesQuotes, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process:
        feed = key_of(process, Kind.BOOK)
        first, late = Held(), Held()
        shallow = LiveBook(process.sources, feed, 3, provider.clock)
        async with following(LiveBook(process.sources, feed, 6, provider.clock), first.take):
            await until(lambda: provider.books.open)
            for n in range(1, 20):
                provider.books.push(book(n))
            await until(lambda: first.book == (book(19).bids, book(19).asks))
            async with following(shallow, late.take):
                await until(lambda: late.number)
                for n in range(20, 40):
                    provider.books.push(book(n))

                await until(lambda: first.book == (book(39).bids, book(39).asks))
                await until(lambda: late.book == (book(39).bids[:3], book(39).asks[:3]))

    assert provider.books.most_open == 1


@on_embedded
async def test_whoever_joins_a_shared_tail_follows_from_its_own_catch_up(
    provider: PushesQuotes, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process:
        feed = key_of(process, Kind.BOOK)
        shared = LiveBook(process.sources, feed, 6, provider.clock)
        joining = LiveBook(process.sources, feed, 6, provider.clock)
        held = Held()
        async with shared.tail() as tail:
            await until(lambda: provider.books.open)
            provider.books.push(book(1))
            held.take(await _next_state(tail))
            # The tail is not read while the book goes on.
            for n in range(2, 6):
                provider.books.push(book(n))
                await until(lambda n=n: _newest(process, feed) == n)
            caught_up = Held()
            async for event in joining.catch_up():
                caught_up.take(event)
            assert caught_up.book == (book(5).bids, book(5).asks)
            provider.books.push(book(6))
            await until(lambda: _newest(process, feed) == 6)

            while held.number < _number(process, feed):
                shown = await anext(tail)
                held.take(shown.event)
                if not joining.told(shown.place):
                    caught_up.take(shown.event)

    assert held.book == caught_up.book == (book(6).bids, book(6).asks)


async def _next_state(tail: Any) -> BookEvent:
    async for shown in tail:
        if not isinstance(shown.event, Status):
            return shown.event  # type: ignore[no-any-return]  # a tail of a book
    raise AssertionError("the tail ended")


def _newest(process: Process, feed: FeedKey) -> int | None:
    """Return the provider's number of the newest state that came."""
    newest = process.sources.quotes.newest(feed)
    return newest.quote.sequence if newest and isinstance(newest.quote, OrderBook) else None


def _number(process: Process, feed: FeedKey) -> int:
    newest = process.sources.quotes.newest(feed)
    return newest.number if newest else 0


@on_embedded
async def test_a_book_whose_stream_is_lost_says_so_and_goes_on(
    provider: PushesQuotes, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process:
        held = Held()
        feed = key_of(process, Kind.BOOK)
        async with following(LiveBook(process.sources, feed, 6, provider.clock), held.take):
            await until(lambda: provider.books.open)
            provider.books.push(book(1))
            await until(lambda: held.number)
            provider.books.refusing = "down"
            provider.books.lose()
            await until(lambda: FeedState.DISCONNECTED in [s.state for s in held.states])
            provider.books.refusing = None
            await until(lambda: provider.books.opened > 1 and provider.books.open)
            provider.books.push(book(2))

            await until(lambda: held.book == (book(2).bids, book(2).asks))


@on_embedded
async def test_a_ticker_shows_the_newest_state_to_everybody(
    provider: PushesQuotes, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process:
        feeds = ((key_of(process, Kind.TICKER), process.instrument),)
        one: list[TickerOf] = []
        late: list[TickerOf] = []
        async with following(LiveTickers(process.sources, feeds, provider.clock), one.append):
            await until(lambda: provider.tickers.open)
            for n in range(50):
                provider.tickers.push(Ticker(NOW + n, last=float(n)))
            await until(lambda: one and one[-1].ticker.last == 49.0)
            async with following(LiveTickers(process.sources, feeds, provider.clock), late.append):
                await until(lambda: late)

    assert late[0].ticker == Ticker(NOW + 49, last=49.0)
    assert len(one) <= 50
    assert [shown.ticker.time for shown in one] == sorted({shown.ticker.time for shown in one})


@on_embedded
async def test_every_trade_is_told_once_and_in_order(
    provider: PushesQuotes, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as one, open_process(provider) as other:
        seen: list[Trade] = []
        elsewhere: list[Trade] = []
        first = LiveTrades(one.sources, key_of(one, Kind.TRADES), provider.clock)
        second = LiveTrades(other.sources, key_of(other, Kind.TRADES), provider.clock)
        async with following(first, seen.extend), following(second, elsewhere.extend):
            await until(lambda: provider.trades_made.open)
            # Both listen once a first trade has come to each.
            warm = [Trade("warm", NOW, 1.0, 1.0)]
            while not (seen and elsewhere):
                provider.trades_made.push(warm)
                await asyncio.sleep(0.01)
            made = [Trade(str(n), NOW + n, 1.0 + n, 2.0) for n in range(3_000)]
            for n in range(0, 3_000, 7):
                provider.trades_made.push(made[n : n + 7])

            await until(lambda: seen[-1] == elsewhere[-1] == made[-1])

    assert [trade for trade in seen if trade.id != "warm"] == made
    assert [trade for trade in elsewhere if trade.id != "warm"] == made
    assert provider.trades_made.most_open == 1


async def test_trades_that_a_stream_begins_with_again_are_not_told_twice(
    provider: PushesQuotes, open_process: ProcessOpener
) -> None:
    made = [Trade(str(n), NOW + n, 1.0 + n, 2.0) for n in range(6)]
    async with open_process(provider) as process:
        seen: list[Trade] = []
        trades = LiveTrades(process.sources, key_of(process, Kind.TRADES), provider.clock)
        async with following(trades, seen.extend):
            await until(lambda: provider.trades_made.open)
            while not seen:
                provider.trades_made.push([Trade("warm", NOW, 1.0, 1.0)])
                await asyncio.sleep(0.01)
            provider.trades_made.push(made[:4])
            await until(lambda: seen[-1] == made[3])
            opened = provider.trades_made.opened

            provider.trades_made.lose()
            await until(lambda: provider.trades_made.opened > opened)
            provider.trades_made.push(made[2:])

            await until(lambda: seen[-1] == made[-1])

    assert [trade for trade in seen if trade.id != "warm"] == made
