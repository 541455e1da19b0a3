"""What a provider is: a small core everyone has, and capabilities that only some have.

The core never blocks the event loop and touches the network only when asked for symbols or bars.
A capability is a protocol of its own; `isinstance` asks whether a provider can do it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from market.bars import Bars
from market.clock import Clock
from market.instrument import Adjustment, Instrument, Listing, Session
from market.quotes import OrderBook, Ticker
from market.timeframe import Timeframe
from market.window import Spans, Window

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Description:
    """What a provider says of itself before anything is asked of it."""

    name: str
    title: str
    markets: tuple[str, ...]
    attribution: str
    """Who the prices come from, in words that may be shown beside a chart."""
    shareable: bool = True
    """Whether what it says to one user may be shown to another."""
    simulated: bool = False
    dataset: str = ""
    """Part of every `Listing` of this provider; see there."""


@dataclass(frozen=True, slots=True)
class NativeFrame:
    """A timeframe the provider serves itself, and the grid its bars stand on.

    *timezone* is where days begin; None means the instrument's own calendar zone.
    """

    timeframe: Timeframe
    timezone: str | None = "UTC"
    session: Session = Session.ALL
    page_limit: int | None = None
    """Bars of this frame that one call returns at the most, where it is not the offer's limit."""


@dataclass(frozen=True, slots=True)
class HistoryOffer:
    """What of an instrument's past can be asked for."""

    frames: tuple[NativeFrame, ...]
    page_limit: int
    """Bars one call returns at the most."""
    local: bool = False
    """Asking costs no network: two processes may as well both ask."""
    whole: bool = False
    """Everything offered is at hand already, so nothing limits how much is asked for."""
    adjustments: tuple[Adjustment, ...] = ()
    feeds: tuple[str, ...] = ()

    def page_of(self, timeframe: Timeframe) -> int:
        """Return how many bars of *timeframe* one call returns at the most."""
        limits = (frame.page_limit for frame in self.frames if frame.timeframe == timeframe)
        return next(limits, None) or self.page_limit


@dataclass(frozen=True, slots=True)
class Page:
    """What one call for history returned.

    *covered* is what the provider vouches for: inside it, a time without a bar had no trades. What
    was asked for and is not covered is unknown (`not_offered` says which of it can never be had).
    Bars are oldest first, opened inside the window asked for, not flagged closed or open: the
    caller decides that by the provider's clock at the moment before the call.
    """

    bars: Bars
    covered: Spans
    not_offered: Spans = field(default_factory=Spans)


@dataclass(frozen=True, slots=True)
class Trade:
    """One execution in the market. *time* in milliseconds since the epoch, UTC."""

    id: str
    time: int
    price: float
    amount: float


class Provider(Protocol):
    """The core: who it is, what time it has, what it lists."""

    @property
    def description(self) -> Description: ...

    @property
    def clock(self) -> Clock:
        """The provider's own now: what is forming, and what `last` counts back from."""
        ...

    async def symbols(self) -> Sequence[Instrument]:
        """Return everything listed, in a stable order.

        Raises `ProviderUnavailable`.
        """
        ...

    async def aclose(self) -> None:
        """Give back what was opened. Called once, also after a failure."""
        ...


@runtime_checkable
class History(Protocol):
    """The capability to return past bars."""

    def history(self, instrument: Instrument) -> HistoryOffer:
        """Return what of *instrument*'s past can be asked for. No input or output."""
        ...

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        """Return the oldest opening time at or after *since* that is vouched for, None if none is.

        Raises `ProviderUnavailable`.
        """
        ...

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        """Return the bars of *window*, in one call to the provider or as few as it takes.

        A bar that is still forming at the provider is included. The callers keep the window within
        `page_limit` bars. Raises `ProviderUnavailable`, and of it `ImpossibleAnswer` for bars that
        cannot be true.
        """
        ...


@runtime_checkable
class TradesHistory(Protocol):
    """The capability to return past trades, from which bars under a minute are built."""

    async def trades(self, listing: Listing, window: Window) -> Sequence[Trade]:
        """Return every trade of *window*, oldest first. Raises `ProviderUnavailable`."""
        ...


class Stream(Protocol[T_co]):
    """What a provider pushes, batch by batch, until it fails or is closed.

    The first batch may be empty: it says that the provider has confirmed the subscription. Where a
    provider never confirms, the first batch is its first message. A lost connection raises
    `ProviderUnavailable`; whoever listens decides when to open another stream, and what to ask of
    the past. Nothing is repeated and nothing is left out between two batches of one stream.
    """

    def __aiter__(self) -> AsyncIterator[T_co]: ...

    async def aclose(self) -> None:
        """End the subscription at the provider. Called once, also after a failure."""
        ...


@runtime_checkable
class StreamsBars(Protocol):
    """The capability to push bars as they grow and close."""

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        """Return the timeframes whose bars are pushed; they stand on the grids of `history`."""
        ...

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> Stream[Bars]:
        """Push bars as they are at the provider: whole bars, not only what was traded since.

        Marked CLOSED are those that the provider itself calls final; a bar may come again after
        that, corrected. One that is not marked closed grows until the next opens.
        """
        ...


@runtime_checkable
class StreamsTrades(Protocol):
    """The capability to push trades as they happen."""

    def stream_trades(self, listing: Listing) -> Stream[Sequence[Trade]]:
        """Push every trade once, in the order of the provider."""
        ...


@runtime_checkable
class StreamsBooks(Protocol):
    """The capability to push the order book."""

    def stream_book(self, listing: Listing, depth: int) -> Stream[OrderBook | None]:
        """Push whole states of at least *depth* levels a side, where there are as many.

        None stands for the empty batch. A state is whole and true: a provider that sends deltas
        keeps the book here, checks it where a checksum is given, and begins anew after a hole.
        """
        ...


@runtime_checkable
class StreamsTickers(Protocol):
    """The capability to push the newest prices."""

    def stream_ticker(self, listing: Listing) -> Stream[Ticker | None]:
        """Push whole states; None stands for the empty batch."""
        ...
