"""A feed joins its stream to history: each bar is stored, then told, whatever the stream does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis

from datasources.live.events import BaseEvent, FeedState
from datasources.live.keys import FeedKey
from db.candles import CandleStore
from db.pool import open_pool
from db.stored import SeriesKey, Wanted
from market.bars import CLOSED
from market.clock import FixedClock
from market.timeframe import MINUTE_FRAME, SECOND_FRAME
from market.window import MINUTE, Spans, Window
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import (
    QUICK,
    Process,
    ProcessOpener,
    opened_process,
    until,
    viewing,
)
from tests.datasources.live.streaming import Polled, PushesBars, PushesTrades
from tests.fakes import Row, row

pytestmark = on_embedded

PAST = RUNNING - 60 * MINUTE
NEXT = RUNNING + MINUTE


@pytest.fixture
def provider() -> PushesBars:
    return PushesBars(FixedClock(NOW))


@asynccontextmanager
async def told_to(process: Process) -> AsyncIterator[list[BaseEvent]]:
    """Yield everything that is told of the minutes, as it comes."""
    channel = FeedKey.of(process.base).name
    events: list[BaseEvent] = []
    async with process.broadcaster.listen(channel) as inbox:

        async def listen() -> None:
            async for message in inbox:
                if isinstance(message, bytes):
                    event = BaseEvent.unpacked(message)
                    assert event is not None
                    events.append(event)

        task = asyncio.create_task(listen())
        try:
            yield events
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def half(minute: int) -> Row:
    """Return what somebody saw of *minute* who joined in the middle of it."""
    whole = row(minute)
    return replace(
        whole,
        open=whole.close,
        high=whole.close,
        low=whole.close,
        volume=whole.volume / 8,
        vwap=whole.close,
        trades=1,
    )


async def test_a_bar_is_stored_before_it_is_told_as_closed(
    provider: PushesBars, store: CandleStore, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        key = SeriesKey(process.base.listing, MINUTE_FRAME)
        for n in range(5):
            minute = RUNNING + n * MINUTE
            provider.tick(minute + MINUTE + 1)
            await viewer.until(lambda minute=minute: minute in viewer.closed.time)

            (found,) = await store.snapshot([Wanted(key, Window(minute, minute + 1))])

            assert found.bars.close.tolist() == [row(minute).close]
            assert viewer.revision(minute) == 1


async def test_forming_bars_are_conflated_and_the_closing_values_follow(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        before = len(viewer.events)
        for n in range(300):
            provider.tick(NOW + n * 100)
        provider.tick(NEXT + 1)

        await viewer.until(lambda: viewer.revision(RUNNING))
        bar = viewer.closed.last(1)

        assert bar.close.tolist() == [row(RUNNING).close]
        assert bar.volume.tolist() == [row(RUNNING).volume]
        assert len(viewer.events) - before < 100


@pytest.mark.parametrize("flags", [0, CLOSED])
async def test_half_a_bar_after_a_reconnect_never_replaces_the_whole_one(
    flags: int, provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with (
        open_process(provider) as process,
        told_to(process) as events,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        provider.tick(NOW + 5_000)
        provider.streams.lose()
        await viewer.until(lambda: FeedState.DISCONNECTED in viewer.states)
        await viewer.until(lambda: viewer.live)
        provider.clock.at += 5_000
        provider.push_row(RUNNING, half(RUNNING))
        provider.clock.at = NEXT + 1
        provider.push_row(RUNNING, half(RUNNING), flags=flags)
        provider.push_row(NEXT, row(NEXT).so_far(1))

        await viewer.until(lambda: viewer.revision(RUNNING))
        provider.tick(NEXT + MINUTE + 1)
        await viewer.until(lambda: viewer.revision(NEXT))
        await viewer.until_it_holds(PAST)

    assert viewer.revision(RUNNING) == 1
    volumes = [
        float(bars.volume[bars.time == RUNNING][0])
        for event in events
        for bars in (event.bars,)
        if RUNNING in bars.time
    ]
    assert set(volumes) <= {row(RUNNING).volume}


async def test_a_forming_bar_in_doubt_shows_what_history_and_stream_know_together(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        await viewer.until(lambda: len(viewer.forming))
        known = viewer.forming
        provider.clock.at += 1_000
        provider.push_row(RUNNING, half(RUNNING))

        await viewer.until(lambda: viewer.forming.close[0] == row(RUNNING).close)

    assert viewer.forming.open.tolist() == known.open.tolist()
    assert viewer.forming.low.tolist() == [min(known.low[0], row(RUNNING).close)]
    assert viewer.forming.high.tolist() == [max(known.high[0], row(RUNNING).close)]
    assert viewer.forming.volume.tolist() == known.volume.tolist()


async def test_a_closed_bar_that_is_pushed_again_is_told_with_a_higher_revision(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        # One that the stream saw whole, and one from before it was joined.
        provider.tick(NEXT + 1)
        provider.tick(NEXT + MINUTE + 1)
        await viewer.until(lambda: viewer.revision(NEXT) == 1)
        for minute in (NEXT, RUNNING - MINUTE):
            provider.market.rows[minute] = row(minute, version=1)
            provider.clock.at += 1_000
            provider.push_row(minute, row(minute, version=1), flags=CLOSED)

            await viewer.until(lambda minute=minute: viewer.revision(minute) == 2)

        await viewer.until_it_holds(PAST)


async def test_what_history_says_later_of_a_bar_is_told_with_a_higher_revision(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        provider.tick(NEXT + 1)
        provider.tick(NEXT + MINUTE + 1)
        await viewer.until(lambda: viewer.revision(NEXT) == 1)
        provider.market.rows[NEXT] = row(NEXT, version=1)
        provider.tick(NEXT + 4 * MINUTE)

        await viewer.until(lambda: viewer.revision(NEXT) == 2)
        await viewer.until_it_holds(PAST)


async def test_a_bar_that_history_has_late_is_waited_for(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        # The stream saw half of this one, and at first history does not have it.
        provider.tick(NOW + 1_000)
        whole = provider.market.rows.pop(RUNNING)
        asked = len(provider.calls)
        provider.clock.at = NEXT + 1
        provider.push_row(RUNNING, half(RUNNING))
        provider.push_row(NEXT, row(NEXT).so_far(1))
        await until(lambda: len(provider.calls) > asked)
        provider.market.rows[RUNNING] = whole
        provider.clock.at += 1_500

        await viewer.until(lambda: viewer.revision(RUNNING))
        await viewer.until_it_holds(PAST)


async def test_a_minute_without_trades_is_told_as_over(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    for minute in (RUNNING + n * MINUTE for n in range(1, 5)):
        provider.market.rows.pop(minute)
    async with (
        open_process(provider) as process,
        told_to(process) as events,
        viewing(process, "5m") as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        provider.tick(NEXT + 1)
        await until(lambda: any(event.told == NEXT for event in events))
        provider.clock.at = RUNNING + 5 * MINUTE + 1

        # The bucket closed with minutes in which nothing was traded.
        bucket = RUNNING // (5 * MINUTE) * 5 * MINUTE
        await viewer.until(lambda: viewer.revision(bucket))
        await until(lambda: events[-1].told == RUNNING + 5 * MINUTE)
        await viewer.until_it_holds(PAST)


async def test_what_was_missed_while_the_stream_was_lost_is_read_from_history(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with (
        open_process(provider) as process,
        told_to(process) as events,
        viewing(process) as viewer,
        viewing(process, "7m") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        provider.streams.refusing = "down for a while"
        provider.streams.lose("the network is gone")
        await viewer.until(lambda: FeedState.DISCONNECTED in viewer.states)
        provider.clock.at = NEXT + 10 * MINUTE
        assert viewer.revision(NEXT) is None
        provider.streams.refusing = None

        await viewer.until(lambda: viewer.revision(NEXT + 9 * MINUTE))
        await viewer.until(lambda: viewer.live)
        await viewer.until_it_holds(PAST)
        await coarse.until_it_holds(PAST)

    assert FeedState.CATCHING_UP in viewer.states[-2:]
    # What was told before goes on being true.
    assert len({event.told_from for event in events if event.told}) == 1


async def test_a_stream_that_is_lost_again_before_history_was_read_is_not_called_live(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with (
        open_process(provider) as process,
        told_to(process) as events,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        provider.failing = lambda call: True
        provider.tick(NEXT + 1)
        provider.streams.lose()
        await until(lambda: provider.streams.opened == 2 and provider.streams.open)
        provider.streams.refusing = "down for a while"
        provider.streams.lose()
        await viewer.until(lambda: "down for a while" in viewer.message)
        seen = len(events)
        provider.failing = lambda call: False
        # Nobody sees what is traded now.
        provider.clock.at += 1_000
        await viewer.until(lambda: viewer.revision(RUNNING))
        provider.clock.at = NEXT + 2 * MINUTE + 1
        heads = len(events) + 10
        await until(lambda: len(events) > heads)

        states = {event.status.state for event in events[seen:] if event.status}

    assert states == {FeedState.DISCONNECTED}
    assert events[-1].told <= NEXT


class LatePool(ConnectionPool):
    """Gives every other connection late, as a pool does that has to open it first."""

    given = 0

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        self.given += 1
        if self.given % 2:
            await asyncio.sleep(0.02)
        return await super().get_connection(*args, **kwargs)


async def test_an_older_word_on_a_feed_never_follows_a_newer_one(
    provider: PushesBars, store: CandleStore, redis_url: str, redis_prefix: str
) -> None:
    pacing = replace(QUICK, heads=0.0)
    async with (
        Redis.from_pool(LatePool.from_url(redis_url)) as redis,
        opened_process(provider, store, redis, redis_prefix, pacing=pacing) as process,
        told_to(process) as events,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        for n in range(10):
            provider.clock.at += 1
            provider.streams.lose(reason := f"cut {n}")
            await viewer.until(lambda reason=reason: viewer.heard_of(reason))
            await viewer.until(lambda: viewer.live)

    said = [event.status.at for event in events if event.status]
    assert said == sorted(said)


async def test_silence_is_a_stall_and_another_stream_is_opened(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    pacing = replace(QUICK, least_silence=0.3, most_silence=60.0)
    async with open_process(provider, pacing=pacing) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        for n in range(15):
            provider.tick(NOW + n * 100)

        await viewer.until(lambda: FeedState.STALLED in viewer.states)
        await viewer.until(lambda: viewer.live)
        provider.tick(NEXT + 1)
        await viewer.until(lambda: viewer.revision(RUNNING))

    assert provider.streams.opened >= 2
    assert provider.streams.most_open == 1


async def test_a_stream_that_never_confirms_does_not_keep_history_away(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    provider.streams.confirmation = None
    pacing = replace(QUICK, join=0.1)
    async with open_process(provider, pacing=pacing) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        provider.tick(NEXT + 1)
        provider.tick(NEXT + MINUTE + 1)
        await viewer.until(lambda: viewer.revision(NEXT))
        await viewer.until_it_holds(PAST)


async def test_what_cannot_be_true_is_dropped_and_history_is_asked(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        provider.tick(NEXT + 1)
        nonsense = replace(row(NEXT), high=1.0, low=2.0)
        provider.push_row(NEXT, nonsense)
        provider.push_row(NEXT + 7, row(NEXT))
        provider.tick(NEXT + MINUTE + 1)

        await viewer.until(lambda: viewer.revision(NEXT))
        await viewer.until_it_holds(PAST)

    assert viewer.revision(NEXT) == 1


async def test_time_that_history_does_not_vouch_for_is_not_told_as_over(
    provider: PushesBars, open_process: ProcessOpener
) -> None:
    hidden = Window(RUNNING - 2 * MINUTE, RUNNING - MINUTE)
    provider.withheld = Spans((hidden,))
    async with (
        open_process(provider) as process,
        told_to(process) as events,
        viewing(process) as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        await until(lambda: events and events[-1].told >= RUNNING)
        assert events[-1].told_from >= hidden.until
        provider.withheld = Spans()
        for seconds in range(600):
            # What was asked for a moment ago is not asked for again: time has to go on.
            provider.tick(NEXT + 3 * MINUTE + seconds * 1000)
            if viewer.revision(hidden.since):
                break
            await asyncio.sleep(0.05)

        await viewer.until_it_holds(PAST)
        assert viewer.revision(hidden.since)


async def test_without_a_stream_it_is_asked_soon_after_each_close(
    open_process: ProcessOpener,
) -> None:
    provider = Polled(FixedClock(NOW))
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        await until(lambda: provider.calls)
        for n in range(3):
            minute = RUNNING + n * MINUTE
            provider.clock.at = minute + MINUTE + 100
            await viewer.until(lambda minute=minute: viewer.revision(minute) == 1)
        await viewer.until(lambda: viewer.forming.time.tolist() == [RUNNING + 3 * MINUTE])
        # Many may have closed since it was asked last.
        provider.clock.at += 40 * MINUTE
        await viewer.until(lambda: viewer.revision(RUNNING + 42 * MINUTE) == 1)

        await viewer.until_it_holds(PAST)


async def test_without_a_stream_a_late_bar_is_asked_for_again(open_process: ProcessOpener) -> None:
    provider = Polled(FixedClock(NOW))
    late = provider.market.rows.pop(NEXT)
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        provider.clock.at = NEXT + MINUTE + 100
        await viewer.until(lambda: viewer.revision(RUNNING))
        assert viewer.revision(NEXT) is None
        provider.market.rows[NEXT] = late
        # No look repeats one of the same second.
        provider.clock.at += 1_000

        await viewer.until(lambda: viewer.revision(NEXT))
        await viewer.until_it_holds(PAST)


async def test_minutes_are_built_from_trades_where_no_bars_are_pushed(
    open_process: ProcessOpener,
) -> None:
    provider = PushesTrades(FixedClock(NOW))
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live)
        provider.execute(NEXT + 1_000, 10.0, 1.0)
        await viewer.until(lambda: viewer.revision(RUNNING) == 1)
        assert viewer.closed.last(1).close.tolist() == [row(RUNNING).close]
        provider.execute(NEXT + 2_000, 12.0, 2.0)
        provider.execute(NEXT + 3_000, 11.0, 1.0)
        await viewer.until(lambda: viewer.forming.close.tolist() == [11.0])
        provider.execute(NEXT + MINUTE + 1_000, 20.0, 1.0)

        await viewer.until(lambda: viewer.revision(NEXT) == 1)
        bar = viewer.closed.last(1)

    assert (bar.open[0], bar.high[0], bar.low[0], bar.close[0]) == (10.0, 12.0, 10.0, 11.0)
    assert (bar.volume[0], bar.trades[0]) == (4.0, 3)


async def test_seconds_are_built_from_trades(open_process: ProcessOpener) -> None:
    provider = PushesTrades(FixedClock(NOW))
    for n in range(30):
        provider.execute(NOW - 30_000 + n * 700, 100.0 + n, 1.0)
    provider.clock.at = NOW
    async with (
        open_process(provider) as process,
        viewing(process, "1s") as viewer,
        viewing(process, "5s") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        for n in range(20):
            provider.execute(NOW + 5_000 + n * 400, 50.0 + n, 0.5)
        provider.clock.at = NOW + 20_000

        await viewer.until_it_holds(NOW - 30_000)
        await coarse.until_it_holds(NOW - 30_000)
        assert process.series("1s").timeframe == SECOND_FRAME
        assert len(viewer.closed.take(viewer.closed.time >= NOW + 5_000)) >= 7


@pytest.fixture
async def store_proxy(store_url: str, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    """A way to PostgreSQL that a test can cut; asyncpg wants a socket of this name."""
    folder = store_url.partition("host=")[2].partition("&")[0]
    target = f"{folder}/.s.PGSQL.5432"
    async with cutting_proxy(target, tmp_path / ".s.PGSQL.5432") as proxy:
        yield proxy


@pytest.fixture
async def cuttable_store(store_url: str, store_proxy: CuttingProxy) -> AsyncIterator[CandleStore]:
    folder = store_url.partition("host=")[2].partition("&")[0]
    url = store_url.replace(folder, str(store_proxy.path.parent))
    async with open_pool(url, max_size=5, connect_timeout=1) as pool:
        yield CandleStore(pool)


async def test_while_the_store_is_away_closed_bars_are_held_and_then_all_are_told(
    provider: PushesBars,
    cuttable_store: CandleStore,
    store_proxy: CuttingProxy,
    redis: Redis,
    redis_prefix: str,
    open_process: ProcessOpener,
) -> None:
    async with (
        opened_process(provider, cuttable_store, redis, redis_prefix) as feeding,
        open_process(provider, feeds=False) as process,
        viewing(process) as viewer,
        viewing(process, "5m") as coarse,
    ):
        await viewer.until(lambda: viewer.live)
        provider.tick(NEXT + 1)
        await viewer.until(lambda: viewer.revision(RUNNING))
        await store_proxy.shut()
        # Only the stream can tell of these bars.
        provider.failing = lambda call: True
        for n in range(1, 8):
            provider.tick(NEXT + n * MINUTE + 1)
        # One of them is corrected while it is held.
        provider.push_row(NEXT, row(NEXT, version=1), flags=CLOSED)
        await viewer.until(lambda: FeedState.STALLED in viewer.states)
        await until(lambda: feeding.keeper.held_bars == 7)
        assert viewer.revision(NEXT) is None
        assert "store is away" in viewer.message
        provider.market.rows[NEXT] = row(NEXT, version=1)
        await store_proxy.open()

        await viewer.until(lambda: viewer.revision(NEXT + 6 * MINUTE) == 1)
        await viewer.until(lambda: viewer.live)
        provider.failing = lambda call: False
        provider.clock.at += 1_500
        await viewer.until_it_holds(PAST)
        await coarse.until_it_holds(PAST)
        assert feeding.keeper.held_bars == 0

    assert viewer.revision(NEXT) == 1
    assert [snapshot.reset for snapshot in viewer.snapshots] == [None]


async def test_a_viewer_whose_process_lost_the_store_is_told_and_then_misses_nothing(
    provider: PushesBars,
    cuttable_store: CandleStore,
    store_proxy: CuttingProxy,
    redis: Redis,
    redis_prefix: str,
    open_process: ProcessOpener,
) -> None:
    async with (
        open_process(provider) as feeding,
        viewing(feeding) as near,
        opened_process(provider, cuttable_store, redis, redis_prefix, feeds=False) as process,
        viewing(process, "5m") as viewer,
    ):
        await viewer.until(lambda: viewer.live)
        await store_proxy.shut()
        for n in range(1, 8):
            provider.tick(RUNNING + n * MINUTE + 1)
        await near.until(lambda: near.revision(RUNNING + 6 * MINUTE))
        await viewer.until(lambda: FeedState.STALLED in viewer.states)
        await store_proxy.open()

        await viewer.until(lambda: viewer.live)
        await viewer.until_it_holds(PAST)
