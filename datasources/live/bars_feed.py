"""The one upstream of a base's bars: joins the stream to history, stores what closes, tells it.

A bar is final once its provider says so, a later one has opened, or it is over and nothing came of
it for a moment. It is stored before it is told as closed. What was open when the stream was joined
may be half a bar there, so its end is read from history; and some minutes after its close every
bar is read from history once more, because providers correct and trades come late.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from datasources.aggregates import head_of, key_of
from datasources.ask import Ask
from datasources.fetching import Fetcher
from datasources.found import Base, Head
from datasources.health import HealthBoard
from datasources.live.announcer import Announcer
from datasources.live.events import FeedState
from datasources.live.growing import GrowingBars
from datasources.live.pacing import PACING, Pacing
from datasources.live.past import Looked, Past
from datasources.live.trade_bars import TradeBars
from datasources.live.upstream import Joined, Lost, Upstream, market_closed
from datasources.live.writer import BatchWriter
from db.candles import CandleStore
from db.stored import SeriesState, Write, Written
from market.bars import CLOSED, Bars
from market.errors import InvalidBars, ProviderUnavailable, StoreUnavailable
from market.window import Spans, Window
from plugins.base import Stream, StreamsBars, StreamsTrades

log = logging.getLogger(__name__)

_SHORTEST_WAIT = 0.01
"""Seconds until the provider's clock is read again at the soonest."""
_HELD = 10_000
"""Closed bars kept while the store is away; the oldest of more are read from history later."""


@dataclass(frozen=True, slots=True)
class FeedTools:
    """What all feeds of a process share. *settle* in ms; *moved* tells the cache of a write."""

    store: CandleStore
    writer: BatchWriter
    fetcher: Fetcher
    health: HealthBoard
    moved: Callable[[Mapping[Base, Head]], Awaitable[None]]
    settle: int
    pacing: Pacing = PACING


