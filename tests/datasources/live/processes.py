"""Whole processes with feeds and tails, and viewers that do with events what clients do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from redis.asyncio import Redis

from datasources.cursors import CandleCursor
from datasources.found import Answer, Base, Request
from datasources.health import HealthBoard
from datasources.live.base_tail import TailTools
from datasources.live.broadcaster import Broadcaster
from datasources.live.events import FeedState, Status
from datasources.live.interest import Interest
from datasources.live.keeper import FeedKeeper
from datasources.live.leases import Leases
from datasources.live.opening import FeedOpener
from datasources.live.pacing import Pacing
from datasources.live.quote_tails import QuoteTails
from datasources.live.resumption import Resumption
from datasources.live.tail_events import RangeChanged, Snapshot, TailEvent, Update
from datasources.live.tail_reading import TailReads
from datasources.live.tails import Tails, Wishes
from datasources.live.writer import BatchWriter
from datasources.meter import NoMeter
from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, SeriesState, Write, Written
from market.bars import CLOSED, Bars
from market.calendars import calendar
from market.clock import FixedClock
from market.instrument import Instrument, Series, Session
from market.timeframe import MINUTE_FRAME, Timeframe
from plugins.registry import Entry, Registry
from resolvers.live_bars import LiveBars, LiveSources
from tests.datasources.chains import SETTLE, listing_of
from tests.fakes import Row, to_bars
from web.bootstrap import open_chain
from web.live_wiring import Links
from web.settings import load_settings

PATIENCE = 30.0
"""Seconds after which what a test waits for will not come."""
QUICK = Pacing(
    look=0.05,
    want=0.1,
    renew=0.2,
    heads=0.1,
    retry=0.05,
    forming=0.01,
    late=0.1,
    late_local=0.1,
    polls=(0.05, 0.05, 0.05, 0.05),
    settle=0.3,
    settle_local=0.3,
    clock=0.03,
    reopen=0.02,
    longest_reopen=0.05,
)


async def until(met: Callable[[], Any], what: str = "what was waited for") -> None:
    """Wait until *met* says so."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not met():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come") from None


