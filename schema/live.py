"""What subscriptions send: bars, trades, order books and tickers as clients see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar, cast

import strawberry

from datasources.live.events import FeedState, Status
from datasources.live.tail_events import RangeChanged, ResetReason, Snapshot, TailEvent, Update
from market.bars import Bars
from market.instrument import Series
from market.quotes import Level
from plugins.base import Trade
from resolvers.live import LiveEvents, Shown
from resolvers.live_quotes import BookDelta, BookEvent, BookSnapshot, TickerOf
from schema.candles import BarRows, Candle, SeriesType
from schema.scalars import Timestamp

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Presented(Generic[T, U]):
    """Live events as GraphQL shows them: each is presented once, however many see it."""

    events: LiveEvents[T]
    present: Callable[[T], U]

    @property
    def key(self) -> Hashable:
        return self.events.key

    async def __aiter__(self) -> AsyncIterator[U]:
        async for event in self.events:
            yield self.present(event)

    async def catch_up(self) -> AsyncIterator[U]:
        async for event in self.events.catch_up():
            yield self.present(event)

    def told(self, place: object) -> bool:
        return self.events.told(place)

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[U]]]:
        async with self.events.tail() as tail:
            yield self._presented(tail)

    async def _presented(self, tail: AsyncIterator[Shown[T]]) -> AsyncIterator[Shown[U]]:
        async for shown in tail:
            yield Shown(self.present(shown.event), shown.passing, shown.place)


_CURSOR = "Where to go on from here, with nothing missed: `bars(after:)`."


@strawberry.type(description="The newest bars, the running one included, oldest first.")
class BarSnapshot:
    shown: strawberry.Private[Snapshot]

    @strawberry.field(description="Which bars these are.")
    def series(self) -> SeriesType:
        return SeriesType.of(self.shown.series)

    @strawberry.field(description="At most 500 bars.")
    def candles(self) -> list[Candle]:
        return _rows(self.shown.series, self.shown.bars)

    @strawberry.field(description=_CURSOR)
    def cursor(self) -> str:
        return str(self.shown.cursor)

    @strawberry.field(
        description="Why this replaces all that was sent before: it cannot be proved that nothing "
        "was missed. Null at the start."
    )
    def reset(self) -> ResetReason | None:
        return self.shown.reset


@strawberry.type(
    description="Bars that closed, were revised or go on running. One replaces another of the same "
    "time unless it is of lower rank: (isClosed, source other than NATIVE, revision, updatedAt)."
)
class BarUpdate:
    owner: strawberry.Private[Series]
    shown: strawberry.Private[Update]

    @strawberry.field(description="The bars, oldest first.")
    def candles(self) -> list[Candle]:
        return _rows(self.owner, self.shown.bars)

    @strawberry.field(description=_CURSOR)
    def cursor(self) -> str:
        return str(self.shown.cursor)


@strawberry.type(
    name="RangeChanged",
    description="Too many bars changed to send them, or older ones than the newest 500, or some "
    "were withdrawn: read the range again when it matters.",
)
class RangeChangedType:
    since: Timestamp = strawberry.field(description="Where it begins.")
    until: Timestamp = strawberry.field(description="Where it ends, not included.")
    cursor: str = strawberry.field(description=_CURSOR)


@strawberry.type(description="How the feed behind a subscription is doing, whenever that changes.")
class FeedStatus:
    state: FeedState = strawberry.field(description="Its state.")
    at: Timestamp = strawberry.field(description="Since when, by the provider's clock.")
    message: str = strawberry.field(description="The reason in words; empty while it is live.")


BarEvent = Annotated[
    BarSnapshot | BarUpdate | RangeChangedType | FeedStatus,
    strawberry.union("BarEvent", description="What happens to the bars of a series."),
]


def bar_event(series: Series) -> Callable[[TailEvent], BarEvent]:
    """Return what presents the events of *series*."""

    def present(event: TailEvent) -> BarEvent:
        match event:
            case Snapshot():
                return BarSnapshot(shown=event)
            case Update():
                return BarUpdate(owner=series, shown=event)
            case RangeChanged(since, until, cursor):
                return RangeChangedType(
                    since=Timestamp(since), until=Timestamp(until), cursor=str(cursor)
                )
            case Status():
                return _status(event)

    return present


@strawberry.type(name="Trade", description="One execution in the market.")
class TradeType:
    id: str = strawberry.field(description="The provider's own name of it.")
    time: Timestamp = strawberry.field(description="When it happened.")
    price: float = strawberry.field(description="The price, in units of the quote.")
    amount: float = strawberry.field(description="How much was traded, in units of the base.")


def trades_of(trades: list[Trade]) -> list[TradeType]:
    return [
        TradeType(id=trade.id, time=Timestamp(trade.time), price=trade.price, amount=trade.amount)
        for trade in trades
    ]


@strawberry.type(description="The newest prices of one instrument; null is what is not told.")
class Ticker:
    symbol: str = strawberry.field(description="The provider's name of the instrument.")
    time: Timestamp = strawberry.field(description="When they were true.")
    last: float | None = strawberry.field(description="The price of the last trade.")
    bid: float | None = strawberry.field(description="The best price somebody would pay.")
    bid_size: float | None = strawberry.field(description="How much is bid at that price.")
    ask: float | None = strawberry.field(description="The best price somebody would sell at.")
    ask_size: float | None = strawberry.field(description="How much is offered at that price.")
    volume: float | None = strawberry.field(
        description="What was traded in the last 24 hours or the day, in units of the base."
    )


def ticker_of(shown: TickerOf) -> Ticker:
    state = shown.ticker
    return Ticker(
        symbol=shown.instrument.symbol,
        time=Timestamp(state.time),
        last=state.last,
        bid=state.bid,
        bid_size=state.bid_size,
        ask=state.ask,
        ask_size=state.ask_size,
        volume=state.volume,
    )


@strawberry.type(description="An amount at a price.")
class BookLevel:
    price: float = strawberry.field(description="The price, in units of the quote.")
    amount: float = strawberry.field(
        description="The amount, in units of the base; in a delta 0 removes the level."
    )


_SEQUENCE = "Grows with every state of the book; it begins anew with the server."
_SOURCE = "The exchange's own number of this state, where it gives one."
_CHECKSUM = "The exchange's own sum over this state, where it gives one."


@strawberry.type(description="The best levels of both sides, the best first.")
class OrderBookSnapshot:
    sequence: int = strawberry.field(description=_SEQUENCE)
    time: Timestamp = strawberry.field(description="When it was true.")
    bids: list[BookLevel] = strawberry.field(description="What is bid, the highest price first.")
    asks: list[BookLevel] = strawberry.field(description="What is offered, the lowest first.")
    exchange_sequence: str | None = strawberry.field(description=_SOURCE)
    checksum: str | None = strawberry.field(description=_CHECKSUM)


@strawberry.type(
    description="What turns the state of `previousSequence` into that of `sequence`. One whose "
    "`sequence` is not above that of the snapshot is over already. If none follows on the last "
    "one, subscribe anew."
)
class OrderBookDelta:
    sequence: int = strawberry.field(description=_SEQUENCE)
    previous_sequence: int = strawberry.field(description="Which state it changes.")
    time: Timestamp = strawberry.field(description="When the new state was true.")
    bids: list[BookLevel] = strawberry.field(description="Levels of the bids that changed.")
    asks: list[BookLevel] = strawberry.field(description="Levels of the asks that changed.")
    exchange_sequence: str | None = strawberry.field(description=_SOURCE)
    checksum: str | None = strawberry.field(description=_CHECKSUM)


OrderBookEvent = Annotated[
    OrderBookSnapshot | OrderBookDelta | FeedStatus,
    strawberry.union("OrderBookEvent", description="What happens to an order book."),
]


def book_event(event: BookEvent) -> OrderBookEvent:
    match event:
        case BookSnapshot(number, book):
            return OrderBookSnapshot(
                sequence=number,
                time=Timestamp(book.time),
                bids=_levels(book.bids),
                asks=_levels(book.asks),
                exchange_sequence=_long(book.sequence),
                checksum=_long(book.checksum),
            )
        case BookDelta():
            return OrderBookDelta(
                sequence=event.number,
                previous_sequence=event.previous,
                time=Timestamp(event.time),
                bids=_levels(event.bids),
                asks=_levels(event.asks),
                exchange_sequence=_long(event.sequence),
                checksum=_long(event.checksum),
            )
        case Status():
            return _status(event)


def _rows(series: Series, bars: Bars) -> list[Candle]:
    # The executor completes them in one pass, or makes objects of them if it must.
    return cast(list[Candle], BarRows(series, bars))


def _status(status: Status) -> FeedStatus:
    return FeedStatus(state=status.state, at=Timestamp(status.at), message=status.message)


def _levels(levels: tuple[Level, ...]) -> list[BookLevel]:
    return [BookLevel(price=price, amount=amount) for price, amount in levels]


def _long(number: int | None) -> str | None:
    """Return *number* as text: exchanges count past what JSON's readers hold."""
    return None if number is None else str(number)