class BarsFeed:
    """Feeds one base under one lease until cancelled, or until the lease is lost."""

    def __init__(self, ask: Ask, tools: FeedTools, announcer: Announcer) -> None:
        self._ask = ask
        self._tools = tools
        self._announcer = announcer
        self._provider = ask.provider.description.name
        self._clock = ask.provider.clock
        self._past = Past(ask, tools.store, tools.fetcher)
        local = ask.offer is not None and ask.offer.local
        self._pacing = tools.pacing
        self._late = self._pacing.late_local if local else self._pacing.late
        self._settle_pause = self._pacing.settle_local if local else self._pacing.settle
        self._wake = asyncio.Event()
        self._opened_at = 0
        """When the stream was opened, by the provider's clock."""
        self._joined = False
        """Whether the stream says all that happens."""
        self._upstream = self._open_upstream()
        self._growing = GrowingBars()
        self._begun_at = 0
        self._held = Bars.empty()
        self._held_since = 0
        self._written: Written | None = None
        self._noted: SeriesState | None = None
        self._look_due = False
        self._awaited: int | None = None
        """When the bar opened that was traded for sure and only history knows whole."""
        self._over: tuple[float, int] | None = None
        """Since when, by our loop, the clock has been past the bars that open before a time."""
        self._looked_again = 0
        """How often history was asked again because it still lacked something."""
        self._told = (-1, Bars.empty())
        now = _loop_time()
        self._settle_at = now + self._settle_pause
        self._look_at = self._retry_at = self._tell_at = now

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
                self._look_due = self._past.askable
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

        def open_stream() -> Stream[Bars]:
            self._opened_at = self._clock.now()
            return opening()

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
        return Upstream(
            self._name,
            open_stream,
            quiet=lambda: market_closed(self._ask.instrument, self._clock.now()),
            wake=self._wake,
            pacing=self._pacing,
        )

    async def _begin(self) -> None:
        """Find out up to where bars were told before, and go on from there."""
        now = self._clock.now()
        told = self._ask.closed_until(now - self._tools.settle)
        self._noted = await self._past.state()
        if self._past.askable and self._noted is not None and self._noted.known:
            # A holder before us, or a fetch, came this far; what follows is read from history.
            told = min(told, self._noted.known.hull.until)
        self._announcer.told_from = self._announcer.told = self._begun_at = told
        self._growing.final_before = told

    async def _step(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience()):
                await self._wake.wait()
        self._wake.clear()
        await self._take_pushed()
        now = _loop_time()
        if len(self._held) and now >= self._retry_at:
            await self._close(Bars.empty(), self._held_since)
        if self._look_due and now >= self._look_at:
            await self._look()
        await self._close_late(now)
        if now >= self._settle_at and self._past.askable:
            self._settle_at = now + self._settle_pause
            await self._settle()
        await self._announce()

    def _patience(self) -> float:
        """Return for how many seconds there is nothing to do unless something is pushed."""
        now, longest = _loop_time(), self._pacing.clock
        waits = [longest]
        if self._look_due:
            waits.append(self._look_at - now)
        if len(self._held) or self._noted is not None:
            waits.append(self._retry_at - now)
        elif self._untold():
            waits.append(self._tell_at - now)
        if self._over is not None:
            waits.append(self._over[0] + self._lateness() - now)
        elif running := self._ask.grid.at(self._clock.now()):
            waits.append((running.until - self._clock.now()) / 1000)
        return max(min(waits), _SHORTEST_WAIT)

    async def _take_pushed(self) -> None:
        if self._upstream is None:
            return
        for _ in range(self._upstream.pushed.qsize()):
            pushed = self._upstream.pushed.get_nowait()
            if isinstance(pushed, Joined):
                await self._join()
            elif isinstance(pushed, Lost):
                self._joined = False
                self._tools.health.failed(self._provider, pushed.reason)
                state = FeedState.STALLED if pushed.stalled else FeedState.DISCONNECTED
                await self._say(state, f"{self._provider}: {pushed.reason}")
            else:
                await self._take(pushed)

    async def _join(self) -> None:
        self._joined = True
        await self._say(FeedState.CATCHING_UP, "Reading what was missed from history.")
        now = self._clock.now()
        running = self._ask.grid.at(now)
        # The clock may have gone on since the stream began to speak.
        opened = self._ask.closed_until(min(self._opened_at, now))
        self._growing.doubted = Window(opened, running.until if running else now)
        self._look_due, self._look_at = self._past.askable, _loop_time()
        if not self._past.askable:
            await self._live()

    async def _take(self, bars: Bars) -> None:
        try:
            bars = _on_grid(self._ask, bars.checked())
        except InvalidBars as wrong:
            log.warning("%s pushed what cannot be true: %s", self._name, wrong)
            self._look_due = self._past.askable
            return
        now = self._clock.now()
        self._growing.push(bars.with_columns(updated=np.full(len(bars), now)))
        await self._close_final()

    async def _close_final(self) -> None:
        final, doubted = self._growing.take_final()
        if doubted is not None and self._past.askable:
            self._look_due, self._awaited = True, doubted
            # Exchanges take a moment until history has the bar that just closed.
            self._look_at = max(self._look_at, _loop_time() + self._late)
        if len(final):
            await self._close(final, self._clock.now())
        if not self._look_due:
            self._advance(self._growing.final_before)

    async def _close_late(self, now: float) -> None:
        """End the bars whose time is over although nothing says so."""
        through = self._ask.closed_until(self._clock.now())
        if through <= self._growing.final_before:
            self._over = None
            return
        if self._over is None:
            self._over = (now, through)
        over_since, through = self._over
        if now - over_since < self._lateness() or self._look_due:
            return
        if self._upstream is None:
            self._look_due = True
            return
        if not self._joined:
            return
        self._over = None
        self._growing.ended(through)
        await self._close_final()

    def _lateness(self) -> float:
        return self._late if self._upstream is not None else self._pacing.polls[0]

    async def _close(self, final: Bars, observed_at: int) -> None:
        """Store *final* and what is held; what cannot be stored now is held, up to a bound."""
        if not len(self._held):
            self._held_since = observed_at
        if len(final):
            final = self._ask.flagged(final, self._held_since)
            final = final.with_columns(flags=final.flags | np.uint8(CLOSED))
        # Of two words on a bar the later one counts.
        closed = final.merge(self._held)
        write = Write(key_of(self._ask.base), self._ask.facts, closed, observed_at=self._held_since)
        try:
            written = await self._tools.writer.write(write)
        except StoreUnavailable:
            self._hold(closed)
            self._retry_at = _loop_time() + self._pacing.retry
            await self._say(FeedState.STALLED, "The candle store is away; closed bars are held.")
            return
        was_away, self._held = len(self._held) > 0, Bars.empty()
        self._written, self._noted = written, written.state
        await self._tools.moved({self._ask.base: head_of(written.state)})
        if was_away:
            self._advance(self._growing.final_before if not self._look_due else 0)
            await self._live()

    def _hold(self, closed: Bars) -> None:
        self._held = closed.last(_HELD)
        if len(closed) > _HELD:
            self._announcer.told_from = int(self._held.time[0])
            self._look_due = self._past.askable

    async def _look(self) -> None:
        """Read from history what closed since it was last told, and the bar that runs."""
        now = self._clock.now()
        try:
            looked = await self._past.look(Window(min(self._announcer.told, now - 1), now))
        except ProviderUnavailable as failure:
            pause = max(self._pacing.retry, failure.retry_after or 0.0)
            self._look_at = _loop_time() + pause
            await self._say(FeedState.DISCONNECTED, str(failure))
            return
        over = self._ask.closed_until(looked.as_of)
        through, again = self._reached(looked, over)
        # What came from memory may have been asked before the last bar closed.
        self._look_due = again or over < self._ask.closed_until(now)
        pause = self._pacing.polls[self._looked_again] if again else self._pacing.retry
        self._look_at = _loop_time() + pause
        if looked.since > self._announcer.told:
            # It was away for longer than one look reads.
            self._announcer.told_from = max(self._announcer.told_from, looked.since)
        self._growing.recall(looked.bars, through)
        self._over = None
        unstored = looked.bars.take(looked.bars.is_closed & (looked.bars.revision == 0))
        if len(unstored):
            await self._close(unstored, looked.as_of)
        self._noted = await self._past.state() or self._noted
        await self._close_final()
        self._advance(through)
        await self._live()

    def _reached(self, looked: Looked, over: int) -> tuple[int, bool]:
        """Return up to when history tells all that closed, and whether to ask for more soon."""
        lacking = Spans.of(max(self._announcer.told, looked.since), over) - looked.vouched
        holes = [lacking.hull.since] if lacking else []
        newest = int(looked.bars.closed().time[-1]) if len(looked.bars.closed()) else 0
        if self._awaited is not None and self._awaited < over and newest < self._awaited:
            holes.append(self._awaited)
        last = self._ask.grid.reach(Window(over - 1, over)).since
        if self._upstream is None and newest < last:
            # It closed a moment ago and is not there yet, or nothing was traded.
            holes.append(last)
        if holes and self._looked_again < len(self._pacing.polls) - 1:
            self._looked_again += 1
            return self._ask.closed_until(min(holes)), True
        self._looked_again, self._awaited = 0, None
        if lacking:
            # Nobody vouches for it: whoever needs it asks history again.
            self._announcer.told_from = max(self._announcer.told_from, lacking.hull.until)
        return over, False

    async def _settle(self) -> None:
        """Read once more what closed long enough ago to be final."""
        until = self._ask.closed_until(self._clock.now() - self._tools.settle)
        with suppress(ProviderUnavailable):
            if await self._past.settle(Window(self._begun_at, until)):
                self.note(await self._past.state())

    def _advance(self, through: int) -> None:
        """Tell as closed what opens before *through* and is stored."""
        if len(self._held):
            through = min(through, int(self._held.time[0]))
        self._announcer.told = max(self._announcer.told, through)

    def _untold(self) -> bool:
        told, forming = self._told
        return self._announcer.told != told or self._announcer.forming != forming

    async def _announce(self) -> None:
        self._announcer.forming = self._running()
        try:
            if self._noted is not None and self._announcer.behind(self._noted):
                if self._written is None or self._noted is not self._written.state:
                    # Others wrote, and may have died before they told the cache.
                    await self._tools.moved({self._ask.base: head_of(self._noted)})
                if not await self._announcer.sync(self._noted, self._written):
                    self._retry_at = _loop_time() + self._pacing.retry
                    return
                self._note_told()
        except StoreUnavailable:
            self._retry_at = _loop_time() + self._pacing.retry
            return
        self._noted = self._written = None
        if self._announcer.told != self._told[0] or (
            self._untold() and _loop_time() >= self._tell_at
        ):
            await self._announcer.tell()
            self._note_told()

    def _note_told(self) -> None:
        self._told = (self._announcer.told, self._announcer.forming)
        self._tell_at = _loop_time() + self._pacing.forming

    def _running(self) -> Bars:
        running = self._growing.running()
        if not len(running):
            return running
        flagged = self._ask.flagged(running, int(running.updated[0]))
        return flagged.with_columns(flags=flagged.flags & ~np.uint8(CLOSED))

    async def _live(self) -> None:
        if len(self._held) or self._look_due or (self._upstream and not self._joined):
            return
        self._tools.health.answered(self._provider)
        await self._say(FeedState.LIVE, "")

    async def _say(self, state: FeedState, message: str) -> None:
        await self._announcer.say(state, message, at=self._clock.now())


def _on_grid(ask: Ask, bars: Bars) -> Bars:
    """Return *bars* if each opens where a bar of the base does. Raises `InvalidBars`."""
    for time in bars.time.tolist():
        bucket = ask.grid.at(time)
        if bucket is None or bucket.since != time:
            raise InvalidBars(f"no bar of {ask.base.timeframe} opens at {time}")
    return bars


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
