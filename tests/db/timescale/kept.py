"""What the parity tests do to a store besides writing: what its mode does to keep aggregates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from db.candles import CandleStore
from db.migrations import TIMESCALE, mode_of
from db.stored import SeriesKey
from db.timescale import Refresher
from market.timeframe import Timeframe
from tests.db.minutes import (
    VIEWS,
    as_aggregates,
    assert_same,
    assert_views_exact,
    recomputed,
    rows_of,
    stored,
)

_POLICY = """
    SELECT j.job_id FROM timescaledb_information.jobs j JOIN preaggregation_configs p
      ON p.continuous_aggregate = j.hypertable_name
    WHERE p.timeframe = $1 AND j.proc_name = 'policy_refresh_continuous_aggregate'
"""


@dataclass(frozen=True)
class Kept:
    """A store of either mode. In mode `plain` there is nothing to refresh or to compress."""

    url: str
    pool: asyncpg.Pool
    store: CandleStore
    timescale: bool

    async def refresh(self, *, onward: bool = False) -> None:
        """Refresh as the application does."""
        if self.timescale:
            # TimescaleDB's jobs may be at it, where they work.
            await until(lambda: Refresher(self.url).refresh(onward=onward))

    async def run_policy(self, timeframe: str) -> None:
        """Let TimescaleDB refresh one aggregate, as it does by itself now and then."""
        if self.timescale:
            job = await self.pool.fetchval(_POLICY, timeframe)
            await self.pool.execute(f"CALL run_job({job})")

    async def compress(self) -> None:
        """Compress every chunk of bars."""
        if self.timescale:
            await self.pool.execute("SELECT compress_chunk(c) FROM show_chunks('bar') c")

    async def marks(self) -> int:
        return await self.pool.fetchval("SELECT count(*) FROM stale") if self.timescale else 0

    async def assert_exact(self, *keys: SeriesKey) -> None:
        """Fail unless views and reads of all nine aggregates equal the recomputation."""
        for key in keys:
            rows = await rows_of(self.pool, key)
            await assert_views_exact(self.pool, key)
            for timeframe in VIEWS:
                read = await stored(self.store, key, Timeframe.parse(timeframe))
                assert_same(recomputed(rows, timeframe), as_aggregates(read))


async def kept(url: str, pool: asyncpg.Pool) -> Kept:
    return Kept(url, pool, CandleStore(pool), await mode_of(url) == TIMESCALE)


async def until(met: Callable[[], Awaitable[bool]], *, seconds: float = 60.0) -> None:
    """Return once *met* says so; fail if it does not for as long as that."""
    try:
        async with asyncio.timeout(seconds):
            while not await met():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"it did not happen within {seconds} s")


@asynccontextmanager
async def running(refresher: Refresher) -> AsyncIterator[None]:
    """Let *refresher* run inside the block."""
    task = asyncio.create_task(refresher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
