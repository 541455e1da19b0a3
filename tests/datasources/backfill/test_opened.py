"""A chart of a series without history starts one backfill, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from datasources.backfill.opened import OpenedCharts
from datasources.found import Request
from datasources.openings import Openings
from db.backfills import BackfillState
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
async def opened(stage: Stage) -> AsyncIterator[Openings]:
    """Run what starts backfills by itself, two days of each series."""
    openings = Openings()
    charts = OpenedCharts(
        openings, stage.links.registry, stage.links.store, stage.service, days=2, max_pages=2
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
