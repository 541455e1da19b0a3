"""Reading the store: one statement for many series, and a named failure when it is away."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest

from db.candles import CandleStore
from db.pool import open_pool
from db.stored import SeriesKey, Wanted, Write
from market.bars import CLOSED, NATIVE, VOID
from market.buckets import Buckets
from market.errors import StoreUnavailable
from market.instrument import Adjustment, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Spans, Window
from tests.db.minutes import (
    ALWAYS,
    AROUND,
    T0,
    assert_views_exact,
    empty_tables,
    fresh_key,
    minutes,
    put,
    stored,
)


class CountedConnection:
    """A pool of one connection, so that all statements go where they are counted."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def acquire(self) -> asyncpg.Connection:
        return self._connection

    async def release(self, connection: asyncpg.Connection, *, timeout: float) -> None:
        assert connection is self._connection


async def test_fifty_series_at_several_views_are_read_with_one_statement(
    store: CandleStore, store_url: str
) -> None:
    keys = [fresh_key() for _ in range(50)]
    hour = Timeframe.parse("1h")
    times = [T0 + n * MINUTE for n in range(5)]
    await store.write([Write(key, AROUND, minutes(times), T0) for key in keys])
    connection = await asyncpg.connect(store_url)
    try:
        reader = CandleStore(CountedConnection(connection))
        wanted = [Wanted(key, ALWAYS, view) for key in keys for view in (None, hour)]
        await reader.snapshot(wanted[:2])  # asyncpg looks up the types of a new connection once
        statements: list[str] = []
        await asyncio.sleep(0)  # the log comes a turn of the loop late
        connection.add_query_logger(lambda record: statements.append(record.query))

        found = await reader.snapshot(wanted)
        states = await reader.states(keys)
        await asyncio.sleep(0)
    finally:
        await connection.close()

    assert len(statements) == 2
    assert [len(f.bars) for f in found[::2]] == [5] * 50
    assert [f.state for f in found[1::2]] == states


async def test_a_window_is_half_open_and_an_impossible_one_is_empty(store: CandleStore) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0, T0 + MINUTE, T0 + 2 * MINUTE]))

    found = await store.snapshot(
        [
            Wanted(key, window)
            for window in (
                Window(T0, T0 + 2 * MINUTE),
                Window(T0 + 1, T0 + MINUTE),
                Window(T0 + MINUTE, T0),
                Window(-(1 << 63), (1 << 63) - 1),
                Window(1 << 62, 1 << 63),
            )
        ]
    )

    assert [f.bars.time.tolist() for f in found] == [
        [T0, T0 + MINUTE],
        [],
        [],
        [T0, T0 + MINUTE, T0 + 2 * MINUTE],
        [],
    ]


async def test_optional_values_come_back_for_the_bars_that_have_them(store: CandleStore) -> None:
    key = fresh_key()
    times = [T0 + n * MINUTE for n in range(4)]
    bars = minutes(times).with_columns(
        vwap=np.array([np.nan, 10.5, np.nan, 9.5]), trades=np.array([-1, 7, 0, -1])
    )
    await put(store, key, bars)
    none = fresh_key()
    await put(store, none, minutes(times))

    found = await stored(store, key)
    dropped = await put(store, key, minutes(times), observed_at=T0 - 1)
    (bare,) = await store.snapshot([Wanted(none, ALWAYS)])

    assert found == bars.with_columns(revision=np.ones(4, np.int64))
    assert dropped.bars == found
    assert bare.bars.trades.tolist() == [-1] * 4
    assert np.isnan(bare.bars.vwap).all()


async def test_withdrawn_and_native_bars_keep_their_marks_and_revisions(store: CandleStore) -> None:
    key = fresh_key(Timeframe.parse("1h"))
    times = [T0, T0 + 60 * MINUTE]
    native = minutes(times).with_columns(flags=np.array([CLOSED | NATIVE] * 2, np.uint8))
    await put(store, key, native)
    hours = Spans.of(T0, T0 + 60 * MINUTE)
    await put(store, key, native.take(slice(1, None)), observed_at=T0 + 1, covered=hours)

    (found,) = await store.snapshot([Wanted(key, ALWAYS)])

    assert found.bars.revision.tolist() == [2, 1]
    assert found.bars.flags.tolist() == [CLOSED | NATIVE | VOID, CLOSED | NATIVE]


