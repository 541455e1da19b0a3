"""What a tail makes of the words of a feed; here the test is the feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from datasources.cursors import CandleCursor
from datasources.live.events import BaseEvent, FeedState, Status
from datasources.live.keys import FeedKey
from datasources.live.redis_keys import log_key
from datasources.live.tail_events import RangeChanged, Snapshot
from db.candles import CandleStore
from market.bars import Bars
from market.clock import FixedClock
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Window
from plugins.base import NativeFrame
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import (
    Process,
    ProcessOpener,
    Writer,
    viewing,
)
from tests.datasources.live.streaming import LISTED, Polled, PushesBars
from tests.fakes import row

pytestmark = on_embedded

BUCKET = RUNNING // (5 * MINUTE) * 5 * MINUTE
CLOSE = BUCKET + 5 * MINUTE
PAST = RUNNING - 60 * MINUTE


@dataclass
class Feed:
    """Speaks for the minutes of a process."""

    process: Process

    async def event(self, *, told_from: int, told: int, forming: Bars | None = None) -> BaseEvent:
        state = await self.process.state()
        assert state is not None
        return BaseEvent(
            store=await self.process.links.store.store_id(),
            series=state.id,
            position=state.position,
            previous=state.position,
            told_from=told_from,
            told=told,
            forming=forming or Bars.empty(),
            status=Status(FeedState.LIVE, told, ""),
        )

    async def say(self, event: BaseEvent) -> None:
        channel = FeedKey.of(self.process.base).name
        assert await self.process.broadcaster.publish(channel, event.packed())


@pytest.fixture
def provider() -> Polled:
    return Polled(FixedClock(NOW))


@pytest.fixture
async def process(provider: Polled, open_process: ProcessOpener) -> AsyncIterator[Process]:
    async with open_process(provider, feeds=False) as process:
        yield process


async def test_a_closed_bucket_that_cannot_be_read_is_told_once_it_can(
    provider: Polled, process: Process
) -> None:
    feed = Feed(process)
    async with viewing(process, "5m") as viewer:
        provider.failing = lambda call: True
        provider.clock.at = CLOSE + 1_000
        # This feed began after the bucket, so it knows nothing of its minutes.
        await feed.say(await feed.event(told_from=CLOSE, told=CLOSE))
        await viewer.until(lambda: viewer.live)
        assert viewer.revision(BUCKET) is None
        later = CLOSE + MINUTE
        provider.clock.at = later + 1_000
        await feed.say(await feed.event(told_from=CLOSE, told=later))
        async with viewing(process, "5m", after=viewer.cursors[-1]) as resumed:
            provider.failing = lambda call: False
            provider.clock.at += 1_000
            await feed.say(await feed.event(told_from=CLOSE, told=later))

            await viewer.until(lambda: viewer.revision(BUCKET))
            await resumed.until(lambda: resumed.revision(BUCKET))
            await viewer.until_it_holds(PAST)


async def test_what_the_log_of_another_store_says_is_not_believed(
    process: Process, pool: asyncpg.Pool, redis: Redis
) -> None:
    feed = Feed(process)
    backfill = Writer(process, CandleStore(pool))
    async with viewing(process) as viewer:
        before = await feed.event(told_from=RUNNING, told=RUNNING)
        await feed.say(before)
        await viewer.until(lambda: viewer.live)
        for n in (5, 4, 3):
            wrong = RUNNING - n * MINUTE
            written = await backfill.correct(wrong, row(wrong, version=1))
        now = await feed.event(told_from=RUNNING, told=RUNNING)
        # Another store stood at the same positions, and its log is still there.
        foreign = replace(
            before, store=uuid4(), position=now.position - 1, previous=before.position
        )
        ours = replace(
            now,
            previous=foreign.position,
            changes=(Window(written.changes[0].since, written.changes[0].until),),
            bars=written.bars,
        )
        log = log_key(process.prefix, FeedKey.of(process.base).name)
        for event in (foreign, ours):
            entry = {"previous": event.previous, "token": 1, "message": event.packed()}
            await redis.xadd(log, entry, id=f"{event.position}-0")
        await feed.say(now)

        await viewer.until(lambda: viewer.revision(RUNNING - 3 * MINUTE) == 2)
        await viewer.until(lambda: viewer.revision(RUNNING - 5 * MINUTE) == 2)


async def test_a_correction_read_before_it_is_announced_reaches_who_resumed_before_it(
    process: Process, pool: asyncpg.Pool
) -> None:
    feed = Feed(process)
    backfill = Writer(process, CandleStore(pool))
    minute = RUNNING - 5 * MINUTE
    async with viewing(process) as viewer:
        before = await feed.event(told_from=RUNNING, told=RUNNING)
        await feed.say(before)
        await viewer.until(lambda: viewer.live)
        await backfill.correct(minute, row(minute, version=1))
        first = replace(
            await feed.event(told_from=RUNNING, told=RUNNING),
            previous=before.position,
            changes=(Window(minute, minute + 1),),
            whole=False,
        )
        async with viewing(process, after=viewer.cursors[-1]) as resumed:
            await resumed.until(lambda: resumed.revision(minute) == 2)
            await backfill.correct(minute, row(minute, version=2))
            # The first correction is announced only now, and what is read for it is the second.
            await feed.say(first)
            await viewer.until(lambda: viewer.revision(minute) == 3)
            second = await feed.event(told_from=RUNNING, told=RUNNING)
            await feed.say(
                replace(second, previous=first.position, changes=first.changes, whole=False)
            )

            await resumed.until(lambda: resumed.revision(minute) == 3)


async def test_whoever_goes_on_between_a_changed_range_and_its_bars_gets_the_bars(
    process: Process, pool: asyncpg.Pool
) -> None:
    feed = Feed(process)
    backfill = Writer(process, CandleStore(pool))
    old, recent = RUNNING - 700 * MINUTE, RUNNING - 7 * MINUTE
    async with viewing(process) as viewer:
        await feed.say(await feed.event(told_from=RUNNING, told=RUNNING))
        await viewer.until(lambda: viewer.live)
        begun = await feed.event(told_from=RUNNING, told=RUNNING)
        start = CandleCursor(begun.store, {begun.series or 0: begun.position}, RUNNING)
        for minute in (old, recent):
            await backfill.correct(minute, row(minute, version=1))
        async with viewing(process, after=start) as resumed:
            await resumed.until(lambda: resumed.revision(recent))
        now = await feed.event(told_from=RUNNING, told=RUNNING)
        await feed.say(now)
        await viewer.until(lambda: viewer.revision(recent) == 2)

        for told in (resumed.events, viewer.events):
            ranges = [event for event in told if isinstance(event, RangeChanged)]
            async with viewing(process, after=ranges[-1].cursor) as again:
                await again.until(lambda again=again: again.revision(recent) == 2)


async def test_going_on_from_a_live_cursor_tells_nothing_of_bases_that_did_not_change(
    open_process: ProcessOpener,
) -> None:
    hours, days = (NativeFrame(Timeframe.parse(frame)) for frame in ("1h", "1d"))
    provider = PushesBars(
        FixedClock(NOW), natives=(hours, days), offered_from=NOW - DAY, natives_from=LISTED
    )
    async with open_process(provider) as process, viewing(process, "1h") as viewer:
        await viewer.until(lambda: viewer.live)
        provider.tick(RUNNING + MINUTE + 1)
        provider.tick(RUNNING // HOUR * HOUR + HOUR + 1)
        closed = RUNNING // HOUR * HOUR
        await viewer.until(lambda: viewer.revision(closed))
        await viewer.until_it_holds(NOW - 12 * HOUR)

        async with viewing(process, "1h", after=viewer.updates[-1].cursor) as resumed:
            await resumed.until(lambda: resumed.live)

    assert not [event for event in resumed.events if isinstance(event, RangeChanged | Snapshot)]
    # The newest hour may have come from its own base meanwhile; no others have.
    assert len(resumed.closed) <= 1


async def test_what_changed_in_a_bucket_that_is_over_for_the_viewer_and_not_for_the_feed_is_told(
    provider: Polled, process: Process, pool: asyncpg.Pool
) -> None:
    feed = Feed(process)
    backfill = Writer(process, CandleStore(pool))
    provider.clock.at = CLOSE + 1_000
    async with viewing(process, "5m") as viewer:
        # The feed is late: for it the last minute of the bucket still runs.
        await feed.say(await feed.event(told_from=BUCKET, told=CLOSE - MINUTE))
        await viewer.until(lambda: viewer.live)
        before = viewer.revision(BUCKET)
        assert before
        cursor = viewer.snapshots[0].cursor
        wrong = BUCKET + MINUTE
        await backfill.correct(wrong, row(wrong, version=1))
        async with viewing(process, "5m", after=cursor) as resumed:
            resumed.bars = viewer.bars
            await resumed.until(lambda: resumed.live)
            meanwhile = resumed.cursors[-1] if resumed.cursors else cursor
            event = await feed.event(told_from=BUCKET, told=CLOSE)
            await feed.say(replace(event, previous=event.position - 1))

            for each in (viewer, resumed):
                await each.until(lambda each=each: each.revision(BUCKET) == before + 1)
        async with viewing(process, "5m", after=meanwhile) as again:
            await again.until(lambda: again.revision(BUCKET) == before + 1)
