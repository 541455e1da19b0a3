"""What an exchange pushes: streams of bars, trades, books and tickers, and who shares them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from market.bars import Bars
from market.clock import Clock
from market.errors import ProviderUnavailable, UnknownName
from market.instrument import Listing
from market.quotes import OrderBook, Ticker
from market.timeframe import MINUTE_FRAME, SECOND_FRAME, Timeframe
from plugins.base import Trade
from plugins.ccxt_exchange.bars_tap import BarsTap
from plugins.ccxt_exchange.book_tap import BookTap
from plugins.ccxt_exchange.client import ExchangeClient
from plugins.ccxt_exchange.pump import Pump
from plugins.ccxt_exchange.push_stream import PushStream
from plugins.ccxt_exchange.tap import Tap
from plugins.ccxt_exchange.ticker_tap import TickerTap
from plugins.ccxt_exchange.trades_tap import TradesTap

T = TypeVar("T")

_PUSHED = (MINUTE_FRAME, SECOND_FRAME)

Frames = Mapping[Timeframe, str]
"""Timeframes with what ccxt calls each."""


def pushed_frames(native: Iterable[Timeframe]) -> tuple[Timeframe, ...]:
    """Return those of the *native* frames whose bars are taken as they are pushed.

    All others are built of these. Some classes of ccxt (kraken's, whitebit's) mix up two frames of
    one symbol, too; none of those has bars of seconds.
    """
    return tuple(frame for frame in native if frame in _PUSHED)


class Pushes:
    """The streams of one exchange. Who asks for the same shares one subscription.

    How many connections that takes is ccxt's to decide; one that nobody listens to is closed.
    """

    def __init__(
        self,
        client: ExchangeClient,
        *,
        name: str,
        clock: Clock,
        resolve: Callable[[Listing], Awaitable[Frames]],
    ) -> None:
        """*name* and *clock* are the provider's.

        *resolve* gives the native frames of a listing, and raises `UnknownName` for one that is
        not listed.
        """
        self._client = client
        self._name = name
        self._clock = clock
        self._resolve = resolve
        self._pumps: dict[str, Pump[Any]] = {}
        self._closed = False

    def bars(self, listing: Listing, timeframe: Timeframe) -> PushStream[Bars]:
        def tap(frames: Frames) -> Tap[Bars]:
            offered = pushed_frames(frames)
            step = timeframe.step
            if timeframe not in offered or step is None:
                known = map(str, offered)
                raise UnknownName("timeframe", str(timeframe), known, field="timeframe")
            return BarsTap(listing.symbol, frames[timeframe], step=step, clock=self._clock)

        return self._stream(listing, tap)

    def trades(self, listing: Listing) -> PushStream[Sequence[Trade]]:
        return self._stream(listing, lambda _: TradesTap(listing.symbol))

    def book(self, listing: Listing, depth: int) -> PushStream[OrderBook | None]:
        return self._stream(listing, lambda _: BookTap(listing.symbol, depth, clock=self._clock))

    def ticker(self, listing: Listing) -> PushStream[Ticker | None]:
        return self._stream(listing, lambda _: TickerTap(listing.symbol, clock=self._clock))

    async def aclose(self) -> None:
        """End all streams and close their connections."""
        self._closed = True
        await asyncio.gather(*(pump.stop() for pump in tuple(self._pumps.values())))

    def _stream(self, listing: Listing, make: Callable[[Frames], Tap[T]]) -> PushStream[T]:
        async def attach(stream: PushStream[T]) -> Pump[T]:
            tap = make(await self._resolve(listing))
            stream.reads(tap)
            pump = await self._pump(tap)
            pump.attach(stream)
            return pump

        return PushStream(attach, name=self._name)

    async def _pump(self, tap: Tap[T]) -> Pump[T]:
        """Return the pump that serves *tap*, a new one if none does."""
        while (running := self._pumps.get(tap.name)) is not None:
            if not running.ending and running.tap.serves(tap):
                return running
            # One that was wanted deeper ends here, and whoever listened to it opens another.
            await running.stop(ProviderUnavailable(self._name, "more of it is wanted at once"))
        if self._closed:
            raise ProviderUnavailable(self._name, "it was closed")
        pump = Pump(tap, self._client, name=self._name, on_end=self._forget)
        self._pumps[tap.name] = pump
        return pump

    def _forget(self, pump: Pump[Any]) -> None:
        del self._pumps[pump.tap.name]
