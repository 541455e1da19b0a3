"""A market that nobody trades on, for trying things out without a network or a recording."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from market.bars import Bars
from market.buckets import Grid
from market.calendars import calendar
from market.clock import Clock, Pace
from market.errors import UnknownName
from market.instrument import Instrument, Listing
from market.quotes import OrderBook, Ticker
from market.resample import resample
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, MINUTE, Spans, Window
from plugins.base import Description, HistoryOffer, NativeFrame, Page, Stream, Trade
from plugins.paced import PacedStream
from plugins.sim.hours import Hours
from plugins.sim.listings import LISTINGS, Simulated
from plugins.sim.quotes import Quotes, book_at, ticker_at
from plugins.sim.scripts import GrowingMinutes, NewTrades
from plugins.sim.tape import tapes
from plugins.sim.trading_hours import START

PAGE_LIMIT = 10_000
DAYS_LIMIT = 200
"""Days that one call returns: each is made of its 1,440 minutes."""
_FORMULA = 1
"""Raised when the same seed begins to give other prices: stored ones belong to their formula."""


class SimProvider:
    """Eight symbols since 2015 whose every past minute is a function of *seed*, symbol and time.

    What a minute shows is what was traded in it before now, so a forming bar grows trade by trade
    into exactly the bar it will be.
    """

    def __init__(self, *, clock: Clock, seed: int = 1) -> None:
        self._clock = clock
        self._seed = seed
        self._pace = Pace(clock)
        self._hours = Hours(seed)
        self._listings = {(one.instrument.market, one.instrument.symbol): one for one in LISTINGS}
        self._description = Description(
            name="sim",
            title="Simulated market",
            markets=("crypto", "stocks"),
            attribution="Simulated prices; no real market",
            simulated=True,
            dataset=f"{_FORMULA}-{seed}",
        )

    @property
    def description(self) -> Description:
        return self._description

    @property
    def clock(self) -> Clock:
        return self._clock

    async def symbols(self) -> Sequence[Instrument]:
        """Return the eight."""
        return tuple(one.instrument for one in self._listings.values())

    async def aclose(self) -> None:
        """Nothing is open."""

    def history(self, instrument: Instrument) -> HistoryOffer:
        """Return minutes, and days for what reaches further back than minutes are kept for."""
        self._listing(instrument)
        days = NativeFrame(DAY_FRAME, timezone=None, page_limit=DAYS_LIMIT)
        minutes = NativeFrame(MINUTE_FRAME, timezone=None)
        return HistoryOffer((minutes, days), PAGE_LIMIT, local=True)

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        """Return the first opening at or after *since* that is vouched for, from 2015 on.

        It may be without trades. None if it has not begun, or for another timeframe.
        """
        listed = self._listing(listing)
        first = -(-max(since, START) // MINUTE) * MINUTE
        if timeframe == DAY_FRAME:
            first = int(_days(listed).opening_in(Window(first, first + 2 * DAY)).opens[0])
        elif timeframe != MINUTE_FRAME:
            return None
        return first if first < self._clock.now() else None

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        """Return the minutes of *window* that had trades, or the days made of such minutes."""
        listed = self._listing(listing)
        if timeframe not in (MINUTE_FRAME, DAY_FRAME):
            raise UnknownName("timeframe", str(timeframe), ("1m", "1d"), field="timeframe")
        make = self._bars if timeframe == MINUTE_FRAME else self._day_bars
        now = self._clock.now()
        past = Window(window.since, min(window.until, now))
        return Page(
            bars=await asyncio.to_thread(make, listed, window, now),
            covered=Spans.of(max(past.since, START), past.until),
            not_offered=Spans.of(past.since, min(past.until, START)),
        )

    async def trades(self, listing: Listing, window: Window) -> Sequence[Trade]:
        """Return the trades of *window* so far."""
        listed = self._listing(listing)
        return await asyncio.to_thread(self._trades, listed, window, self._clock.now())

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        """Return minutes."""
        self._listing(instrument)
        return (MINUTE_FRAME,)

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> Stream[Bars]:
        """Push the running minute with each trade, and whole when it is over.

        A minute without trades has no bar. Raises `UnknownName`.
        """
        listed = self._listing(listing)
        if timeframe != MINUTE_FRAME:
            raise UnknownName("timeframe", str(timeframe), ("1m",), field="timeframe")
        return PacedStream(
            self._pace, Bars.empty(), lambda since: GrowingMinutes(self._hours, listed, since)
        )

    def stream_trades(self, listing: Listing) -> Stream[Sequence[Trade]]:
        """Push each trade once its millisecond is over. Raises `UnknownName`."""
        listed = self._listing(listing)
        return PacedStream[Sequence[Trade]](
            self._pace, (), lambda since: NewTrades(self._hours, listed, since)
        )

    def stream_book(self, listing: Listing, depth: int) -> Stream[OrderBook | None]:
        """Push the book twice a second while trading is on, of 200 levels a side at the most.

        Raises `UnknownName`.
        """
        listed = self._listing(listing)
        return PacedStream[OrderBook | None](
            self._pace,
            None,
            lambda _: Quotes(self._hours, listed, self._seed, lambda now: book_at(now, depth)),
        )

    def stream_ticker(self, listing: Listing) -> Stream[Ticker | None]:
        """Push the ticker twice a second while trading is on. Raises `UnknownName`."""
        listed = self._listing(listing)
        return PacedStream[Ticker | None](
            self._pace, None, lambda _: Quotes(self._hours, listed, self._seed, ticker_at)
        )

    def _bars(self, listed: Simulated, window: Window, now: int) -> Bars:
        return Bars.concat([tape.bars() for tape in tapes(listed, self._seed, window, now=now)])

    def _day_bars(self, listed: Simulated, window: Window, now: int) -> Bars:
        days = _days(listed).opening_in(Window(max(window.since, START), min(window.until, now)))
        if not len(days):
            return Bars.empty()
        minutes = self._bars(listed, Window(int(days.opens[0]), int(days.closes[-1])), now)
        return resample(minutes, days, now=now)

    def _trades(self, listed: Simulated, window: Window, now: int) -> list[Trade]:
        whole = window.aligned(MINUTE)
        found = tapes(listed, self._seed, whole, now=now)
        return [trade for tape in found for trade in tape.trades(window)]

    def _listing(self, asked: Instrument | Listing) -> Simulated:
        found = self._listings.get((asked.market, asked.symbol))
        if found is None:
            known = (symbol for _, symbol in self._listings)
            raise UnknownName("symbol", asked.symbol, known, field="symbol")
        return found


def _days(listed: Simulated) -> Grid:
    rules = calendar(listed.instrument.calendar)
    return Grid(DAY_FRAME, zone=rules.zone, calendar=rules)
