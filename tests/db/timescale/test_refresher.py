"""What the refresher takes away, and what it must leave: marks of writers it may not have seen."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from db.candles import CandleStore
from db.timescale import Refresher, coalesced
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE
from tests.db.minutes import (
    VIEWS,
    as_aggregates,
    assert_views_exact,
    fresh_key,
    minutes,
    put,
    recomputed,
    rows_of,
    stored,
)
from tests.db.test_candles import CountedConnection
from tests.db.test_interleaved import held_open
from tests.db.timescale.conftest import on_timescale
from tests.db.timescale.kept import Kept, running, until

START = round(datetime(2024, 2, 29, 22, tzinfo=UTC).timestamp() * 1000)


@on_timescale
@pytest.mark.parametrize("outcome", ["commit", "rollback"])
async def test_a_refresh_between_a_write_and_its_commit_leaves_nothing_stale(
    own: Kept, outcome: str
) -> None:
    key = fresh_key()
    await put(own.store, key, minutes([START, START + MINUTE]))
    await own.refresh(onward=True)

    async with held_open(own.pool, own.store, key, minutes([START], close=20.0), 2**41) as writer:
        await own.refresh(onward=True)
        await own.run_policy("5m")
        await getattr(writer, outcome)()

    assert await own.marks() == (outcome == "commit")
    await own.assert_exact(key)
    await own.refresh()
    assert await own.marks() == 0
    await own.assert_exact(key)


@on_timescale
async def test_a_mark_of_one_writer_does_not_stand_for_that_of_another(own: Kept) -> None:
    key, other = fresh_key(), fresh_key()
    await put(own.store, key, minutes([START]))
    await put(own.store, other, minutes([START]))

    async with held_open(own.pool, own.store, other, minutes([START], close=20.0), 2**41) as late:
        await put(own.store, key, minutes([START], close=30.0), 2**41)
        await own.refresh()
        await late.commit()

    assert await own.marks() == 1
    await own.assert_exact(key, other)


@on_timescale
async def test_a_reader_in_an_older_snapshot_sees_aggregates_of_its_own_minutes(
    own: Kept,
) -> None:
    key = fresh_key()
    await put(own.store, key, minutes([START + n * HOUR for n in range(50)]))
    await own.refresh(onward=True)
    before = {
        view: as_aggregates(await stored(own.store, key, Timeframe.parse(view))) for view in VIEWS
    }

    async with (
        own.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.fetchval("SELECT count(*) FROM series")
        later = minutes([START + n * HOUR for n in range(40, 90)], close=20.0)
        await put(own.store, key, later, 2**41)
        await own.refresh(onward=True)
        old = CandleStore(CountedConnection(connection))
        after = {
            view: as_aggregates(await stored(old, key, Timeframe.parse(view))) for view in VIEWS
        }
        await assert_views_exact(connection, key)

    assert after == before


@on_timescale
async def test_plans_kept_before_a_refresh_are_right_after_it(own: Kept) -> None:
    key = fresh_key()
    await put(own.store, key, minutes([START + n * HOUR for n in range(30)]))
    async with own.pool.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        views = {
            view: await connection.prepare(
                f'SELECT "timestamp", revision FROM {VIEWS[view]} WHERE symbol = $1'
            )
            for view in VIEWS
        }
        for turn in range(4):
            for view, statement in views.items():
                rows = await statement.fetch(key.listing.symbol)
                expected = recomputed(await rows_of(own.pool, key), view)
                assert {
                    round(row["timestamp"].timestamp() * 1000): row["revision"] for row in rows
                } == {time: bar.revision for time, bar in expected.items()}
            if turn % 2:
                await put(own.store, key, minutes([START + (30 + turn) * DAY]))
            await own.refresh(onward=True)


@on_timescale
async def test_a_mark_that_comes_while_a_refresh_is_under_way_stays(own: Kept) -> None:
    key = fresh_key()
    await put(own.store, key, minutes([START + n * MINUTE for n in range(300)]))

    async with own.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {await _table(own.pool, 4)} IN SHARE MODE")
            refresh = asyncio.create_task(Refresher(own.url).refresh())
            await until(lambda: _waits_for_lock(own.pool))
            await put(own.store, key, minutes([START], close=20.0), 2**41)
        await refresh

    assert await own.marks() == 1
    await own.assert_exact(key)


@on_timescale
async def test_a_refresh_that_is_cut_off_is_made_up_for_by_the_next(own: Kept) -> None:
    key = fresh_key()
    await put(own.store, key, minutes([START + n * MINUTE for n in range(300)]))

    async with own.pool.acquire() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {await _table(own.pool, 4)} IN SHARE MODE")
        refresh = asyncio.create_task(Refresher(own.url).refresh())
        await until(lambda: _waits_for_lock(own.pool))
        await own.pool.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(Exception, match=r"did not answer|terminat|closed"):
            await refresh

    assert await own.marks() == 1
    await own.assert_exact(key)
    await own.refresh()
    assert await own.marks() == 0
    await own.assert_exact(key)


@on_timescale
async def test_aggregates_whose_jobs_do_not_run_are_carried_on_and_said_to_lag(own: Kept) -> None:
    key = fresh_key()
    await own.pool.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
        "WHERE proc_name = 'policy_refresh_continuous_aggregate'"
    )
    now = round((await own.pool.fetchval("SELECT now()")).timestamp() * 1000)
    await put(
        own.store, key, minutes([now // MINUTE * MINUTE - n * HOUR for n in reversed(range(400))])
    )
    refresher = Refresher(own.url, every=0.05)

    async with running(refresher):
        await until(lambda: _behind(own.pool, timedelta(hours=3), level=1))
        await until(lambda: _behind(own.pool, timedelta(days=2), level=6))

    assert refresher.standing.lagging == 9
    assert refresher.refreshes > 0
    await own.assert_exact(key)


@on_timescale
async def test_aggregates_whose_jobs_keep_up_are_left_to_them(own: Kept) -> None:
    key = fresh_key()
    await own.pool.execute(
        "INSERT INTO _timescaledb_internal.bgw_job_stat "
        "SELECT job_id, now(), now(), 'infinity', now(), true, 1, '1 s', '0 s', 1, 0, 0, 0, 0, 0 "
        "FROM timescaledb_information.jobs ON CONFLICT (job_id) DO UPDATE SET "
        "last_run_success = true, last_successful_finish = now(), next_start = 'infinity', "
        "consecutive_failures = 0, consecutive_crashes = 0, last_finish = now()"
    )
    now = round((await own.pool.fetchval("SELECT now()")).timestamp() * 1000)
    await put(own.store, key, minutes([now // MINUTE * MINUTE - n * HOUR for n in (4, 3, 0)]))
    refresher = Refresher(own.url, every=3600.0)

    async with running(refresher):
        await until(lambda: _unmarked(own))
        await put(own.store, key, minutes([START]))
        await until(lambda: _unmarked(own))

    assert (refresher.standing.lagging, refresher.standing.failing_jobs) == (0, 0)
    assert not await _behind(own.pool, timedelta(minutes=150), level=1)
    await own.assert_exact(key)


@on_timescale
async def test_what_was_written_live_is_not_left_behind_when_the_watermark_moves_past_it(
    own: Kept,
) -> None:
    key = fresh_key()
    await put(own.store, key, minutes([START]))
    await own.refresh(onward=True)
    await put(own.store, key, minutes([START + 10 * DAY + n * HOUR for n in range(9)]))
    # As if these had been written live, and time had gone on while nothing refreshed.
    await own.pool.execute("DELETE FROM stale")

    await put(own.store, key, minutes([START + 50 * DAY]))
    await own.refresh()

    assert await own.marks() == 0
    await own.assert_exact(key)


@on_timescale
async def test_nothing_is_materialized_that_a_writer_may_not_have_marked(own: Kept) -> None:
    key = fresh_key()
    now = round((await own.pool.fetchval("SELECT now()")).timestamp() * 1000)
    await put(
        own.store, key, minutes([now // MINUTE * MINUTE - n * MINUTE for n in reversed(range(300))])
    )

    await own.refresh(onward=True)
    for view in VIEWS:
        await own.run_policy(view)

    beyond = await own.pool.fetch(
        "SELECT level FROM materialized WHERE until > now() - interval '2 hours'"
    )
    assert beyond == []
    assert await _behind(own.pool, timedelta(hours=3), level=1)
    await own.assert_exact(key)


@on_timescale
async def test_writes_near_now_leave_no_marks_and_writes_below_wake_the_refresher(
    own: Kept,
) -> None:
    key = fresh_key()
    now = round((await own.pool.fetchval("SELECT now()")).timestamp() * 1000)
    await put(own.store, key, minutes([now // MINUTE * MINUTE - 5 * MINUTE]))
    near = await own.marks()
    refresher = Refresher(own.url, every=3600.0)

    async with running(refresher):
        await until(lambda: _leads(own.pool))
        await put(own.store, key, minutes([START]))
        await until(lambda: _unmarked(own))

    assert near == 0
    await own.assert_exact(key)


@on_timescale
async def test_one_refresher_works_at_a_time_and_another_takes_over(own: Kept) -> None:
    first, second = Refresher(own.url, every=0.05), Refresher(own.url, every=0.05)

    async with running(first):
        await until(lambda: _leads(own.pool))
        refused = await second.refresh()
    await until(second.refresh)

    assert not refused


def test_ranges_are_joined_over_the_narrowest_holes() -> None:
    def at(minute: int) -> datetime:
        return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)

    ranges = [(at(n), at(n + 1)) for n in (100, 0, 1, 5, 50, 103)]

    joined = coalesced(ranges, at_most=3)

    assert joined == [(at(0), at(6)), (at(50), at(51)), (at(100), at(104))]
    assert coalesced(ranges) == [
        (at(0), at(2)), (at(5), at(6)), (at(50), at(51)), (at(100), at(101)), (at(103), at(104)),
    ]  # fmt: skip
    assert coalesced([]) == []


async def _table(pool: asyncpg.Pool, level: int) -> str:
    """The table that an aggregate is materialized in."""
    return await pool.fetchval(
        "SELECT format('%I.%I', h.schema_name, h.table_name) FROM preaggregation_configs p "
        "JOIN _timescaledb_catalog.hypertable h ON h.id = p.materialization_id "
        "WHERE p.level = $1",
        level,
    )


async def _waits_for_lock(pool: asyncpg.Pool) -> bool:
    return await pool.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )


async def _leads(pool: asyncpg.Pool) -> bool:
    return await pool.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database "
        "WHERE locktype = 'advisory' AND d.datname = current_database())"
    )


async def _unmarked(own: Kept) -> bool:
    return await own.marks() == 0


async def _behind(pool: asyncpg.Pool, by: timedelta, *, level: int) -> bool:
    return await pool.fetchval(
        "SELECT until > now() - $2::interval FROM materialized WHERE level = $1", level, by
    )
