"""However many processes feed, a base has one upstream, and somebody takes over who holds it."""

from __future__ import annotations

from dataclasses import replace

from datasources.live.events import FeedState
from datasources.live.keys import FeedKey
from db.candles import CandleStore
from market.clock import FixedClock
from market.window import MINUTE
from tests.cutting_proxy import CuttingProxy
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import QUICK, ProcessOpener, opened_process, until, viewing
from tests.datasources.live.streaming import PushesBars
from web.bootstrap import open_redis

pytestmark = on_embedded

PAST = RUNNING - 60 * MINUTE


async def test_of_many_processes_one_opens_the_stream(open_process: ProcessOpener) -> None:
    provider = PushesBars(FixedClock(NOW))
    async with (
        open_process(provider) as one,
        open_process(provider) as other,
        open_process(provider) as third,
        viewing(one) as viewer,
        viewing(other, "5m") as coarse,
        viewing(third, "1h") as coarser,
    ):
        for each in (viewer, coarse, coarser):
            await each.until(lambda each=each: each.live)
        provider.tick(RUNNING + MINUTE + 1)
        await viewer.until(lambda: viewer.revision(RUNNING))

        assert one.keeper.feeds + other.keeper.feeds + third.keeper.feeds == 1

    assert provider.streams.opened == provider.streams.most_open == 1
    assert provider.streams.open == []


async def test_another_takes_over_when_the_holder_dies_and_closes_the_hole(
    redis_proxy: CuttingProxy,
    redis_prefix: str,
    store: CandleStore,
    open_process: ProcessOpener,
) -> None:
    provider = PushesBars(FixedClock(NOW))
    async with (
        open_redis(redis_proxy.url, 20) as cuttable,
        opened_process(provider, store, cuttable, redis_prefix, lease_ms=1_000) as dying,
        open_process(provider, feeds=False) as process,
        viewing(process) as viewer,
        viewing(process, "7m") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        async with open_process(provider) as taking_over:
            for _ in range(2):
                provider.tick(provider.clock.now() + MINUTE)
            # Cut off from Redis it can give nothing back, as if it were killed.
            await redis_proxy.shut()
            await dying.stop()
            assert provider.streams.open == []
            for _ in range(3):
                provider.clock.at += MINUTE
            missed = provider.clock.now() // MINUTE * MINUTE - MINUTE

            await viewer.until(lambda: viewer.revision(missed) == 1)
            await viewer.until(lambda: viewer.live)
            assert taking_over.keeper.feeds == 1
            await viewer.until_it_holds(PAST)
            await coarse.until_it_holds(PAST)

    assert provider.streams.most_open == 1
    assert [snapshot.reset for snapshot in viewer.snapshots] == [None]


async def test_a_holder_that_was_cut_off_stops_when_it_learns_that_another_took_over(
    redis_proxy: CuttingProxy,
    redis_prefix: str,
    store: CandleStore,
    open_process: ProcessOpener,
) -> None:
    provider = PushesBars(FixedClock(NOW))
    async with (
        open_redis(redis_proxy.url, 20) as cuttable,
        opened_process(provider, store, cuttable, redis_prefix, lease_ms=1_000) as cut_off,
        open_process(provider, feeds=False) as process,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        async with open_process(provider) as taking_over:
            await redis_proxy.shut()
            await until(lambda: taking_over.keeper.feeds == 1)
            await until(lambda: len(provider.streams.open) == 2)
            provider.tick(RUNNING + MINUTE + 1)
            await viewer.until(lambda: viewer.revision(RUNNING))
            await redis_proxy.open()

            await until(lambda: cut_off.keeper.feeds == 0)
            await until(lambda: len(provider.streams.open) == 1)
            provider.tick(RUNNING + 2 * MINUTE + 1)
            await viewer.until(lambda: viewer.revision(RUNNING + MINUTE))
            await viewer.until_it_holds(PAST)


async def test_after_the_last_viewer_left_the_stream_is_closed(
    open_process: ProcessOpener,
) -> None:
    provider = PushesBars(FixedClock(NOW))
    async with open_process(provider, grace_ms=2_000) as process:
        async with viewing(process) as viewer:
            await viewer.until(lambda: viewer.live)
            async with viewing(process) as another:
                await another.until(lambda: another.live)
            # It is wanted for as long as one of them is there.
            wanted = FeedKey.of(process.base).packed()
            assert wanted in await process.interest.wanted()
        await until(lambda: not provider.streams.open, "the end of the stream")
        await until(lambda: process.keeper.feeds == 0)
        assert process.sources.tails.count == 0

        async with viewing(process) as viewer:
            provider.tick(RUNNING + MINUTE + 1)
            await viewer.until(lambda: viewer.revision(RUNNING))

    assert provider.streams.opened == 2


async def test_without_any_keeper_viewers_are_told(open_process: ProcessOpener) -> None:
    provider = PushesBars(FixedClock(NOW))
    pacing = replace(QUICK, unheard=0.2)
    async with (
        open_process(provider, feeds=False, pacing=pacing) as process,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.states[-1:] == [FeedState.STALLED])

    assert "No process" in viewer.message
