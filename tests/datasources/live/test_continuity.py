"""Whatever crashes or goes away, a viewer ends with exactly the store's closed bars."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from datasources.cursors import CandleCursor
from datasources.live.events import FeedState
from datasources.live.keys import FeedKey
from datasources.live.redis_keys import log_key
from datasources.live.tail_events import ResetReason, Snapshot
from db.candles import CandleStore
from db.pool import open_pool
from market.clock import FixedClock
from market.window import MINUTE
from tests.cutting_proxy import CuttingProxy
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import (
    Process,
    ProcessOpener,
    Writer,
    opened_process,
    viewing,
)
from tests.datasources.live.stores import CountingStore, HaltingStore
from tests.datasources.live.streaming import LISTED, PushesBars
from tests.fakes import row
from web.bootstrap import open_redis

pytestmark = on_embedded

PAST = RUNNING - 100 * MINUTE


@pytest.fixture
def provider() -> PushesBars:
    return PushesBars(FixedClock(NOW))


@pytest.fixture
async def cuttable(redis_proxy: CuttingProxy) -> AsyncIterator[Redis]:
    """A client of Redis whose connections a test can cut."""
    async with open_redis(redis_proxy.url, 20) as redis:
        yield redis


async def close_minute(provider: PushesBars) -> int:
    """Let the running minute end; return when it opened."""
    minute = provider.clock.now() // MINUTE * MINUTE
    provider.tick(minute + MINUTE + 500)
    return minute


async def prune(pool: asyncpg.Pool, series: int) -> None:
    """Let the log of *series* look as if more changed lately than it keeps."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE change SET position = position + change_log_length() + 1 WHERE series_id = $1",
            series,
        )
        await connection.execute(
            "UPDATE series SET position = position + change_log_length() + 1 WHERE id = $1", series
        )