@dataclass(slots=True)
class Process:
    """What one process has that feeds, or serves viewers, or both."""

    links: Links
    sources: LiveSources
    broadcaster: Broadcaster
    keeper: FeedKeeper
    leases: Leases
    interest: Interest
    provider: Any
    redis: Redis
    prefix: str
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def clock(self) -> FixedClock:
        return self.provider.clock  # type: ignore[no-any-return]  # the provider is a fake

    @property
    def instrument(self) -> Instrument:
        return self.provider.instrument(next(iter(self.provider.markets)))  # type: ignore[no-any-return]  # it too

    @property
    def base(self) -> Base:
        return Base(listing_of(self.instrument), MINUTE_FRAME, native=False)

    def series(
        self, timeframe: str, *, zone: str | None = None, session: Session = Session.ALL
    ) -> Series:
        rules = calendar(self.instrument.calendar)
        return Series(
            listing=listing_of(self.instrument),
            timeframe=Timeframe.parse(timeframe),
            timezone=zone or rules.zone,
            session=session,
            calendar=rules.name,
        )

    async def answer(self, series: Series, since: int, until: int | None = None) -> Bars:
        """Return the closed bars that a query gives."""
        request = Request(series, self.instrument, since, until, 10_000, include_forming=False)
        (answer,) = await self.links.chain.answer([request])
        assert isinstance(answer, Answer), answer
        return answer.bars

    async def state(self) -> SeriesState | None:
        key = SeriesKey(self.base.listing, self.base.timeframe)
        (state,) = await self.links.store.states([key])
        return state

    async def stop(self) -> None:
        """Stop what runs by itself."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


ProcessOpener = Callable[..., AbstractAsyncContextManager[Process]]


@asynccontextmanager
async def opened_process(
    provider: Any,
    store: CandleStore,
    redis: Redis,
    prefix: str,
    *,
    feeds: bool = True,
    grace_ms: int = 60_000,
    lease_ms: int = 10_000,
    pacing: Pacing = QUICK,
    log_length: int = 1000,
) -> AsyncIterator[Process]:
    """Yield a process of its own over the store and the Redis that all share."""
    registry = Registry([Entry(provider.description.name, provider, None)])
    health = HealthBoard(provider.clock)
    settings = load_settings(redis_prefix=prefix)
    async with AsyncExitStack() as stack:
        links = await stack.enter_async_context(
            open_chain(settings, registry, store, redis, meter=NoMeter(), health=health)
        )
        broadcaster = await stack.enter_async_context(
            Broadcaster(redis, prefix=prefix, log_length=log_length)
        )
        interest = Interest(redis, prefix=prefix, grace_ms=grace_ms)
        leases = Leases(redis, prefix=prefix, owner=uuid4().hex, ttl_ms=lease_ms)
        writer = BatchWriter(store)
        stack.push_async_callback(writer.aclose)
        opener = FeedOpener(
            registry,
            store=store,
            writer=writer,
            fetcher=links.fetcher,
            health=health,
            moved=links.cache.moved,
            broadcaster=broadcaster,
            settle=SETTLE,
            pacing=pacing,
        )
        keeper = FeedKeeper(
            interest=interest,
            leases=leases,
            broadcaster=broadcaster,
            store=store,
            open_feed=opener.open,
            pacing=pacing,
        )
        wishes = Wishes(interest, pacing=pacing)
        reads = TailReads(links.aggregates, links.answers.answer)
        resumption = Resumption(store, reads, links.answers.answer)
        tools = TailTools(broadcaster, store, reads, health, resumption.snapshot, pacing)
        tails = Tails(registry, wishes, tools)
        stack.push_async_callback(tails.aclose)
        quotes = QuoteTails(broadcaster, wishes)
        stack.push_async_callback(quotes.aclose)
        process = Process(
            links,
            LiveSources(tails, quotes, resumption),
            broadcaster,
            keeper,
            leases,
            interest,
            provider,
            redis,
            prefix,
        )
        works = [wishes.run(), *([keeper.run()] if feeds else [])]
        process.tasks = [asyncio.create_task(work) for work in works]
        try:
            yield process
        finally:
            failed = [task for task in process.tasks if task.done() and not task.cancelled()]
            await process.stop()
            for task in failed:
                task.result()


class Viewer:
    """A client of one series: it holds what it was sent, by promise 8 of the API."""

    def __init__(self, process: Process, series: Series, after: CandleCursor | None) -> None:
        self.process = process
        self.series = series
        self.after = after
        self.bars = Bars.empty()
        self.events: list[TailEvent] = []
        self.seen: Callable[[TailEvent], None] = lambda event: None
        """Called after each event was taken in."""
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.follow(), name=f"viewer of {self.series.timeframe}")

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def follow(self) -> None:
        process = self.process
        live = LiveBars(process.sources, self.series, process.instrument, self.after)
        async for event in live:
            if isinstance(event, RangeChanged):
                await self._read_again(event)
            self.take(event)

    def take(self, event: TailEvent) -> None:
        if isinstance(event, Snapshot):
            self.bars = event.bars
        elif isinstance(event, Update):
            self.bars = event.bars.merge(self.bars)
        self.events.append(event)
        self.seen(event)

    async def _read_again(self, changed: RangeChanged) -> None:
        request = Request(
            self.series, self.process.instrument, changed.since, changed.until, 10_000, False
        )
        (answer,) = await self.process.links.chain.answer([request])
        assert isinstance(answer, Answer), answer
        kept = self.bars.take((self.bars.time < changed.since) | (self.bars.time >= changed.until))
        self.bars = kept.merge(answer.bars)

    @property
    def closed(self) -> Bars:
        return self.bars.closed()

    @property
    def forming(self) -> Bars:
        """The newest bar, if it runs."""
        return self.bars.take(~self.bars.is_closed).last(1)

    @property
    def cursors(self) -> list[CandleCursor]:
        return [event.cursor for event in self.events if not isinstance(event, Status)]

    @property
    def snapshots(self) -> list[Snapshot]:
        return [event for event in self.events if isinstance(event, Snapshot)]

    @property
    def updates(self) -> list[Update]:
        return [event for event in self.events if isinstance(event, Update)]

    @property
    def states(self) -> list[FeedState]:
        return [event.state for event in self.events if isinstance(event, Status)]

    @property
    def message(self) -> str:
        """What was said last of how the feed is doing."""
        return [event.message for event in self.events if isinstance(event, Status)][-1]

    def heard_of(self, reason: str) -> bool:
        """Whether it was told, now or before, that the feed is not live because of *reason*."""
        return any(isinstance(event, Status) and reason in event.message for event in self.events)

    @property
    def live(self) -> bool:
        """Whether it was told that the feed is live."""
        return self.states[-1:] == [FeedState.LIVE]

    def revision(self, time: int) -> int | None:
        """Return the revision of the closed bar at *time*, None if there is none."""
        found = self.closed.revision[self.closed.time == time]
        return int(found[0]) if len(found) else None

    async def until(self, met: Callable[[], Any], what: str = "what was waited for") -> None:
        """Wait until *met* says so, or raise what ended the subscription."""
        assert self.task is not None
        task = self.task
        try:
            await until(lambda: met() or task.done(), what)
        except AssertionError as late:
            story = "; ".join(told(event) for event in self.events[-12:])
            raise AssertionError(f"{late}; the viewer saw {story}") from None
        if task.done():
            task.result()
            raise AssertionError("the subscription ended")

    async def until_it_holds(self, since: int) -> None:
        """Wait until its closed bars since then are those that a query gives now."""
        try:
            async with asyncio.timeout(PATIENCE):
                pause = 0.02
                while (wrong := await self._wrong(since)) is not None:
                    assert self.task is not None
                    if self.task.done():
                        self.task.result()
                    await asyncio.sleep(pause)
                    pause *= 1.25
                    # What is not settled is cached for a second of the provider's time.
                    self.process.clock.at += 1_000
        except TimeoutError:
            story = "; ".join(told(event) for event in self.events[-12:])
            whose = f"the viewer of {self.series.timeframe}"
            raise AssertionError(
                f"{whose} differs from the store: {wrong}; it saw {story}"
            ) from None

    async def _wrong(self, since: int) -> str | None:
        expected = await self.process.answer(self.series, since)
        held = self.closed.take(self.closed.time >= since)
        return difference(held, expected)


def told(event: TailEvent) -> str:
    """Return *event* in a few words."""
    if isinstance(event, Status):
        return f"{event.state} {event.message}"
    if isinstance(event, RangeChanged):
        return f"changed {event.since}..{event.until}"
    bars = event.bars.last(3)
    rows = zip(bars.time.tolist(), bars.revision.tolist(), bars.is_closed.tolist(), strict=True)
    newest = ", ".join(f"{time}{'' if closed else ' runs'} r{n}" for time, n, closed in rows)
    where = f"at {dict(event.cursor.positions)}, {event.cursor.told_until}"
    return f"{type(event).__name__.lower()} of {len(event.bars)} ({newest}) {where}"


def difference(held: Bars, expected: Bars) -> str | None:
    """Return in what closed bars differ, None if they are the same: sums to 1e-12."""
    if held.time.tolist() != expected.time.tolist():
        only_held = sorted(set(held.time.tolist()) - set(expected.time.tolist()))
        missing = sorted(set(expected.time.tolist()) - set(held.time.tolist()))
        return f"it lacks {missing}, and only it has {only_held}"
    for name in ("open", "high", "low", "close", "trades", "revision"):
        one, other = getattr(held, name), getattr(expected, name)
        if not np.array_equal(one, other):
            at = int(np.argmax(one != other))
            revisions = f"revisions {held.revision[at]} and {expected.revision[at]}"
            where = f"{name} at {int(held.time[at])}"
            return f"{where} is {one[at]} instead of {other[at]}, {revisions}"
    if not np.allclose(held.volume, expected.volume, rtol=1e-12, atol=0):
        return "the volume differs"
    return None


@asynccontextmanager
async def viewing(
    process: Process,
    timeframe: str = "1m",
    *,
    after: CandleCursor | None = None,
    zone: str | None = None,
    session: Session = Session.ALL,
) -> AsyncIterator[Viewer]:
    """Yield a viewer that has been given its beginning."""
    viewer = Viewer(process, process.series(timeframe, zone=zone, session=session), after)
    viewer.start()
    try:
        await viewer.until(lambda: viewer.events, "a beginning")
        yield viewer
    finally:
        await viewer.stop()


class Writer:
    """Another process that writes to the same base, such as a backfill."""

    def __init__(self, process: Process, store: CandleStore) -> None:
        self._process = process
        self._store = store

    async def correct(self, minute: int, row: Row) -> Written:
        """Store a closed minute with other values; the provider has them too."""
        self._process.provider.market.rows[minute] = row
        now = self._process.clock.now()
        key = SeriesKey(self._process.base.listing, MINUTE_FRAME)
        bars = to_bars({minute: row}, now, flags=CLOSED)
        facts = SeriesFacts(around_the_clock=self._process.provider.calendar.around_the_clock)
        (written,) = await self._store.write([Write(key, facts, bars, observed_at=now)])
        return written
