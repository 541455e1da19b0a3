"""From a provider's trades to stored minutes, through everything in between."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest
from redis.asyncio import Redis

from datasources.ingest.entry import packed
from datasources.ingest.sources import SourceName
from db.candles import CandleStore
from market.clock import FixedClock
from market.window import MINUTE, Spans
from plugins.base import Trade
from tests.cutting_proxy import CuttingProxy
from tests.datasources.chains import NOW, RUNNING, SETTLE, on_embedded
from tests.datasources.ingest.stage import (
    HASTY,
    Asked,
    Pushing,
    PushingWithPast,
    StageOpener,
    eventually,
    joined,
    opened_stage,
)
from tests.datasources.live.processes import ProcessOpener, opened_process, viewing
from tests.datasources.live.streaming import Polled
from tests.db.minutes import assert_views_exact, minutes, put
from tests.db.trades import LATE, Deal, assert_made_of, telling, trades_in
from web.bootstrap import open_redis

pytestmark = on_embedded

NEXT = RUNNING + MINUTE
THEN = NEXT + MINUTE


def dealt(provider: Pushing, since: int, until: int) -> list[Deal]:
    return [deal for deal in provider.deals if since <= deal.time < until]


def trade(provider: Pushing, since: int, count: int = 10) -> None:
    """Let there be trades in the minute that begins at *since*."""
    for n in range(count):
        provider.execute(since + n * 4_000 + 300, 100 + n * 7 % 5 / 8, 1 + n / 10)


async def test_the_first_whole_minute_becomes_a_bar(
    open_stage: StageOpener, pool: asyncpg.Pool
) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await joined(provider)
        provider.execute(NOW + 5, 50.0)
        trade(provider, NEXT)
        provider.execute(THEN + LATE, 70.0)

        bars = await eventually(stage.bars)

        assert_made_of(bars, dealt(provider, NEXT, THEN))
        assert await trades_in(pool, stage.key) == provider.deals
        await assert_views_exact(pool, stage.key)


async def test_a_minute_joined_in_its_middle_leaves_the_whole_bar_alone(
    open_stage: StageOpener,
) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await put(stage.store, stage.key, minutes([RUNNING]), NOW)
        await joined(provider)
        provider.execute(NOW + 5, 50.0)
        trade(provider, NEXT)
        provider.execute(THEN + LATE, 70.0)

        bars = await eventually(lambda: _bars_from(stage, NEXT))

        assert (await stage.bars()).time.tolist() == [RUNNING, *bars.time.tolist()]
        assert (await stage.bars()).close.tolist()[0] == 10.0


async def test_a_minute_that_runs_is_not_stored(open_stage: StageOpener) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await joined(provider)
        trade(provider, NEXT)
        provider.execute(THEN + LATE - 1, 70.0)

        await eventually(lambda: _told(stage, THEN + LATE - 1))

        assert len(await stage.bars()) == 0


async def test_silence_completes_no_minute(open_stage: StageOpener) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await joined(provider)
        trade(provider, NEXT)
        newest = provider.executed[-1].time
        await eventually(lambda: _told(stage, newest))

        provider.clock.at = THEN + SETTLE

        assert (await stage.told()).hull.until // 1000 == newest
        assert len(await stage.bars()) == 0


async def test_a_late_trade_revises_what_queries_answer(
    open_stage: StageOpener, store: CandleStore, redis: Redis, redis_prefix: str
) -> None:
    provider = Pushing(FixedClock(NOW))
    async with (
        open_stage(provider) as stage,
        opened_process(provider, store, redis, redis_prefix, feeds=False) as process,
    ):
        await joined(provider)
        trade(provider, NEXT)
        provider.execute(THEN + SETTLE + 3 * MINUTE, 70.0)
        await eventually(stage.bars)
        series = process.series("1m")
        before = await process.answer(series, NEXT, THEN)

        provider.execute(NEXT + 11, 500.0)

        await eventually(lambda: _high(stage, 500.0))
        revised = await process.answer(series, NEXT, THEN)
        assert_made_of(revised, dealt(provider, NEXT, THEN))
        assert revised.revision[0] == before.revision[0] + 1


async def test_minutes_that_settled_are_known_and_not_asked_for(
    open_stage: StageOpener,
) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await joined(provider)
        trade(provider, NEXT)
        provider.execute(THEN + SETTLE, 70.0)
        await eventually(lambda: _told(stage, THEN + SETTLE))

        state = await stage.state()

        assert state is not None
        assert state.known == Spans.of(NEXT, THEN)


async def test_viewers_are_told_what_trades_made(
    open_stage: StageOpener, open_process: ProcessOpener
) -> None:
    provider = Polled(FixedClock(NOW))
    minute = RUNNING - 10 * MINUTE
    deals = [Deal.of("1", minute + 5, 500.0), Deal.of("2", minute + 6, 501.0)]
    async with (
        open_stage(provider) as stage,
        open_process(provider) as process,
        viewing(process) as viewer,
        viewing(process, "5m") as coarse,
    ):
        await viewer.until(lambda: viewer.live and viewer.revision(minute) == 1)
        await coarse.until(lambda: coarse.live)

        told = telling(stage.key, deals, minute, NOW + 10_000)
        await stage.stream.add([packed(told)])

        await viewer.until(lambda: viewer.revision(minute) == 2)
        await viewer.until_it_holds(minute)
        await coarse.until_it_holds(minute)
        assert 501.0 in coarse.bars.high.tolist()


async def test_a_lost_stream_leaves_its_minutes_to_history(open_stage: StageOpener) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await joined(provider)
        trade(provider, NEXT, 5)
        provider.streams.lose()
        provider.execute(NEXT + 30_000, 77.0, told=False)
        await eventually(lambda: _opened(provider, 2))
        await joined(provider)
        trade(provider, THEN)
        provider.execute(THEN + MINUTE + LATE, 70.0)

        bars = await eventually(stage.bars)

        assert_made_of(bars, dealt(provider, THEN, THEN + MINUTE))


async def test_the_hole_after_a_lost_stream_is_filled_from_the_past(
    open_stage: StageOpener, pool: asyncpg.Pool
) -> None:
    provider = PushingWithPast(FixedClock(NOW))
    async with open_stage(provider) as stage:
        provider.execute(RUNNING + 3, 60.0, told=False)
        await joined(provider)
        trade(provider, NEXT, 5)
        provider.streams.lose()
        provider.execute(NEXT + 30_000, 77.0, told=False)
        await eventually(lambda: _opened(provider, 2))
        await joined(provider)
        trade(provider, THEN)
        provider.execute(THEN + MINUTE + LATE, 70.0)

        await eventually(lambda: _count(stage, 3))

        assert_made_of(await stage.bars(), dealt(provider, RUNNING, THEN + MINUTE))
        assert await trades_in(pool, stage.key) == provider.deals
        assert stage.counts.filled > 0


async def test_a_past_trade_that_cannot_be_true_keeps_no_younger_hole_open(
    open_stage: StageOpener,
) -> None:
    provider = PushingWithPast(FixedClock(NOW))
    async with open_stage(provider) as stage:
        for connection, (minute, price) in enumerate(((NEXT, float("nan")), (THEN, 77.0)), 1):
            await joined(provider)
            trade(provider, minute, 5)
            provider.streams.lose()
            provider.execute(minute + 30_000, price, told=False)
            await eventually(lambda times=connection + 1: _opened(provider, times))
        await joined(provider)
        provider.execute(THEN + MINUTE + LATE, 70.0)

        bars = await eventually(lambda: _bars_from(stage, THEN))

        assert_made_of(bars, dealt(provider, THEN, THEN + MINUTE))


async def test_what_the_past_could_not_tell_is_asked_for_again(open_stage: StageOpener) -> None:
    provider = PushingWithPast(FixedClock(NOW))
    provider.unable = True
    async with open_stage(provider) as stage:
        provider.execute(RUNNING + 3, 60.0, told=False)
        await joined(provider)
        await eventually(lambda: _asked(provider, 1))
        provider.execute(NEXT + LATE, 70.0)

        provider.unable = False

        assert_made_of(await eventually(stage.bars), dealt(provider, RUNNING, NEXT))


async def test_a_provider_that_pushes_nothing_is_asked_again_and_again(
    open_stage: StageOpener,
) -> None:
    provider = Asked(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await eventually(lambda: _told(stage, RUNNING))
        provider.execute(NEXT + 3, 60.0)
        provider.execute(NEXT + 9, 61.0)
        provider.clock.at = THEN + LATE + 100

        bars = await eventually(stage.bars)

        assert_made_of(bars, provider.deals)


@pytest.mark.parametrize(
    ("price", "amount"),
    [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, -1.0), (1.0, float("inf"))],
)
async def test_a_trade_that_cannot_be_true_is_a_hole(
    open_stage: StageOpener, price: float, amount: float
) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as stage:
        await joined(provider)
        provider.execute(NEXT + 5, 100.0)
        provider.execute(NEXT + 6, price, amount)
        provider.execute(NEXT + 7, 100.0)
        trade(provider, THEN)
        provider.execute(THEN + MINUTE + LATE, 70.0)

        bars = await eventually(stage.bars)

        assert_made_of(bars, dealt(provider, THEN, THEN + MINUTE))
        assert stage.counts.refused == 1


async def test_a_source_that_cannot_be_had_stands_in_nobodys_way(
    open_stage: StageOpener, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Pushing(FixedClock(NOW))
    wrong = (SourceName("absent", "BTC"), SourceName("fake", "BTC"))
    async with open_stage(provider, others=wrong) as stage:
        await joined(provider)
        trade(provider, NEXT)
        provider.execute(THEN + LATE, 70.0)

        assert_made_of(await eventually(stage.bars), dealt(provider, NEXT, THEN))

    said = [record.getMessage() for record in caplog.records]
    for name in wrong:
        assert any(line.startswith(f"Cannot ingest {name}: Unknown") for line in said)


async def test_of_many_processes_one_publishes_and_all_store(open_stage: StageOpener) -> None:
    provider = Pushing(FixedClock(NOW))
    async with open_stage(provider) as one, open_stage(provider) as other:
        await joined(provider)
        for n in range(20):
            trade(provider, NEXT + n * MINUTE)
            provider.execute(THEN + n * MINUTE + LATE, 70.0)
            await eventually(lambda n=n: _count(one, n + 1))

        assert_made_of(await one.bars(), dealt(provider, NEXT, THEN + 19 * MINUTE))
        assert one.counts.publishing + other.counts.publishing == 1
        assert one.counts.stored + other.counts.stored >= len(provider.deals)

    assert provider.streams.most_open == 1


async def test_another_process_publishes_when_the_first_is_gone(open_stage: StageOpener) -> None:
    provider = PushingWithPast(FixedClock(NOW))
    async with open_stage(provider) as one:
        await joined(provider)
        trade(provider, NEXT, 5)
        await eventually(lambda: _told(one, provider.executed[-1].time))
    provider.execute(NEXT + 30_000, 77.0, told=False)
    async with open_stage(provider) as other:
        await joined(provider)
        provider.execute(THEN + LATE, 70.0)

        bars = await eventually(lambda: _bars_from(other, NEXT))

        assert_made_of(bars, dealt(provider, NEXT, THEN))


async def test_a_burst_larger_than_what_may_wait_goes_through(
    open_stage: StageOpener, pool: asyncpg.Pool
) -> None:
    provider = Pushing(FixedClock(NOW))
    # Whoever loses the source in between misses what is pushed: that is another test.
    async with open_stage(provider, pacing=replace(HASTY, lease=60.0)) as stage:
        await joined(provider)
        provider.clock.at = THEN + LATE
        burst = [Trade(str(n), NEXT + n, 100 + n % 7 / 8, 1.0) for n in range(60_000)]
        provider.executed += [*burst, Trade("last", THEN + LATE, 70.0, 1.0)]
        for n in range(0, len(provider.executed), 500):
            provider.streams.push(provider.executed[n : n + 500])

        bars = await eventually(stage.bars)

        assert_made_of(bars, dealt(provider, NEXT, THEN))
        assert await trades_in(pool, stage.key) == provider.deals
        assert stage.counts.shed == 0


async def test_trades_wait_while_redis_is_away(
    redis_proxy: CuttingProxy, redis_prefix: str, store: CandleStore
) -> None:
    provider = Pushing(FixedClock(NOW))
    async with (
        open_redis(redis_proxy.url, 20) as cuttable,
        opened_stage(provider, store, cuttable, redis_prefix) as stage,
    ):
        await joined(provider)
        trade(provider, NEXT, 5)
        await eventually(lambda: _told(stage, provider.executed[-1].time))
        await redis_proxy.shut()
        for n in range(5):
            provider.execute(NEXT + 40_000 + n, 90.0)
        provider.execute(THEN + LATE, 70.0)
        await eventually(lambda: _drained(provider))

        await redis_proxy.open()

        assert_made_of(await eventually(stage.bars), dealt(provider, NEXT, THEN))


async def _bars_from(stage, time):
    bars = await stage.bars()
    return bars.take(bars.time >= time)


async def _told(stage, until):
    told = await stage.told()
    return told and told.hull.until >= until * 1000


async def _high(stage, price):
    return price in (await stage.bars()).high.tolist()


async def _count(stage, count):
    return len(await stage.bars()) >= count


async def _opened(provider, times):
    return provider.streams.opened >= times


async def _asked(provider, times):
    return len(provider.asked_trades) >= times


async def _drained(provider):
    return all(stream.drained for stream in provider.streams.open)
