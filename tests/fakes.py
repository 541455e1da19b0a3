"""A provider whose market a test writes, and that counts, fails, hangs and withholds on command.

And a clock that runs by itself.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from market.bars import Bars
from market.buckets import Grid
from market.calendars import calendar
from market.clock import FixedClock
from market.errors import ProviderUnavailable
from market.instrument import Instrument, InstrumentType, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, MINUTE, Spans, Window
from plugins.base import Description, HistoryOffer, NativeFrame, Page

NATIVE_MARK = 0.5
"""Added to the volume of every native bar, so that a test sees where a bar came from."""


class TickingClock:
    """A clock that runs on from *at*, *speed* times as fast as real time, and counts *looks*.

    One that *stands* does so until `run` is called.
    """

    def __init__(self, at: int, *, speed: float = 1.0, stands: bool = False) -> None:
        self._at = at
        self._speed = speed
        self._begun = None if stands else time.monotonic()
        self.looks = 0

    def run(self) -> None:
        self._begun = time.monotonic()

    def now(self) -> int:
        self.looks += 1
        passed = 0.0 if self._begun is None else time.monotonic() - self._begun
        return self._at + int(passed * 1000 * self._speed)


@dataclass(frozen=True, slots=True)
class Row:
    """What was traded in one minute."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float
    trades: int

    def so_far(self, elapsed: int) -> Row:
        """Return what was to be seen *elapsed* ms after the opening."""
        part = min(elapsed, MINUTE) / MINUTE
        if part == 1:
            return self
        close = self.open + (self.close - self.open) * part
        return Row(
            open=self.open,
            high=max(self.open, close),
            low=min(self.open, close),
            close=close,
            volume=self.volume * part,
            vwap=self.open,
            trades=max(1, int(self.trades * part)),
        )


def row(minute: int, *, version: int = 0) -> Row:
    """Return a row that depends on the *minute* (its opening time) and *version* alone."""
    n = minute // MINUTE + version * 1_000_003
    open_, close = 100 + n * 7919 % 1009 / 8, 100 + n * 104_729 % 1013 / 8
    high, low = max(open_, close) + n % 7 / 8, min(open_, close) - n % 5 / 8
    # Not a binary fraction, so that sums show the order of their terms.
    volume = (1 + n * 31 % 97) / 10
    return Row(open_, high, low, close, volume, (high + low) / 2, 1 + n % 9)


