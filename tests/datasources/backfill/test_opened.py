"""A chart of a series without history starts one backfill, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from datasources.backfill.opened import OpenedCharts
from datasources.backfill.patience import Patience
from datasources.found import Request
from datasources.openings import Openings
from db.backfills import Backfill, BackfillState
from market.clock import FixedClock
from market.instrument import Instrument, Series
from market.window import DAY, HOUR, Window
from tests.datasources.backfill.stage import SETTLED, Stage, StageOpener, until
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.fakes import FakeProvider, Market, minutes_between

pytestmark = on_embedded

SINCE = RUNNING - 3 * DAY


def market(**options: object) -> FakeProvider:
    rows = Market.of(minutes_between(SINCE, NOW, every=9))
    options.setdefault("page_limit", 100)
    return FakeProvider(FixedClock(NOW), {uuid4().hex: rows}, **options)


def chart(stage: Stage, timeframe: str = "5m") -> Request:
    instrument = stage.provider.instrument(stage.symbol)
    return Request(stage.series(timeframe), instrument, None, None, 20)


@asynccontextmanager
async def opened(stage: Stage, **options: float) -> AsyncIterator[Openings]:
    """Run what starts backfills by itself, two days of each series."""
    openings = Openings()
    links = stage.links
    charts = OpenedCharts(
        openings, links.registry, links.store, stage.service, days=2, max_pages=2, **options
    )
    running = asyncio.create_task(charts.run())
    yield openings
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_series_without_history_is_filled_once_it_is_opened(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market()) as stage, opened(stage) as openings:
        openings.note([chart(stage)])
        await until(lambda: bool(stage.enqueued))
        (started,) = stage.enqueued
        await stage.runner.run(started)

        ended = await stage.backfills.get(started)
        assert ended is not None
        assert ended.state is BackfillState.DONE
        assert ended.window == Window(NOW // 60_000 * 60_000 - 2 * DAY, SETTLED)


async def test_a_series_is_filled_by_itself_only_once_across_processes_and_restarts(
    open_stage: StageOpener,
) -> None:
    provider = market()
    async with open_stage(provider) as here, open_stage(provider) as there:
        async with opened(here) as openings:
            openings.note([chart(here)])
            await until(lambda: bool(here.enqueued))
        await here.service.cancel(here.enqueued[0])
        async with opened(there) as openings:
            openings.note([chart(there, "1h")])
            # A second listing tells when the first was looked at.
            provider.markets["Z" + here.symbol] = provider.markets[here.symbol]
            instrument = provider.instrument("Z" + here.symbol)
            series = there.series()
            openings.note([_of(series, instrument)])
            await until(lambda: bool(there.enqueued))

        assert len(there.enqueued) == 1
        found = await there.backfills.get(there.enqueued[0])
        assert found is not None
        assert found.listing.symbol == "Z" + here.symbol


async def test_a_backfill_that_failed_is_followed_by_another_and_a_cancelled_one_is_not(
    open_stage: StageOpener,
) -> None:
    provider = market()
    async with open_stage(provider, patience=Patience(attempts=1, enough=0)) as stage:
        first = await _opened_and_ended(stage, provider)
        second = await _opened_and_ended(stage, provider)
        third = await _opened_and_ended(stage, provider, cancelled=True)
        async with opened(stage, again_in=0) as openings:
            openings.note([chart(stage)])
            provider.markets["Z" + stage.symbol] = provider.markets[stage.symbol]
            other = provider.instrument("Z" + stage.symbol)
            openings.note([_of(stage.series(), other)])
            await until(lambda: len(stage.enqueued) > 3)

        last = await stage.backfills.get(stage.enqueued[3])
        assert [first.state, second.state] == [BackfillState.FAILED] * 2
        assert third.state is BackfillState.CANCELLED
        assert len({first.id, second.id, third.id}) == 3
        assert last is not None
        assert last.listing.symbol == "Z" + stage.symbol


async def test_a_backfill_that_failed_lately_is_followed_by_none(open_stage: StageOpener) -> None:
    provider = market()
    async with open_stage(provider, patience=Patience(attempts=1, enough=0)) as stage:
        await _opened_and_ended(stage, provider)
        async with opened(stage) as openings:
            openings.note([chart(stage)])
            # A second listing tells when the first was looked at.
            provider.markets["Z" + stage.symbol] = provider.markets[stage.symbol]
            openings.note([_of(stage.series(), provider.instrument("Z" + stage.symbol))])
            await until(lambda: len(stage.enqueued) > 1)

        last = await stage.backfills.get(stage.enqueued[1])
        assert last is not None
        assert last.listing.symbol == "Z" + stage.symbol


async def _opened_and_ended(
    stage: Stage, provider: FakeProvider, *, cancelled: bool = False
) -> Backfill:
    """Open a chart, let what that starts fail or be cancelled, and return how it ended."""
    before = len(stage.enqueued)
    async with opened(stage, again_in=0) as openings:
        openings.note([chart(stage)])
        await until(lambda: len(stage.enqueued) > before)
    started = stage.enqueued[before]
    if cancelled:
        await stage.service.cancel(started)
    provider.failing = lambda call: True
    await stage.runner.run(started)
    provider.failing = lambda call: False
    ended = await stage.backfills.get(started)
    assert ended is not None
    return ended


def _of(series: Series, instrument: Instrument) -> Request:
    listing = replace(series.listing, symbol=instrument.symbol)
    return Request(replace(series, listing=listing), instrument, None, None, 20)


async def test_a_series_with_history_and_a_provider_that_has_all_are_left_alone(
    open_stage: StageOpener,
) -> None:
    for provider, stored in ((market(), DAY), (market(whole=True), 0)):
        async with open_stage(provider) as stage:
            if stored:
                await stage.store_minutes(Window(SETTLED - stored, SETTLED - HOUR))
            charts = OpenedCharts(
                Openings(),
                stage.links.registry,
                stage.links.store,
                stage.service,
                days=2,
                max_pages=2,
            )

            await charts.consider(chart(stage))

            assert stage.enqueued == []
