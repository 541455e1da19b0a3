"""Alpaca behind the provider contract: its symbols, their past, and its streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from market.bars import Bars
from market.buckets import Grid
from market.calendars import calendar
from market.clock import Clock
from market.errors import BadInput, ProviderUnavailable, UnknownName
from market.instrument import Adjustment, Instrument, Listing
from market.quotes import OrderBook, Ticker
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import HOUR, MINUTE, Window
from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.client import AlpacaClient
from plugins.alpaca.instruments import CRYPTO, STOCKS, STREAMED_FEEDS, instruments_of, offer_of
from plugins.alpaca.line import Line
from plugins.alpaca.reading import Reader, Source
from plugins.alpaca.seat import Seat
from plugins.alpaca.streams import LiveStream, bars_seat, book_seat, ticker_seat, trades_seat
from plugins.alpaca.switchboard import Switchboard
from plugins.base import Description, HistoryOffer, NativeFrame, Page, Stream, Trade
from plugins.budget import Sleep

NAME = "alpaca"
SYMBOLS_AGE = HOUR
"""How old the list of symbols may become."""
_TRY_AGAIN = MINUTE

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What Alpaca lists by market and symbol, as of *at*."""

    instruments: Mapping[tuple[str, str], Instrument]
    at: int


class AlpacaProvider:
    """US stocks and crypto of one account.

    Nothing is imported and no connection made before the first call. Make one object an account
    and process: it holds the budget of calls and the connections that everyone must share.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        clock: Clock,
        feed: str = "iex",
        addresses: Addresses | None = None,
        timeout: float = 10.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*feed* is that of stocks where a listing names none; *timeout* in seconds."""
        self._description = Description(
            name=NAME,
            title="Alpaca",
            markets=(STOCKS, CRYPTO),
            attribution=f"Prices from Alpaca; those of stocks from its {feed.upper()} feed",
            # The exchanges' terms: for the holder of the account.
            shareable=False,
            # Without a feed of its own, what is stored belongs to this one.
            dataset=feed,
        )
        self._clock = clock
        self._feed = feed
        addresses = addresses or Addresses()
        self._client = AlpacaClient(
            NAME, keys, addresses, clock=clock, timeout=timeout, sleep=sleep
        )
        self._reader = Reader(NAME, self._client, clock=clock)
        self._switchboard = Switchboard(NAME, keys, addresses, seconds=timeout)
        self._listed: _Listed | None = None
        self._listing: asyncio.Task[_Listed] | None = None
        self._list_again_at = 0

    @property
    def description(self) -> Description:
        return self._description

    @property
    def clock(self) -> Clock:
        return self._clock

    async def symbols(self) -> Sequence[Instrument]:
        """Return what is active and tradable, stocks first, at most `SYMBOLS_AGE` old.

        An older list goes on to be served while Alpaca does not give a newer one.
        Raises `ProviderUnavailable` where there is none at all.
        """
        return tuple((await self._ready()).values())

    async def aclose(self) -> None:
        """Close the connections; who listens is told."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        await self._switchboard.aclose()
        await self._client.aclose()

    def history(self, instrument: Instrument) -> HistoryOffer:
        """Return frames, and for stocks the feeds and adjustments.

        Whether the account's data subscription includes a feed, only asking tells.
        """
        return offer_of(instrument.market)

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        """Return the opening time of the oldest bar at or after *since*, in one call.

        A timeframe that is not offered has none. Raises `ProviderUnavailable`, `UnknownName`.
        """
        instrument = await self._instrument(listing)
        frame = _native(instrument, timeframe)
        if frame is None:
            return None
        source = self._source(listing)
        return await self._reader.first_time(source, timeframe, _grid(frame, instrument), since)

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        """Return the bars of *window*, updated at their close, a forming one when it was asked for.

        The running minute has none yet, and longer running bars end with the last whole minute. For
        what has just ended nothing is vouched. Without an adjustment they are raw.
        Raises `ProviderUnavailable`, `UnknownName`.
        """
        instrument = await self._instrument(listing)
        frame = _native(instrument, timeframe)
        if frame is None:
            names = [str(each.timeframe) for each in self.history(instrument).frames]
            raise UnknownName("timeframe", str(timeframe), names, field="timeframe")
        source = self._source(listing)
        return await self._reader.bars(source, timeframe, _grid(frame, instrument), window)

    async def trades(self, listing: Listing, window: Window) -> Sequence[Trade]:
        """Return every trade of *window* so far, without those that were withdrawn.

        Raises `ProviderUnavailable`, `UnknownName`.
        """
        await self._instrument(listing)
        return await self._reader.trades(self._source(listing), window)

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        """Return the minute: Alpaca pushes it when it is over."""
        return (MINUTE_FRAME,)

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> Stream[Bars]:
        """Push each minute closed, once when it is over and again where it was corrected."""
        if timeframe != MINUTE_FRAME:
            raise UnknownName("timeframe", str(timeframe), ("1m",), field="timeframe")
        return self._stream(listing, bars_seat(NAME, listing.symbol, clock=self._clock))

    def stream_trades(self, listing: Listing) -> Stream[Sequence[Trade]]:
        """Push every trade that Alpaca reports."""
        return self._stream(listing, trades_seat(NAME, listing.symbol))

    def stream_ticker(self, listing: Listing) -> Stream[Ticker | None]:
        """Push the newest quote and trade. The unit of a stock's sizes is not told: none are."""
        sizes = listing.market == CRYPTO
        return self._stream(listing, ticker_seat(NAME, listing.symbol, sizes=sizes))

    def stream_book(self, listing: Listing, depth: int) -> Stream[OrderBook | None]:
        """Push the book of a crypto pair. Raises `BadInput` for stocks, which have none here."""
        if listing.market != CRYPTO:
            raise BadInput(f"{NAME} has order books of crypto only.", field="market")
        return self._stream(listing, book_seat(NAME, listing.symbol, depth))

    def _stream(self, listing: Listing, seat: Seat[T]) -> LiveStream[T]:
        return LiveStream(seat, self._joining(listing))

    def _joining(self, listing: Listing) -> Callable[[Seat[T]], Awaitable[Line]]:
        async def join(seat: Seat[T]) -> Line:
            await self._instrument(listing)
            feed = self._source(listing).feed
            if feed is not None and feed not in STREAMED_FEEDS:
                raise UnknownName("streamed feed", feed, STREAMED_FEEDS, field="feed")
            return await self._switchboard.join(feed, seat)

        return join

    def _source(self, listing: Listing) -> Source:
        if listing.market == CRYPTO:
            return Source(CRYPTO, listing.symbol)
        adjustment = listing.adjustment or Adjustment.RAW
        return Source(STOCKS, listing.symbol, listing.feed or self._feed, adjustment.value)

    async def _instrument(self, listing: Listing) -> Instrument:
        """Raises `UnknownName`, `ProviderUnavailable`."""
        instruments = await self._ready()
        found = instruments.get((listing.market, listing.symbol))
        if found is None:
            known = (symbol for market, symbol in instruments if market == listing.market)
            raise UnknownName("symbol", listing.symbol, known, field="symbol")
        return found

    async def _ready(self) -> Mapping[tuple[str, str], Instrument]:
        """Return what is listed, read anew when old. Callers share one reading, and may leave."""
        now = self._clock.now()
        if self._listed is None or now >= max(self._listed.at + SYMBOLS_AGE, self._list_again_at):
            if self._listing is None:
                self._listing = asyncio.create_task(self._list())
            try:
                return (await asyncio.shield(self._listing)).instruments
            except ProviderUnavailable:
                if self._listed is None:
                    raise
        return self._listed.instruments

    async def _list(self) -> _Listed:
        instruments: dict[tuple[str, str], Instrument] = {}
        try:
            for market in (STOCKS, CRYPTO):
                assets = await self._client.assets(market)
                for one in instruments_of(assets, provider=NAME, market=market):
                    instruments[market, one.symbol] = one
        except (KeyError, TypeError) as error:
            self._list_again_at = self._clock.now() + _TRY_AGAIN
            raise ProviderUnavailable(NAME, "its answer could not be read") from error
        except ProviderUnavailable as error:
            self._list_again_at = self._clock.now() + _TRY_AGAIN
            log.warning("symbols not read: %s", error)
            raise
        finally:
            self._listing = None
        self._listed = _Listed(instruments, self._clock.now())
        return self._listed


def _native(instrument: Instrument, timeframe: Timeframe) -> NativeFrame | None:
    frames = offer_of(instrument.market).frames
    return next((frame for frame in frames if frame.timeframe == timeframe), None)


def _grid(frame: NativeFrame, instrument: Instrument) -> Grid:
    rules = calendar(instrument.calendar)
    return Grid(frame.timeframe, zone=frame.timezone or rules.zone, calendar=rules)
