"""An announcer tells the store's log: each change once, in order, and only under its lease."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from datasources.found import Base
from datasources.live.announcer import Announcer, LeaseLost
from datasources.live.broadcaster import Broadcaster
from datasources.live.events import BaseEvent
from datasources.live.keys import FeedKey
from datasources.live.leases import Lease, Leases
from datasources.live.redis_keys import lease_key
from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, Write, Written
from market.bars import CLOSED
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Window
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.fakes import row, to_bars

pytestmark = on_embedded


@pytest.fixture
def key() -> FeedKey:
    return FeedKey.of(Base(Listing("fake", "crypto", uuid4().hex), MINUTE_FRAME, native=False))


@pytest.fixture
async def broadcaster(redis: Redis, redis_prefix: str) -> AsyncIterator[Broadcaster]:
    async with Broadcaster(redis, prefix=redis_prefix) as broadcaster:
        yield broadcaster


async def leased(redis: Redis, prefix: str, key: FeedKey) -> Lease:
    """Return a lease of *key*; whoever held it until now does not know yet that it ended."""
    leases = Leases(redis, prefix=prefix, owner=uuid4().hex, ttl_ms=60_000)
    await redis.delete(lease_key(prefix, key.name))
    lease = await leases.acquire(key.name)
    assert lease is not None
    return lease


async def write(
    store: CandleStore, key: FeedKey, *minutes: int, version: int = 0, at: int = NOW
) -> Written:
    rows = {minute: row(minute, version=version) for minute in minutes}
    bars = to_bars(rows, at, flags=CLOSED)
    series = SeriesKey(key.listing, MINUTE_FRAME)
    (written,) = await store.write([Write(series, SeriesFacts(), bars, observed_at=at)])
    return written


async def announced(broadcaster: Broadcaster, key: FeedKey, after: int = 0) -> list[BaseEvent]:
    entries = await broadcaster.since(key.name, after)
    assert entries is not None
    events = [BaseEvent.unpacked(message) for _, message in entries]
    assert None not in events
    return [event for event in events if event is not None]


def minute(n: int) -> int:
    return RUNNING - n * MINUTE


async def test_what_was_just_written_goes_along_with_its_change(
    store: CandleStore, broadcaster: Broadcaster, redis: Redis, redis_prefix: str, key: FeedKey
) -> None:
    announcer = Announcer(key, store, broadcaster, await leased(redis, redis_prefix, key))
    first = await write(store, key, minute(9))
    assert await announcer.sync(first.state)
    written = await write(store, key, minute(5), minute(4))

    assert await announcer.sync(written.state, written)

    (event,) = await announced(broadcaster, key, first.state.position)
    assert (event.previous, event.position) == (1, 2)
    assert event.whole
    assert event.bars == written.bars
    assert event.changes == (Window(minute(5), minute(4) + 1),)


async def test_what_others_wrote_after_our_write_is_announced_too(
    store: CandleStore, broadcaster: Broadcaster, redis: Redis, redis_prefix: str, key: FeedKey
) -> None:
    announcer = Announcer(key, store, broadcaster, await leased(redis, redis_prefix, key))
    first = await write(store, key, minute(9))
    await announcer.sync(first.state)
    ours = await write(store, key, minute(5))
    theirs = await write(store, key, minute(7))

    assert await announcer.sync(theirs.state, ours)

    events = await announced(broadcaster, key, first.state.position)
    assert [event.position for event in events] == [2, 3]
    assert [window.since for event in events for window in event.changes] == [minute(5), minute(7)]


async def test_a_successor_goes_on_after_what_was_announced(
    store: CandleStore, broadcaster: Broadcaster, redis: Redis, redis_prefix: str, key: FeedKey
) -> None:
    lease = await leased(redis, redis_prefix, key)
    dying = Announcer(key, store, broadcaster, lease)
    await dying.sync((await write(store, key, minute(9))).state)
    told = await write(store, key, minute(8))
    await dying.sync(told.state, told)
    await write(store, key, minute(7))
    unheard = await write(store, key, minute(6))
    taking_over = Announcer(key, store, broadcaster, await leased(redis, redis_prefix, key))

    assert await taking_over.sync(unheard.state)

    (event,) = await announced(broadcaster, key, told.state.position)
    assert (event.previous, event.position, event.whole) == (2, 4, False)
    assert [window.since for window in event.changes] == [minute(7), minute(6)]


async def test_whoever_was_fenced_appends_nothing(
    store: CandleStore, broadcaster: Broadcaster, redis: Redis, redis_prefix: str, key: FeedKey
) -> None:
    fenced = Announcer(key, store, broadcaster, await leased(redis, redis_prefix, key))
    await fenced.sync((await write(store, key, minute(9))).state)
    told = await write(store, key, minute(8))
    await fenced.sync(told.state, told)
    successor = Announcer(key, store, broadcaster, await leased(redis, redis_prefix, key))
    unheard = await write(store, key, minute(7))

    with pytest.raises(LeaseLost):
        await fenced.sync(unheard.state, unheard)

    assert await broadcaster.newest(key.name) == told.state.position
    assert await successor.sync(unheard.state)
    assert await broadcaster.newest(key.name) == unheard.state.position