async def test_a_crash_between_commit_and_announcement_loses_nothing(
    provider: PushesBars,
    pool: asyncpg.Pool,
    cuttable: Redis,
    redis_proxy: CuttingProxy,
    redis_prefix: str,
    open_process: ProcessOpener,
) -> None:
    store = HaltingStore(pool)
    async with (
        opened_process(provider, store, cuttable, redis_prefix, lease_ms=1_000) as crashing,
        open_process(provider, feeds=False) as process,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        await close_minute(provider)
        await viewer.until(lambda: viewer.revision(RUNNING))
        minute = await close_minute(provider)
        await viewer.until(lambda: viewer.revision(minute))
        store.passing.clear()
        unheard = await close_minute(provider)
        await store.committed.wait()
        await redis_proxy.shut()
        await crashing.stop()
        assert viewer.revision(unheard) is None
        # History alone could not tell of it: the provider has nothing new to say.
        asked = len(provider.calls)

        async with open_process(provider) as taking_over:
            await viewer.until(lambda: viewer.revision(unheard) == 1)
            await viewer.until(lambda: viewer.live)
            await viewer.until_it_holds(PAST)
            assert taking_over.keeper.feeds == 1

    assert len(provider.calls) > asked
    assert [snapshot.reset for snapshot in viewer.snapshots] == [None]


@pytest.mark.parametrize("log_kept", [True, False])
async def test_what_a_listener_missed_is_read_from_a_log(
    log_kept: bool,
    provider: PushesBars,
    pool: asyncpg.Pool,
    redis: Redis,
    cuttable: Redis,
    redis_proxy: CuttingProxy,
    redis_prefix: str,
    open_process: ProcessOpener,
) -> None:
    store = CountingStore(pool)
    async with (
        open_process(provider) as feeding,
        viewing(feeding) as near,
        opened_process(provider, store, cuttable, redis_prefix, feeds=False) as process,
        viewing(process) as viewer,
        viewing(process, "5m") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        minute = await close_minute(provider)
        await viewer.until(lambda: viewer.revision(minute))
        await redis_proxy.shut()
        await viewer.until(lambda: FeedState.DISCONNECTED in viewer.states)
        read_before = store.logs_read
        for _ in range(4):
            missed = await close_minute(provider)
            await near.until(lambda missed=missed: near.revision(missed))
        if not log_kept:
            await redis.delete(log_key(redis_prefix, FeedKey.of(process.base).name))
        await redis_proxy.open()

        await viewer.until(lambda: viewer.revision(missed) == 1)
        await viewer.until(lambda: viewer.live)
        await viewer.until_it_holds(PAST)
        await coarse.until_it_holds(PAST)

    assert (store.logs_read == read_before) is log_kept
    assert [snapshot.reset for snapshot in viewer.snapshots] == [None]


async def test_redis_away_and_back_costs_no_bar(
    provider: PushesBars,
    store: CandleStore,
    cuttable: Redis,
    redis_proxy: CuttingProxy,
    redis_prefix: str,
) -> None:
    async with (
        opened_process(provider, store, cuttable, redis_prefix, lease_ms=1_000) as process,
        viewing(process) as viewer,
        viewing(process, "7m") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        minute = await close_minute(provider)
        await viewer.until(lambda: viewer.revision(minute))
        await redis_proxy.shut()
        await viewer.until(lambda: FeedState.DISCONNECTED in viewer.states)
        for _ in range(3):
            minute = await close_minute(provider)
            (state,) = [await process.state()]
            assert state is not None
        await redis_proxy.open()

        await viewer.until(lambda: viewer.revision(minute) == 1)
        await viewer.until(lambda: viewer.live)
        await viewer.until_it_holds(PAST)
        await coarse.until_it_holds(PAST)

    assert [snapshot.reset for snapshot in viewer.snapshots] == [None]


async def cursor_of(process: Process) -> CandleCursor:
    """Return the cursor of a viewer that has seen all there is."""
    async with viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        await viewer.until_it_holds(PAST)
        await viewer.until(lambda: viewer.cursors[-1].positions)
        return viewer.cursors[-1]


@pytest.mark.parametrize(
    "reason",
    [
        ResetReason.STORE_REPLACED,
        ResetReason.POSITION_UNKNOWN,
        ResetReason.NO_STORE,
        ResetReason.LOG_PRUNED,
    ],
)
async def test_a_cursor_that_proves_nothing_gets_a_snapshot_and_the_reason(
    reason: ResetReason, provider: PushesBars, pool: asyncpg.Pool, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process:
        cursor = await cursor_of(process)
        ((series, position),) = cursor.positions.items()
        match reason:
            case ResetReason.STORE_REPLACED:
                cursor = CandleCursor(uuid4(), cursor.positions, NOW)
            case ResetReason.POSITION_UNKNOWN:
                cursor = CandleCursor(cursor.store, {series: position + 1_000}, NOW)
            case ResetReason.NO_STORE:
                cursor = CandleCursor(None, {}, NOW)
            case _:
                await prune(pool, series)
        async with viewing(process, after=cursor) as viewer:
            await viewer.until(lambda: viewer.live)
            await viewer.until_it_holds(PAST)

    first = viewer.events[0]
    assert isinstance(first, Snapshot)
    assert first.reset is reason


async def test_a_log_pruned_past_a_listener_resets_it(
    provider: PushesBars,
    store: CandleStore,
    pool: asyncpg.Pool,
    redis: Redis,
    cuttable: Redis,
    redis_proxy: CuttingProxy,
    redis_prefix: str,
    open_process: ProcessOpener,
) -> None:
    async with (
        open_process(provider) as feeding,
        viewing(feeding) as near,
        opened_process(provider, store, cuttable, redis_prefix, feeds=False) as process,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        await redis_proxy.shut()
        await viewer.until(lambda: FeedState.DISCONNECTED in viewer.states)
        minute = await close_minute(provider)
        await near.until(lambda: near.revision(minute))
        await redis.delete(log_key(redis_prefix, FeedKey.of(process.base).name))
        state = await process.state()
        assert state is not None
        await prune(pool, state.id)
        await redis_proxy.open()

        await viewer.until(lambda: len(viewer.snapshots) > 1)
        await viewer.until_it_holds(PAST)
        minute = await close_minute(provider)
        await viewer.until(lambda: viewer.revision(minute) == 1)

    assert viewer.snapshots[1].reset is ResetReason.LOG_PRUNED


async def test_a_store_made_anew_resets_viewers_and_they_go_on(
    provider: PushesBars, fresh_store_url: str, redis: Redis, redis_prefix: str
) -> None:
    async with (
        open_pool(fresh_store_url) as pool,
        opened_process(provider, CandleStore(pool), redis, redis_prefix) as process,
        viewing(process) as viewer,
        viewing(process, "5m") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        for _ in range(3):
            minute = await close_minute(provider)
            await viewer.until(lambda minute=minute: viewer.revision(minute))
        await pool.execute("TRUNCATE series, bar, rollup, change RESTART IDENTITY")
        await pool.execute("UPDATE store SET id = gen_random_uuid()")
        async for key in redis.scan_iter(f"{redis_prefix}chunk:*"):
            await redis.delete(key)
        minute = await close_minute(provider)

        await viewer.until(lambda: len(viewer.snapshots) > 1, "a reset")
        await viewer.until(lambda: viewer.revision(minute) == 1)
        minute = await close_minute(provider)
        await viewer.until(lambda: viewer.revision(minute) == 1)
        await viewer.until_it_holds(PAST)
        await coarse.until_it_holds(PAST)

    assert viewer.snapshots[1].reset is ResetReason.STORE_REPLACED
    assert len(viewer.snapshots) == 2


async def test_what_another_process_writes_is_announced(
    provider: PushesBars, pool: asyncpg.Pool, open_process: ProcessOpener
) -> None:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(open_process(provider))
        other = Writer(process, CandleStore(pool))
        await other.correct(LISTED, row(LISTED))
        viewer = await stack.enter_async_context(viewing(process))
        coarse = await stack.enter_async_context(viewing(process, "5m"))
        await viewer.until(lambda: viewer.live)
        minute = await close_minute(provider)
        await viewer.until(lambda: viewer.revision(minute) == 1)
        await viewer.until_it_holds(PAST)

        past = (process.series("1m"), minute - 25 * MINUTE, minute - 15 * MINUTE)
        await process.answer(*past)

        # One that was told just now, and one that caches hold for good.
        for wrong in (minute, minute - 20 * MINUTE):
            await other.correct(wrong, row(wrong, version=1))
            await viewer.until(lambda wrong=wrong: viewer.revision(wrong) == 2)

        # Whoever wrote did not tell the cache.
        assert max((await process.answer(*past)).revision) == 2
        await viewer.until_it_holds(PAST)
        await coarse.until_it_holds(PAST)