async def test_a_read_planned_while_tables_were_empty_never_scans_them_later(
    fresh_store_url: str,
) -> None:
    key = fresh_key()
    seven = Buckets(np.array([T0]), np.array([T0 + 7 * MINUTE]))
    wanted = [
        Wanted(key, ALWAYS),
        Wanted(key, seven.hull, buckets=seven),
        Wanted(key, ALWAYS, Timeframe.parse("5m")),
    ]
    async with open_pool(fresh_store_url, max_size=1) as pool:
        store = CandleStore(pool)
        for _ in range(8):  # by now PostgreSQL would have settled for a plan
            await store.snapshot(wanted)
        await put(store, key, minutes([T0 + n * MINUTE for n in range(500)]))

        await pool.execute("SELECT pg_stat_force_next_flush()")
        async with pool.acquire() as connection, connection.transaction():
            reader = CandleStore(CountedConnection(connection))
            found = await reader.snapshot(wanted)
            scans = await connection.fetch(
                "SELECT relname, seq_scan, idx_scan FROM pg_stat_xact_user_tables "
                "WHERE relname ~ '^(series|bar|rollup|_hyper_.*_chunk)$' "
                "AND idx_scan + seq_scan > 0"
            )

    assert [len(f.bars) for f in found] == [500, 1, 101]
    # Of a hypertable, it is the chunks that are read.
    read = [row["relname"] for row in scans]
    assert "series" in read
    assert len(read) > 1
    assert [row["seq_scan"] for row in scans] == [0] * len(scans)


async def test_a_series_never_stored_has_no_state_and_no_bars(store: CandleStore) -> None:
    [found] = await store.snapshot([Wanted(fresh_key(), ALWAYS)])

    assert found.state is None
    assert len(found.bars) == 0


async def test_names_that_differ_in_one_part_are_different_series(store: CandleStore) -> None:
    name = fresh_key().listing.symbol
    keys = [
        SeriesKey(listing, MINUTE_FRAME)
        for listing in (
            Listing("sim", "crypto", name),
            Listing("sim", "stocks", name),
            Listing("sim", "crypto", name.lower()),
            Listing("sim", "crypto", name, adjustment=Adjustment.SPLIT),
            Listing("sim", "crypto", name, feed="sip"),
            Listing("sim", "crypto", name, dataset="other"),
        )
    ]

    ids = await store.ensure([(key, AROUND) for key in keys])
    again = await store.ensure([(key, AROUND) for key in reversed(keys)])

    assert len(set(ids)) == len(keys)
    assert again == ids[::-1]


async def test_two_processes_that_meet_a_new_series_agree_on_its_id(pool: asyncpg.Pool) -> None:
    keys = [(fresh_key(), AROUND) for _ in range(20)]

    one = await CandleStore(pool).ensure(keys)
    other = await CandleStore(pool).ensure(keys[::-1])

    assert one == other[::-1]


async def test_a_large_write_comes_back_whole(store: CandleStore, pool: asyncpg.Pool) -> None:
    key = fresh_key()
    bars = minutes([T0 + n * MINUTE for n in range(40_000)])

    written = await put(store, key, bars)

    assert written.bars.revision.tolist() == [1] * 40_000
    assert np.array_equal((await stored(store, key)).time, bars.time)
    await assert_views_exact(pool, key)


async def test_a_view_there_is_none_of_is_a_mistake_of_the_caller(store: CandleStore) -> None:
    with pytest.raises(KeyError):
        await store.snapshot([Wanted(fresh_key(), ALWAYS, Timeframe.parse("7m"))])


async def test_views_come_coarsest_first_and_the_store_has_an_identity(store: CandleStore) -> None:
    views = await store.views()

    assert [str(view) for view in views] == [
        "1y", "1M", "1w", "1d", "4h", "1h", "30m", "15m", "5m",
    ]  # fmt: skip
    assert isinstance(await store.store_id(), UUID)


