"""The one upstream of a base's bars: joins the stream to history, stores what closes, tells it.

A bar is final once its provider says so, a later one has opened, or it is over and nothing came of
it for a moment. It is stored before it is told as closed. What was open when the stream was joined
may be half a bar there, so its end is read from history; and some minutes after its close every
bar is read from history once more, because providers correct and trades come late.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from datasources.aggregates import head_of, key_of
from datasources.ask import Ask
from datasources.compose import closed_hours
from datasources.fetching import Fetched, Fetcher
from datasources.found import Base, Head
from datasources.health import HealthBoard
from datasources.live.announcer import Announcer
from datasources.live.events import FeedState
from datasources.live.growing import GrowingBars
from datasources.live.trade_bars import TradeBars
from datasources.live.upstream import Joined, Lost, Upstream
from datasources.live.writer import BatchWriter
from db.candles import CandleStore
from db.stored import SeriesState, Write, Written
from market.bars import CLOSED, Bars
from market.calendars import calendar
from market.errors import InvalidBars, StoreUnavailable
from market.instrument import Series, Session
from market.window import Spans, Window
from plugins.base import Stream, StreamsBars, StreamsTrades

log = logging.getLogger(__name__)

_FORMING_PAUSE = 0.2
"""Seconds between two tellings of a running bar."""
_LATE = 2.0
"""Seconds after its close in which the end of a bar may still come."""
_LATE_LOCAL = 0.25
"""The same for a provider that is at hand."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 1.0
"""Seconds until the provider's clock is read again: it may run faster than ours."""
_POLLS = (2.0, 3.0, 5.0, 10.0)
"""Seconds after a close at which a bar is asked for that no stream pushes, until it is there."""
_SETTLE_PAUSE = 300.0
_SETTLE_PAUSE_LOCAL = 60.0
_RETRY = 1.0
_HELD = 10_000
"""Closed bars kept while the store is away; the oldest of more are read from history later."""
_CATCH_UP_CHUNKS = 5
"""Pages that one look back reads at the most, the newest first."""


@dataclass(frozen=True, slots=True)
class FeedTools:
    """What all feeds of a process share. *settle* in ms; *moved* tells the cache of a write."""

    store: CandleStore
    writer: BatchWriter
    fetcher: Fetcher
    health: HealthBoard
    moved: Callable[[Mapping[Base, Head]], Awaitable[None]]
    settle: int


