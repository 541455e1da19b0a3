"""Wire backfills: the service that requests use, and the runner of the process that runs jobs.

A part of `web.bootstrap`, which calls it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from datasources.backfill.filling import FillTools
from datasources.backfill.opened import OpenedCharts
from datasources.backfill.runner import BackfillRunner
from datasources.backfill.service import BackfillService
from datasources.backfill.sweeper import Sweeper
from db.backfills import BackfillStore
from web.background import Background
from web.jobs.engine import LONG, JobQueue
from web.live_wiring import Links
from web.settings import Settings

TASK = "backfill"
_LONGEST_SECONDS = 30 * 86_400.0
"""How long one try may take: years of minutes come at the pace a provider allows."""


@dataclass(frozen=True, slots=True)
class BackfillParts:
    """What of backfills is in this process."""

    service: BackfillService
    runner: BackfillRunner


@asynccontextmanager
async def open_backfills(
    links: Links,
    pool: asyncpg.Pool,
    jobs: JobQueue,
    background: Background,
    settings: Settings,
) -> AsyncIterator[BackfillParts]:
    """Yield the backfills over *links*, run by *jobs*."""
    backfills = BackfillStore(pool)
    settle_ms = int(settings.settle * 1000)
    tools = FillTools(
        candles=links.store,
        backfills=backfills,
        fetcher=links.fetcher,
        beginnings=links.beginnings,
        announce=links.cache.moved,
        settle=settle_ms,
    )
    runner = BackfillRunner(links.registry, tools)

    async def run(id: str) -> None:
        await runner.run(UUID(id))

    async def enqueue(id: UUID) -> None:
        await jobs.enqueue(TASK, key=str(id), id=str(id))

    jobs.task(TASK, run, lane=LONG, seconds=_LONGEST_SECONDS)
    service = BackfillService(
        links.registry, links.store, backfills, enqueue=enqueue, settle=settle_ms
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.aclose)
        if settings.role.runs_jobs:
            sweeper = Sweeper(backfills, runner, enqueue=enqueue)
            await stack.enter_async_context(background.running(sweeper.run(), name="sweeper"))
        if links.openings is not None and settings.role.answers:
            opened = OpenedCharts(
                links.openings,
                links.registry,
                links.store,
                service,
                days=settings.auto_backfill,
                max_pages=settings.max_pages,
            )
            await stack.enter_async_context(background.running(opened.run(), name="opened charts"))
        yield BackfillParts(service, runner)