async def test_an_unknown_series_has_no_log(store: CandleStore) -> None:
    with pytest.raises(LookupError):
        await store.changes(2**31 - 1, after=0, limit=1)
    with pytest.raises(LookupError):
        await store.set_minutes_from(2**31 - 1, T0)


async def test_a_store_that_is_away_is_unavailable_and_its_address_stays_untold() -> None:
    async with open_pool("postgresql://someone:secret@127.0.0.1:1/nowhere") as pool:
        store = CandleStore(pool)

        with pytest.raises(StoreUnavailable) as refusal:
            await store.snapshot([Wanted(fresh_key(), ALWAYS)])
        with pytest.raises(StoreUnavailable):
            await put(store, fresh_key(), minutes([T0]))

    assert "secret" not in str(refusal.value)
    assert "127.0.0.1" not in str(refusal.value)


async def test_a_statement_cut_off_by_its_timeout_is_an_unavailable_store(store_url: str) -> None:
    async with open_pool(store_url, statement_timeout=0.05) as pool:
        store = CandleStore(pool)
        key = fresh_key()
        [series_id] = await store.ensure([(key, AROUND)])
        blocker = await asyncpg.connect(store_url)
        try:
            async with blocker.transaction():
                await blocker.execute("SELECT FROM series WHERE id = $1 FOR UPDATE", series_id)

                with pytest.raises(StoreUnavailable):
                    await put(store, key, minutes([T0]))
        finally:
            await blocker.close()

        assert len((await put(store, key, minutes([T0]))).bars) == 1


@pytest.mark.parametrize("loss", ["ALTER TABLE bar RENAME TO other", "REVOKE ALL ON bar FROM {}"])
async def test_a_store_that_may_not_be_read_is_an_unavailable_store(
    fresh_store_url: str, loss: str
) -> None:
    role = f"reader_{uuid4().hex}"
    admin = await asyncpg.connect(fresh_store_url)
    await admin.execute(f"CREATE ROLE {role}")
    await admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        async with asyncpg.create_pool(
            fresh_store_url, min_size=0, server_settings={"role": role}
        ) as pool:
            store, key = CandleStore(pool), fresh_key()
            await store.snapshot([Wanted(key, ALWAYS)])
            await admin.execute(loss.format(role))

            with pytest.raises(StoreUnavailable):
                await store.snapshot([Wanted(key, ALWAYS)])
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()


async def test_a_connection_cut_by_the_server_is_replaced_by_the_next(
    store: CandleStore, pool: asyncpg.Pool, store_url: str
) -> None:
    await store.store_id()
    killer = await asyncpg.connect(store_url)
    async with pool.acquire() as connection:
        pid = connection.get_server_pid()
    await killer.execute("SELECT pg_terminate_backend($1)", pid)
    await killer.close()

    key = fresh_key()
    try:
        await put(store, key, minutes([T0]))
    except StoreUnavailable:
        await put(store, key, minutes([T0]))

    assert len(await stored(store, key)) == 1


async def test_ids_remembered_from_a_database_made_anew_are_forgotten(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    [stale] = await store.ensure([(key, AROUND)])
    await pool.execute("DELETE FROM series WHERE id = $1", stale)

    written = await put(store, key, minutes([T0]))

    assert written.state.id != stale
    assert len(await stored(store, key)) == 1


async def test_bars_never_go_to_the_series_that_took_an_id_in_a_database_made_anew(
    fresh_store_url: str,
) -> None:
    mine, theirs = fresh_key(), fresh_key()
    async with open_pool(fresh_store_url) as pool:
        store = CandleStore(pool)
        before = await put(store, mine, minutes([T0], 10.0))
        await empty_tables(pool)
        await pool.execute("UPDATE store SET id = gen_random_uuid()")
        taken = await put(CandleStore(pool), theirs, minutes([T0], 20.0))

        written = await put(store, mine, minutes([T0], 10.0))

        assert taken.state.id == before.state.id != written.state.id
        assert (await stored(store, mine)).close.tolist() == [10.0]
        assert (await stored(store, theirs)).close.tolist() == [20.0]
