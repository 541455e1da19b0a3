"""Backfills of one process over a real store and a real Redis, with providers that tests write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from redis.asyncio import Redis

from datasources.ask import Ask, ask_of
from datasources.backfill.filling import FillTools
from datasources.backfill.patience import Patience
from datasources.backfill.runner import BackfillRunner
from datasources.backfill.service import BackfillService
from datasources.found import Base
from datasources.health import HealthBoard
from datasources.meter import NoMeter
from db.backfills import Backfill, BackfillStore
from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, SeriesState, Wanted, Write
from market.bars import CLOSED, Bars
from market.calendars import calendar
from market.instrument import Series
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Spans, Window
from plugins.registry import Entry, Registry
from tests.datasources.chains import NOW, RUNNING, SETTLE, listing_of
from tests.fakes import FakeProvider, to_bars
from web.bootstrap import open_chain
from web.live_wiring import Links
from web.settings import load_settings

SETTLED = RUNNING - SETTLE
"""The oldest minute that may still change at `NOW`."""
IMPATIENT = Patience(attempts=3, first=0.001, longest=0.01)


@dataclass(slots=True)
class Stage:
    """What one process has."""

    links: Links
    provider: FakeProvider
    service: BackfillService
    runner: BackfillRunner
    backfills: BackfillStore
    tools: FillTools
    enqueued: list[UUID] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        return next(iter(self.provider.markets))

    @property
    def key(self) -> SeriesKey:
        return SeriesKey(listing_of(self.provider.instrument(self.symbol)), MINUTE_FRAME)

    @property
    def ask(self) -> Ask:
        base = Base(self.key.listing, MINUTE_FRAME, native=False)
        return ask_of(base, self.provider.instrument(self.symbol), self.provider)

    def series(self, timeframe: str = "1m") -> Series:
        rules = calendar(self.provider.calendar.name)
        frame = Timeframe.parse(timeframe)
        return Series(self.key.listing, frame, timezone=rules.zone, calendar=rules.name)

    def runner_with(self, **tools: Any) -> BackfillRunner:
        """Return a runner of which some tools are others."""
        return BackfillRunner(self.links.registry, replace(self.tools, **tools), beat=0.01)

    def service_with(self, *, enqueue: Callable[[UUID], Awaitable[None]]) -> BackfillService:
        """Return a service that hands jobs to somebody else."""
        registry, tools = self.links.registry, self.tools
        return BackfillService(
            registry, tools.candles, tools.backfills, enqueue=enqueue, settle=SETTLE
        )

    async def start(
        self,
        since: int,
        until: int,
        *,
        key: str | None = None,
        timeframe: str = "1m",
    ) -> Backfill:
        return await self.service.start(
            self.provider.instrument(self.symbol),
            self.series(timeframe),
            Window(since, until),
            idempotency_key=key or uuid4().hex,
        )

    async def filled(self, since: int, until: int) -> Backfill:
        """Start a backfill, run it, and return it as it ended."""
        started = await self.start(since, until)
        await self.runner.run(started.id)
        return await self.again(started)

    async def again(self, backfill: Backfill) -> Backfill:
        """Return the job as it is now."""
        now = await self.backfills.get(backfill.id)
        assert now is not None
        return now

    async def store_minutes(self, *windows: Window) -> None:
        """Store what the provider has in *windows*, as a chart would have."""
        rows = self.provider.markets[self.symbol].rows
        for window in windows:
            inside = {m: rows[m] for m in sorted(rows) if window.since <= m < window.until}
            bars = to_bars(inside, NOW, flags=CLOSED)
            settled = Spans((window,))
            facts = SeriesFacts(around_the_clock=self.provider.calendar.around_the_clock)
            await self.links.store.write([Write(self.key, facts, bars, NOW - 1, settled, settled)])

    async def state(self) -> SeriesState:
        (state,) = await self.links.store.states([self.key])
        assert state is not None
        return state

    async def bars(self, window: Window) -> Bars:
        (found,) = await self.links.store.snapshot([Wanted(self.key, window)])
        return found.bars

    def asked(self) -> list[Window]:
        """Return the windows the provider was asked for, oldest call first."""
        return self.provider.asked()


StageOpener = Callable[..., AbstractAsyncContextManager[Stage]]


@asynccontextmanager
async def opened_stage(
    provider: FakeProvider,
    store: CandleStore,
    pool: asyncpg.Pool,
    redis: Redis,
    prefix: str,
    *,
    patience: Patience = IMPATIENT,
    parallel: int = 2,
    max_pages: int = 10,
    **runs: Any,
) -> AsyncIterator[Stage]:
    """Yield what one process has for backfills: what is started is noted, and not run."""
    registry = Registry([Entry(provider.description.name, provider, None)])
    async with open_chain(
        load_settings(redis_prefix=prefix, max_pages=max_pages),
        registry,
        store,
        redis,
        meter=NoMeter(),
        health=HealthBoard(provider.clock),
    ) as links:
        backfills = BackfillStore(pool)

        async def enqueue(id: UUID) -> None:
            stage.enqueued.append(id)

        tools = FillTools(
            candles=store,
            backfills=backfills,
            fetcher=links.fetcher,
            beginnings=links.beginnings,
            announce=links.cache.moved,
            settle=SETTLE,
            parallel=parallel,
            patience=patience,
        )
        service = BackfillService(registry, store, backfills, enqueue=enqueue, settle=SETTLE)
        runner = BackfillRunner(registry, tools, **{"beat": 0.01, **runs})
        stage = Stage(links, provider, service, runner, backfills, tools)
        yield stage
        await service.aclose()


async def until(holds: Callable[[], Awaitable[bool] | bool], *, seconds: float = 20) -> None:
    """Wait until *holds*, and fail if it does not for so long."""
    async with asyncio.timeout(seconds):
        while True:
            now = holds()
            if now if isinstance(now, bool) else await now:
                return
            await asyncio.sleep(0.005)


def minutes_of(window: Window) -> int:
    return window.length // MINUTE
