"""Storing from the stream: what others left behind, what cannot be stored, what waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from redis.asyncio import Redis

from datasources.found import Base, Head
from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import packed
from datasources.ingest.pacing import IngestPacing
from datasources.ingest.stream import GROUP, TradeStream
from datasources.ingest.writer import MOST_DELIVERIES, TradeWriter
from db.candles import CandleStore
from db.raw_trades import Ingested, RawTradeStore, Telling
from db.stored import SeriesKey
from market.errors import StoreUnavailable
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE
from tests.datasources.chains import on_each
from tests.datasources.ingest.stage import HASTY, eventually
from tests.db.minutes import T0, fresh_key, stored
from tests.db.trades import LATE, PROOF, Deal, assert_made_of, telling, trades_in

pytestmark = on_each

T1 = T0 + MINUTE
TWO = [Deal.of("1", T0 + 5, 10.0, 2.0), Deal.of("2", T0 + 59_999, 12.0, 1.0)]
ENDLESS = [Deal.of("1", T0, 1.0, 1e308), Deal.of("2", T0, 1.0, 1e308)]


class Watched(RawTradeStore):
    """Away while told to be; notes how many tellings came at a time."""

    def __init__(self, store: CandleStore) -> None:
        super().__init__(store, proof=PROOF)
        self.away = False
        self.came: list[int] = []

    async def write(self, tellings: list[Telling]) -> list[Ingested]:
        self.came.append(len(tellings))
        if self.away:
            raise StoreUnavailable("told to be away")
        return await super().write(tellings)


class Writing:
    """One writer at work, and what it told the cache."""

    def __init__(
        self, store: CandleStore, stream: TradeStream, name: str, pacing: IngestPacing
    ) -> None:
        self.store = Watched(store)
        self.counts = IngestCounts()
        self.heads: dict[Base, Head] = {}
        self.writer = TradeWriter(
            name,
            stream=stream,
            store=self.store,
            moved=self._moved,
            clock_of=lambda _: None,
            counts=self.counts,
            pacing=pacing,
        )

    async def _moved(self, heads: Mapping[Base, Head]) -> None:
        self.heads |= heads


Opener = Callable[..., AbstractAsyncContextManager[Writing]]


@pytest.fixture
def writing(store: CandleStore, stream: TradeStream) -> Opener:
    """Run a writer."""

    @asynccontextmanager
    async def run(
        name: str = "writer", over: TradeStream = stream, *, pacing: IngestPacing = HASTY
    ) -> AsyncIterator[Writing]:
        one = Writing(store, over, name, pacing)
        task = asyncio.create_task(one.writer.run())
        try:
            yield one
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended

    return run


@pytest.fixture
def emptied(stream: TradeStream) -> Callable[[], object]:
    async def empty() -> bool:
        return (await stream.lag()).entries == 0

    return lambda: eventually(empty, "an empty stream")


def whole(key: SeriesKey, deals: list[Deal]) -> bytes:
    return packed(telling(key, deals, T0, T1 + LATE))


async def test_what_is_stored_is_acknowledged_and_gone(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream, redis: Redis, redis_prefix
) -> None:
    key = fresh_key()
    await stream.add([whole(key, TWO)])

    async with writing():
        await emptied()

    assert_made_of(await stored(store, key), TWO)
    assert await redis.xpending(f"{redis_prefix}trades", GROUP) == {
        "pending": 0,
        "min": None,
        "max": None,
        "consumers": [],
    }
    assert (await stream.lag()).bytes == 0


async def test_the_cache_is_told_where_the_series_stands(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream
) -> None:
    key = fresh_key()
    await stream.add([whole(key, TWO)])

    async with writing() as one:
        await emptied()

    (state,) = await store.states([key])
    head = one.heads[Base(key.listing, MINUTE_FRAME, native=False)]
    assert state is not None
    assert (head.id, head.position) == (state.id, state.position)


async def test_the_cache_is_told_what_a_writer_committed_that_died_before_it_told(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream
) -> None:
    key = fresh_key()
    payload = whole(key, TWO)
    await stream.join()
    await stream.add([payload])
    await stream.read("dead", most=10, wait_ms=10)
    await RawTradeStore(store, proof=PROOF).write([telling(key, TWO, T0, T1 + LATE)])

    async with writing() as one:
        await emptied()

    assert one.heads[Base(key.listing, MINUTE_FRAME, native=False)].position == 1
    assert (await stored(store, key)).revision.tolist() == [1]


async def test_entries_of_a_dead_reader_are_taken_over(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream
) -> None:
    keys = [fresh_key() for _ in range(5)]
    await stream.join()
    await stream.add([whole(key, TWO) for key in keys])
    assert len(await stream.read("dead", most=10, wait_ms=10)) == 5

    async with writing():
        await emptied()

    for key in keys:
        assert_made_of(await stored(store, key), TWO)


async def given_out_again(stream: TradeStream) -> None:
    """Let another reader take over everything, and die of it."""
    abandoned = await stream.abandoned(idle_ms=0, most=10)
    await stream.claim("dead too", abandoned, idle_ms=0)


async def test_an_entry_that_was_given_out_often_is_tried_by_itself(
    writing: Opener, emptied, stream: TradeStream
) -> None:
    keys = [fresh_key() for _ in range(3)]
    await stream.join()
    await stream.add([whole(key, TWO) for key in keys])
    await stream.read("dead", most=10, wait_ms=10)
    for _ in range(2):
        await given_out_again(stream)

    async with writing() as one:
        await emptied()

    assert one.store.came == [1, 1, 1]


async def test_what_was_only_beside_an_entry_that_was_given_out_often_is_not_counted(
    stream: TradeStream, store: CandleStore
) -> None:
    await stream.join()
    await stream.add([whole(fresh_key(), TWO) for _ in range(3)])
    await stream.read("dead", most=10, wait_ms=10)
    for _ in range(2):
        await given_out_again(stream)
    one = Writing(store, stream, "one", HASTY)
    one.store.away = True
    task = asyncio.create_task(one.writer.run())

    await eventually(lambda: _tries(one, 3))

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    counts = [entry.deliveries for entry in await stream.abandoned(idle_ms=0, most=10)]
    assert counts == [4, 3, 3]


async def test_an_entry_that_kills_its_readers_is_put_aside(
    writing: Opener, emptied, stream: TradeStream
) -> None:
    await stream.join()
    await stream.add([whole(fresh_key(), TWO)])
    await stream.read("dead", most=10, wait_ms=10)
    for _ in range(MOST_DELIVERIES - 1):
        await given_out_again(stream)

    async with writing() as one:
        await emptied()

    assert one.store.came == []
    (letter,) = await stream.dead()
    assert "never stored" in letter.reason


async def test_what_cannot_be_stored_stands_in_nobodys_way(
    writing: Opener, emptied, store: CandleStore, pool: asyncpg.Pool, stream: TradeStream
) -> None:
    before, bad, after = fresh_key(), fresh_key(), fresh_key()
    await stream.add([whole(before, TWO), whole(bad, ENDLESS), whole(after, TWO)])

    async with writing() as one:
        await emptied()

    for key in (before, after):
        assert_made_of(await stored(store, key), TWO)
    assert await trades_in(pool, bad) == []
    (letter,) = await stream.dead()
    assert letter.payload == whole(bad, ENDLESS)
    assert "InvalidBars" in letter.reason
    assert one.counts.buried == 1
    # Together, then each by itself, and the bad one twice more.
    assert one.store.came == [3, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x07\0\0\0\0", b"\x01\x02\0\0\0{}"])
async def test_what_cannot_be_read_goes_to_the_dead_letters(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream, payload: bytes
) -> None:
    key = fresh_key()
    await stream.add([payload, whole(key, TWO)[:-1], whole(key, TWO)])

    async with writing():
        await emptied()

    assert_made_of(await stored(store, key), TWO)
    assert [letter.payload for letter in await stream.dead()] == [payload, whole(key, TWO)[:-1]]


async def test_a_dead_letter_that_is_replayed_is_stored(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream
) -> None:
    key = fresh_key()
    await stream.join()
    await stream.add([whole(key, TWO)])
    (message,) = await stream.read("reader", most=1, wait_ms=10)
    await stream.bury(message, "a mistake that was mended")
    (letter,) = await stream.dead()

    assert await stream.replay(letter.id)
    async with writing():
        await emptied()

    assert_made_of(await stored(store, key), TWO)
    assert await stream.dead() == []
    assert not await stream.replay(letter.id)


async def test_while_the_store_is_away_trades_wait_and_nobody_takes_them(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream
) -> None:
    key = fresh_key()
    pacing = replace(HASTY, idle=2.0, retry=0.1)
    await stream.add([whole(key, TWO)])

    async with writing("one", pacing=pacing) as one:
        one.store.away = True
        await eventually(lambda: _tries(one, 1))
        async with writing("other", pacing=pacing) as other:
            # Longer than a silent reader is waited for: each try waits before the next.
            await eventually(lambda: _tries(one, int(2 * pacing.idle / pacing.retry)))
            assert other.store.came == []
            one.store.away = False
            await emptied()

    assert_made_of(await stored(store, key), TWO)
    assert await stream.dead() == []


async def test_a_stream_that_is_gone_begins_anew(
    writing: Opener, emptied, store: CandleStore, stream: TradeStream, redis: Redis, redis_prefix
) -> None:
    key = fresh_key()
    async with writing():
        await stream.add([whole(fresh_key(), TWO)])
        await emptied()
        await redis.delete(f"{redis_prefix}trades")
        await stream.add([whole(key, TWO)])
        await emptied()

    assert_made_of(await stored(store, key), TWO)


async def _tries(one: Writing, count: int) -> bool:
    return len(one.store.came) >= count
