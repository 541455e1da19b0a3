"""A wired process runs the backfills that are started, and shows how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from datasources.found import Request
from db.backfills import Backfill, BackfillState
from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from market.instrument import Instrument, Listing, Series
from market.timeframe import MINUTE_FRAME
from market.window import DAY, HOUR, Window
from tests.api import forget, settings_over
from web.app import build_app
from web.bootstrap import Wired, wire
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Role

NOW = 1_712_327_841_000
SINCE = NOW // DAY * DAY - DAY
pytestmark = pytest.mark.parametrize("server_url", ["embedded"], indirect=True, scope="session")


@asynccontextmanager
async def wired(
    embedded: EmbeddedServers, url: str, metrics: Metrics | None = None, **others: object
) -> AsyncIterator[Wired]:
    settings = settings_over(embedded, url, **others)
    meter = ChainMeter(metrics or Metrics())
    async with wire(settings, clock=FixedClock(NOW), meter=meter) as wired:
        yield wired
        await forget(wired)


async def chart(wired: Wired) -> tuple[Instrument, Series]:
    instrument = (await wired.registry.get("sim").symbols())[0]
    description = wired.registry.get("sim").description
    listing = Listing("sim", instrument.market, instrument.symbol, dataset=description.dataset)
    return instrument, Series(listing, MINUTE_FRAME, calendar=instrument.calendar)


async def over(wired: Wired, id: UUID) -> Backfill:
    async with asyncio.timeout(60):
        seen = [backfill async for backfill in wired.backfills.service.watch(id)]
    return seen[-1]


async def test_a_process_that_does_everything_runs_what_is_started(
    embedded: EmbeddedServers, fresh_store_url: str
) -> None:
    metrics = Metrics()
    async with wired(embedded, fresh_store_url, metrics) as process:
        build_app(process, metrics)
        instrument, series = await chart(process)

        started = await process.backfills.service.start(
            instrument, series, Window(SINCE, NOW), idempotency_key=uuid4().hex
        )
        ended = await over(process, started.id)

        assert (ended.state, ended.reason) == (BackfillState.DONE, None)
        shown = metrics.registry.get_sample_value("bargraph_backfills", {"what": "bars"})
        assert shown == ended.bars > 1000


async def test_what_an_api_process_starts_a_jobs_process_runs(
    embedded: EmbeddedServers, fresh_store_url: str
) -> None:
    prefix = f"bargraph-test-{uuid4().hex}:"
    async with (
        wired(embedded, fresh_store_url, role=Role.API, redis_prefix=prefix) as api,
        wired(embedded, fresh_store_url, role=Role.JOBS, redis_prefix=prefix) as jobs,
    ):
        instrument, series = await chart(api)

        started = await api.backfills.service.start(
            instrument, series, Window(SINCE, SINCE + HOUR), idempotency_key=uuid4().hex
        )
        ended = await over(api, started.id)

        assert ended.state is BackfillState.DONE
        assert jobs.backfills.runner.bars == ended.bars
        assert api.backfills.runner.bars == 0


async def test_a_job_left_by_a_dead_server_is_run_by_the_next(
    embedded: EmbeddedServers, fresh_store_url: str
) -> None:
    async with wired(embedded, fresh_store_url, role=Role.API) as dead:
        instrument, series = await chart(dead)
        started = await dead.backfills.service.start(
            instrument, series, Window(SINCE, SINCE + HOUR), idempotency_key=uuid4().hex
        )

    # Another prefix: nothing of what was queued in Redis is left.
    async with wired(embedded, fresh_store_url) as process:
        ended = await over(process, started.id)

        assert ended.state is BackfillState.DONE


async def test_nothing_is_noted_of_what_is_opened_unless_it_is_wanted(
    embedded: EmbeddedServers, fresh_store_url: str
) -> None:
    async with wired(embedded, fresh_store_url) as process:
        instrument, series = await chart(process)
        await process.shared.answers.answer([Request(series, instrument, None, None, 10)])

        assert await process.backfills.service.page(first=1) == []