class BarsFeed:
    """Feeds one base under one lease until cancelled, or until the lease is lost."""

    def __init__(self, ask: Ask, tools: FeedTools, announcer: Announcer) -> None:
        self._ask = ask
        self._tools = tools
        self._announcer = announcer
        self._provider = ask.provider.description.name
        self._clock = ask.provider.clock
        self._looks = ask.offer is not None or ask.from_trades
        local = ask.offer is not None and ask.offer.local
        self._late = _LATE_LOCAL if local else _LATE
        self._settle_pause = _SETTLE_PAUSE_LOCAL if local else _SETTLE_PAUSE
        self._wake = asyncio.Event()
        self._upstream = self._open_upstream()
        self._growing = GrowingBars()
        base = ask.base
        self._whole_day = Series(base.listing, base.timeframe, calendar=ask.instrument.calendar)
        self._held = Bars.empty()
        self._held_since = 0
        self._written: Written | None = None
        self._noted: SeriesState | None = None
        self._look_due = False
        self._over: tuple[float, int] | None = None
        """Since when, by our loop, the clock has been past the bars that open before a time."""
        self._polled = 0
        self._told = (-1, Bars.empty())
        now = _loop_time()
        self._settle_at = now + self._settle_pause
        self._retry_at = self._tell_at = now

    def note(self, state: SeriesState | None) -> None:
        """Take in where the store says the base stands; what is new is announced soon."""
        if self._announcer.behind(state):
            self._noted = state
            self._wake.set()

    @property
    def held(self) -> int:
        """How many closed bars wait for the store to come back."""
        return len(self._held)

    def head(self) -> tuple[str, bytes]:
        """Return the channel, and the event that repeats where the feed stands."""
        return self._announcer.head()

    async def run(self) -> None:
        """Feed. Raises `LeaseLost`; is ended by being cancelled."""
        await self._begin()
        async with asyncio.TaskGroup() as tasks:
            if self._upstream is None:
                self._look_due = self._looks
            else:
                tasks.create_task(self._upstream.run(), name=f"upstream {self._name}")
            while True:
                await self._step()

    @property
    def _name(self) -> str:
        base = self._ask.base
        return f"{self._provider} {base.listing.symbol} {base.timeframe}"

    def _open_upstream(self) -> Upstream[Bars] | None:
        base, provider = self._ask.base, self._ask.provider
        opening: Callable[[], Stream[Bars]]
        if isinstance(provider, StreamsBars) and base.timeframe in provider.streamed_frames(
            self._ask.instrument
        ):
            opening = partial(provider.stream_bars, base.listing, base.timeframe)
        elif isinstance(provider, StreamsTrades) and not base.native:
            streams = provider
            grid = self._ask.grid

            def opening() -> Stream[Bars]:
                return TradeBars(self._provider, streams.stream_trades(base.listing), grid)
        else:
            return None
        return Upstream(self._name, opening, quiet=self._market_closed, wake=self._wake)

    def _market_closed(self) -> bool:
        rules = calendar(self._ask.instrument.calendar)
        if rules.around_the_clock:
            return False
        now = self._clock.now()
        return not rules.open_spans(Window(now, now + 1), Session.EXTENDED)

    async def _begin(self) -> None:
        """Find out up to where bars were told before, and go on from there."""
        now = self._clock.now()
        told = self._ask.closed_until(now - self._tools.settle)
        self._noted = await self._state()
        if self._looks and self._noted is not None and self._noted.known:
            # A holder before us, or a fetch, came this far; what follows is read from history.
            told = min(told, self._noted.known.hull.until)
        self._announcer.told_from = self._announcer.told = told
        self._growing.final_before = told

    async def _step(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience()):
                await self._wake.wait()
        self._wake.clear()
        await self._take_pushed()
        now = _loop_time()
        if now >= self._retry_at:
            if len(self._held):
                await self._close(Bars.empty())
            if self._look_due:
                await self._look()
        await self._close_late(now)
        if now >= self._settle_at and self._looks:
            self._settle_at = now + self._settle_pause
            await self._settle()
        await self._announce()

    def _patience(self) -> float:
        """Return for how many seconds there is nothing to do unless something is pushed."""
        now = _loop_time()
        if self._look_due or len(self._held) or self._noted is not None:
            return max(0.0, min(self._retry_at - now, _LONGEST_WAIT))
        if self._untold():
            return max(0.0, self._tell_at - now)
        if self._over is not None:
            return max(0.0, min(self._over[0] + self._lateness() - now, _LONGEST_WAIT))
        running = self._ask.grid.at(self._clock.now())
        left = (running.until - self._clock.now()) / 1000 if running else _LONGEST_WAIT
        return min(max(left, _SHORTEST_WAIT), _LONGEST_WAIT)

    async def _take_pushed(self) -> None:
        if self._upstream is None:
            return
        for _ in range(self._upstream.pushed.qsize()):
            pushed = self._upstream.pushed.get_nowait()
            if isinstance(pushed, Joined):
                await self._say(FeedState.CATCHING_UP, "Reading what was missed from history.")
                self._doubt_running()
                self._look_due = self._looks
                self._retry_at = _loop_time()
                if not self._looks:
                    await self._live()
            elif isinstance(pushed, Lost):
                self._tools.health.failed(self._provider, pushed.reason)
                state = FeedState.STALLED if pushed.stalled else FeedState.DISCONNECTED
                await self._say(state, f"{self._provider}: {pushed.reason}")
            else:
                await self._take(pushed)

    def _doubt_running(self) -> None:
        running = self._ask.grid.at(self._clock.now())
        if running is not None:
            self._growing.doubted_until = running.until

    async def _take(self, bars: Bars) -> None:
        try:
            bars = bars.checked()
        except InvalidBars as wrong:
            log.warning("%s pushed what cannot be true: %s", self._name, wrong)
            self._look_due = self._looks
            return
        now = self._clock.now()
        self._growing.push(bars.with_columns(updated=np.full(len(bars), now)))
        await self._close_final()

    async def _close_final(self) -> None:
        final, doubted = self._growing.take_final()
        if doubted and self._looks:
            self._look_due = True
            # Exchanges take a moment until history has the bar that just closed.
            self._retry_at = max(self._retry_at, _loop_time() + self._late)
        if len(final):
            await self._close(final)
        if not self._look_due:
            self._advance()

    async def _close_late(self, now: float) -> None:
        """End the bars whose time is over although nothing says so."""
        through = self._ask.closed_until(self._clock.now())
        if through <= self._growing.final_before:
            self._over, self._polled = None, 0
            return
        if self._over is None:
            self._over = (now, through)
        over_since, through = self._over
        if now - over_since < self._lateness() or self._look_due:
            return
        if self._upstream is None:
            self._look_due = True
            return
        if self._announcer.state is not FeedState.LIVE:
            return
        self._over = None
        self._growing.ended(through)
        await self._close_final()

    def _lateness(self) -> float:
        return self._late if self._upstream is not None else _POLLS[self._polled]

    async def _close(self, final: Bars) -> None:
        """Store *final* and what is held; what cannot be stored now is held, up to a bound."""
        if not len(self._held):
            self._held_since = self._clock.now()
        if len(final):
            final = self._ask.flagged(final, self._held_since)
            final = final.with_columns(flags=final.flags | np.uint8(CLOSED))
        closed = self._held.merge(final).last(_HELD)
        write = Write(key_of(self._ask.base), self._ask.facts, closed, observed_at=self._held_since)
        try:
            written = await self._tools.writer.write(write)
        except StoreUnavailable:
            self._held = closed
            self._retry_at = _loop_time() + _RETRY
            await self._say(FeedState.STALLED, "The candle store is away; closed bars are held.")
            return
        if len(self._held):
            await self._live()
        self._held = Bars.empty()
        self._written, self._noted = written, written.state
        await self._tools.moved({self._ask.base: head_of(written.state)})

    async def _look(self) -> None:
        """Read from history what closed since it was last told, and the bar that runs."""
        now = self._clock.now()
        spans = Spans.of(min(self._announcer.told, now - 1), now)
        chunks = self._ask.chunks(spans)
        if len(chunks) > _CATCH_UP_CHUNKS:
            chunks = chunks[:_CATCH_UP_CHUNKS]
            self._announcer.told_from = max(self._announcer.told_from, chunks[-1].since)
        fetched = await self._fetch(chunks)
        if fetched is None:
            return
        through = self._ask.closed_until(fetched.as_of)
        newest = fetched.bars.closed().time[-1:]
        if self._upstream is None and self._polled < len(_POLLS) - 1:
            last = self._ask.grid.reach(Window(through - 1, through))
            if not len(newest) or newest[0] < last.since:
                # It closed a moment ago and is not there yet, or nothing was traded.
                self._polled += 1
                through = last.since
            else:
                self._polled = 0
        self._growing.recall(fetched.bars, through)
        self._over = None
        # What came from memory may have been asked before the last bar closed.
        self._look_due = through < self._ask.closed_until(now) and self._polled == 0
        if self._look_due:
            self._retry_at = _loop_time() + _RETRY
        unstored = fetched.bars.take(fetched.bars.is_closed & (fetched.bars.revision == 0))
        if len(unstored):
            await self._close(unstored)
        self._noted = await self._state() or self._noted
        await self._close_final()
        await self._live()

    async def _settle(self) -> None:
        """Read once more what closed long enough ago to be final."""
        until = self._ask.closed_until(self._clock.now() - self._tools.settle)
        state = await self._state()
        known = state.known if state else Spans()
        window = Window(self._announcer.told_from, until)
        left = Spans((window,)) - known - closed_hours(self._whole_day, window)
        if left:
            await self._fetch(self._ask.chunks(left)[:_CATCH_UP_CHUNKS], failing=False)
            self.note(await self._state())

    async def _fetch(self, chunks: Sequence[Window], *, failing: bool = True) -> Fetched | None:
        """Return what history has of *chunks* together; None if a part could not be had."""
        state = await self._state()
        known = state.known if state else Spans()
        parts = [
            await self._tools.fetcher.fetch(self._ask, chunk, known, Bars.empty())
            for chunk in chunks
        ]
        failure = next((part.failure for part in parts if part.failure), None)
        if failure is not None:
            if failing:
                self._retry_at = _loop_time() + max(_RETRY, failure.retry_after or 0.0)
                await self._say(FeedState.DISCONNECTED, str(failure))
            return None
        bars = Bars.empty()
        for part in parts:
            bars = bars.merge(part.bars)
        return replace(parts[0], bars=bars)

    def _advance(self) -> None:
        """Tell as closed what is final and stored."""
        told = self._growing.final_before
        if len(self._held):
            told = min(told, int(self._held.time[0]))
        self._announcer.told = max(self._announcer.told, told)

    def _untold(self) -> bool:
        told, forming = self._told
        return self._announcer.told != told or self._announcer.forming != forming

    async def _announce(self) -> None:
        self._announcer.forming = self._running()
        try:
            if self._announcer.behind(self._noted):
                if not await self._announcer.sync(self._noted, self._written):
                    self._retry_at = _loop_time() + _RETRY
                    return
                self._note_told()
        except StoreUnavailable:
            self._retry_at = _loop_time() + _RETRY
            return
        self._noted = self._written = None
        if self._announcer.told != self._told[0] or (
            self._untold() and _loop_time() >= self._tell_at
        ):
            await self._announcer.tell()
            self._note_told()

    def _note_told(self) -> None:
        self._told = (self._announcer.told, self._announcer.forming)
        self._tell_at = _loop_time() + _FORMING_PAUSE

    def _running(self) -> Bars:
        running = self._growing.running()
        if not len(running):
            return running
        flagged = self._ask.flagged(running, int(running.updated[0]))
        return flagged.with_columns(flags=flagged.flags & ~np.uint8(CLOSED))

    async def _live(self) -> None:
        if len(self._held) or self._look_due:
            return
        self._tools.health.answered(self._provider)
        await self._say(FeedState.LIVE, "")

    async def _say(self, state: FeedState, message: str) -> None:
        await self._announcer.say(state, message, at=self._clock.now())

    async def _state(self) -> SeriesState | None:
        try:
            (state,) = await self._tools.store.states([key_of(self._ask.base)])
        except StoreUnavailable:
            return None
        return state


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