@dataclass(slots=True)
class Market:
    """The minutes of one symbol by opening time. *late* rows show their end so many ms late."""

    rows: dict[int, Row] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, minutes: Iterable[int]) -> Market:
        return cls({minute: row(minute) for minute in minutes})

    def seen_at(self, now: int, window: Window | None = None) -> dict[int, Row]:
        """Return what the provider shows at *now* of *window*, oldest first."""
        since, until = (window.since, min(window.until, now)) if window else (-(1 << 62), now)
        seen: dict[int, Row] = {}
        for minute in sorted(minute for minute in self.rows if since <= minute < until):
            wait, elapsed = self.late.get(minute, 0), now - minute
            if wait and elapsed < MINUTE + wait:
                elapsed = min(elapsed, MINUTE // 2)
            seen[minute] = self.rows[minute].so_far(elapsed)
        return seen


@dataclass(frozen=True, slots=True)
class Call:
    """One request for a page."""

    listing: Listing
    timeframe: Timeframe
    window: Window


class FakeProvider:
    """Serves *markets* by symbol, since *offered_from*; native frames may reach further back."""

    def __init__(
        self,
        clock: FixedClock,
        markets: Mapping[str, Market],
        *,
        name: str = "fake",
        offered_from: int = 0,
        natives: Sequence[NativeFrame] = (),
        natives_from: int = 0,
        minutes: bool = True,
        page_limit: int = 1000,
        whole: bool = False,
        calendar_name: str = "24/7",
    ) -> None:
        self.markets = dict(markets)
        self.offered_from = offered_from
        self.calls: list[Call] = []
        self.firsts: list[Timeframe] = []
        self.failing: Callable[[Call], bool] = lambda call: False
        self.withheld = Spans()
        """Time of which nothing is said, as where a page was cut."""
        self.gate: asyncio.Event | None = None
        """While it is not set, every call for a page waits for it."""
        self.entered = asyncio.Event()
        """Set by every call for a page."""
        self._natives_from = natives_from
        self._clock = clock
        frames = (NativeFrame(MINUTE_FRAME, timezone=None),) if minutes else ()
        self._offer = HistoryOffer((*frames, *natives), page_limit, local=whole, whole=whole)
        self._natives = {frame.timeframe: frame for frame in natives}
        self.calendar = calendar(calendar_name)
        self._name = name

    @property
    def description(self) -> Description:
        return Description(self._name, self._name.title(), ("crypto",), "Nobody's prices")

    @property
    def clock(self) -> FixedClock:
        return self._clock

    async def symbols(self) -> Sequence[Instrument]:
        return tuple(self.instrument(symbol) for symbol in self.markets)

    def instrument(self, symbol: str) -> Instrument:
        rules = self.calendar.name
        return Instrument(self._name, "crypto", symbol, InstrumentType.SPOT, calendar=rules)

    async def aclose(self) -> None:
        """Nothing is open."""

    def history(self, instrument: Instrument) -> HistoryOffer:
        return self._offer

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        self.firsts.append(timeframe)
        call = Call(listing, timeframe, Window(since, since))
        if self.failing(call):
            raise ProviderUnavailable(self._name, "told to fail")
        first = max(since, self._reach(timeframe))
        if timeframe == MINUTE_FRAME:
            return -(-first // MINUTE) * MINUTE if first < self._clock.now() else None
        buckets = self._grid(timeframe).opening_in(Window(first, max(first, self._clock.now())))
        return int(buckets.opens[0]) if len(buckets) else None

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        call = Call(listing, timeframe, window)
        self.calls.append(call)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        # A call takes a turn of the loop, as those over a network do.
        await asyncio.sleep(0)
        if self.failing(call):
            raise ProviderUnavailable(self._name, "told to fail")
        now = self._clock.now()
        past = Window(window.since, min(window.until, now))
        offered = Spans.of(max(past.since, self._reach(timeframe)), past.until)
        bars = self._made(self.markets[listing.symbol], timeframe, past, now)
        covered = offered - self.withheld
        return Page(
            bars=bars.take(covered.contains(bars.time)),
            covered=covered,
            not_offered=Spans((past,)) - offered,
        )

    def asked(self, timeframe: Timeframe = MINUTE_FRAME) -> list[Window]:
        """Return the windows of the calls for *timeframe*, oldest call first."""
        return [call.window for call in self.calls if call.timeframe == timeframe]

    def _reach(self, timeframe: Timeframe) -> int:
        return self.offered_from if timeframe == MINUTE_FRAME else self._natives_from

    def _grid(self, timeframe: Timeframe) -> Grid:
        frame = self._natives[timeframe]
        zone = frame.timezone or self.calendar.zone
        return Grid(timeframe, zone=zone, session=frame.session, calendar=self.calendar)

    def _made(self, market: Market, timeframe: Timeframe, past: Window, now: int) -> Bars:
        if timeframe == MINUTE_FRAME:
            return to_bars(market.seen_at(now, past), now)
        grid = self._grid(timeframe)
        reach = grid.reach(past)
        opens = grid.opening_in(reach).opens.tolist()
        inside: dict[int, list[Row]] = {}
        for minute, seen in market.seen_at(now, reach).items():
            opening = opens[bisect_right(opens, minute) - 1]
            if past.since <= opening:
                inside.setdefault(opening, []).append(seen)
        made = {
            opening: Row(
                open=rows[0].open,
                high=max(r.high for r in rows),
                low=min(r.low for r in rows),
                close=rows[-1].close,
                volume=sum(r.volume for r in rows) + NATIVE_MARK,
                vwap=rows[0].vwap,
                trades=sum(r.trades for r in rows),
            )
            for opening, rows in inside.items()
        }
        return to_bars(made, now)


def to_bars(rows: Mapping[int, Row], now: int, *, flags: int = 0) -> Bars:
    """Return *rows* by opening time, oldest first, as a provider gives them."""
    return Bars.of(
        list(rows),
        [r.open for r in rows.values()],
        [r.high for r in rows.values()],
        [r.low for r in rows.values()],
        [r.close for r in rows.values()],
        [r.volume for r in rows.values()],
        vwap=[r.vwap for r in rows.values()],
        trades=[r.trades for r in rows.values()],
        updated=[min(time + MINUTE, now) for time in rows],
        flags=flags,
    )


def minutes_between(since: int, until: int, *, every: int = 1) -> range:
    """Return the openings of minutes in [since, until), *every* so many."""
    return range(-(-since // MINUTE) * MINUTE, until, every * MINUTE)


def days_before(now: int, days: float) -> int:
    """Return the full minute so many days before *now*."""
    return int(now - days * DAY) // MINUTE * MINUTE
