"""Writers whose transactions overlap, and readers that follow what they commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import numpy as np
import pytest

from db import staging
from db.candles import CandleStore
from db.stored import Change, SeriesKey, Wanted, Write
from market.bars import Bars
from market.buckets import Buckets
from market.timeframe import Timeframe
from market.window import DAY, MINUTE, Window
from tests.db.minutes import (
    AROUND,
    T0,
    assert_views_exact,
    fresh_key,
    minutes,
    put,
    rows_of,
    stored,
)

DAY_START = T0 // DAY * DAY
FIRST, SECOND = DAY_START, DAY_START + MINUTE
"""Two minutes of the same bucket in every aggregate."""


@asynccontextmanager
async def held_open(
    pool: asyncpg.Pool, store: CandleStore, key: SeriesKey, bars: Bars, observed_at: int
) -> AsyncIterator[asyncpg.transaction.Transaction]:
    """A writer that merged *bars* and has yet to commit or roll back."""
    [series_id] = await store.ensure([(key, AROUND)])
    async with pool.acquire() as connection:
        transaction = connection.transaction(isolation="read_committed")
        await transaction.start()
        await connection.execute("SELECT open_staging()")
        await staging.merge(connection, {series_id: Write(key, AROUND, bars, observed_at)})
        yield transaction


async def until_waiting(pool: asyncpg.Pool, writer: asyncio.Task[object]) -> None:
    """Return once PostgreSQL says that somebody waits for a lock in this database."""
    while not writer.done():
        if await pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database())"
        ):
            return
    pytest.fail("the second writer did not wait for the first")


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
@pytest.mark.parametrize(("mine", "theirs"), [(FIRST, SECOND), (SECOND, FIRST), (FIRST, FIRST)])
async def test_a_second_writer_of_a_bucket_waits_and_then_sees_the_first(
    store: CandleStore, pool: asyncpg.Pool, outcome: str, mine: int, theirs: int
) -> None:
    key = fresh_key()
    await put(store, key, minutes([DAY_START + 2 * MINUTE]))

    async with held_open(pool, store, key, minutes([mine], close=20), T0) as first:
        second = asyncio.create_task(put(store, key, minutes([theirs], close=30), T0 + 1))
        await until_waiting(pool, second)
        before = await stored(store, key, Timeframe.parse("1d"))
        await getattr(first, outcome)()
    written = await second

    assert before.close.tolist() == [10]
    assert written.state.position == (3 if outcome == "commit" else 2)
    rows = await rows_of(pool, key)
    assert rows[theirs].close == 30
    assert rows[theirs].revision == (2 if outcome == "commit" and mine == theirs else 1)
    assert (mine in rows) == (outcome == "commit" or mine == theirs)
    await assert_views_exact(pool, key)


async def test_writers_of_different_series_do_not_wait_for_each_other(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    held, free = fresh_key(), fresh_key()
    # Whoever makes a chunk of TimescaleDB's holds up the others once, until it commits.
    await put(store, fresh_key(), minutes([FIRST]))

    async with held_open(pool, store, held, minutes([FIRST]), T0) as first:
        await put(store, free, minutes([FIRST]))
        await first.commit()

    await assert_views_exact(pool, held)
    await assert_views_exact(pool, free)


async def test_two_series_written_in_opposite_order_do_not_deadlock(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    keys = [fresh_key(), fresh_key()]
    await store.ensure([(key, AROUND) for key in keys])

    def writes(order: int, n: int) -> list[Write]:
        return [Write(key, AROUND, minutes([FIRST + n * MINUTE]), T0 + n) for key in keys[::order]]

    await asyncio.gather(*(store.write(writes(1 if n % 2 else -1, n)) for n in range(16)))

    for key in keys:
        assert len(await stored(store, key)) == 16
        await assert_views_exact(pool, key)


async def test_minutes_and_aggregates_of_one_snapshot_always_agree(
    store: CandleStore,
) -> None:
    key = fresh_key()
    await put(store, key, minutes([FIRST]))

    async def write() -> None:
        for n in range(1, 40):
            await put(store, key, minutes([FIRST + n * MINUTE], close=10 + n), T0 + n)

    writer = asyncio.create_task(write())
    window = Window(DAY_START, DAY_START + DAY)
    whole_day = Buckets(np.array([window.since]), np.array([window.until]))
    looks = 0
    while not writer.done():
        made, base, day = await store.snapshot(
            [
                Wanted(key, window, buckets=whole_day),
                Wanted(key, window),
                Wanted(key, window, Timeframe.parse("1d")),
            ]
        )
        looks += 1
        for coarse in (made, day):
            assert base.state == coarse.state
            assert coarse.bars.revision[0] == len(base.bars)
            assert coarse.bars.close[0] == base.bars.close[-1]
    await writer

    assert looks > 1


async def test_a_reader_polling_the_log_of_four_writers_misses_nothing(
    store: CandleStore, store_url: str
) -> None:
    key = fresh_key()
    [series_id] = await store.ensure([(key, AROUND)])
    each = 40

    async def write(writer: int) -> list[Change]:
        made: list[Change] = []
        for n in range(each):
            time = FIRST + (n * 4 + writer) * MINUTE
            made += (await put(store, key, minutes([time]), T0)).changes
        return made

    writers = [asyncio.create_task(write(n)) for n in range(4)]
    seen: list[Change] = []
    while True:
        finished = all(writer.done() for writer in writers)
        after = seen[-1].position if seen else 0
        log = await store.changes(series_id, after=after, limit=7)
        seen += log.changes
        if finished and not log.changes:
            break
    made = [change for writer in writers for change in await writer]

    assert [change.position for change in seen] == list(range(1, 4 * each + 1))
    assert sorted(made, key=lambda change: change.position) == seen


async def test_the_log_is_pruned_to_its_length_and_says_from_where(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    state = (await put(store, key, minutes([FIRST]))).state
    await pool.execute("UPDATE series SET position = 10500 WHERE id = $1", state.id)

    written = await put(store, key, minutes([SECOND]))

    log = await store.changes(state.id, after=0, limit=10)
    assert written.state.position == 10501
    assert log.head == 10501
    assert log.pruned == 501
    assert [change.position for change in log.changes] == [10501]
