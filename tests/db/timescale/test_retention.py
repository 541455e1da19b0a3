"""What is too old is dropped, for good, and no aggregate says anything else than before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import pytest

from db.pruner import Pruner
from db.stored import SeriesFacts, SeriesKey, Wanted, Write
from db.timescale import Refresher
from market.clock import FixedClock
from market.errors import StoreUnavailable
from market.retention import Retention
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans
from tests.db.minutes import (
    ALWAYS,
    AROUND,
    VIEWS,
    Aggregate,
    Minute,
    as_aggregates,
    assert_same,
    fresh_key,
    minutes,
    put,
    recomputed,
    rows_of,
    stored,
)
from tests.db.timescale.conftest import on_timescale
from tests.db.timescale.kept import Kept, until

NOW = 1_712_327_841_000
"""Friday 2024-04-05, 14:37:21 UTC."""
LINE = NOW // DAY * DAY - 30 * DAY
"""Wednesday 2024-03-06: inside a week, a month and a year."""
OLD = LINE - 400 * DAY

in_both_modes = pytest.mark.parametrize(
    "server_url", ["embedded", "timescale"], indirect=True, scope="session"
)
on_embedded = pytest.mark.parametrize("server_url", ["embedded"], indirect=True, scope="session")


@dataclass(frozen=True)
class Shown:
    """What can be read of a series: by view, from the store and by SQL."""

    read: Mapping[str, Mapping[int, Aggregate]]
    queried: Mapping[str, list[tuple[object, ...]]]


def pruner(own: Kept, text: str = "1m:30d", *, now: int = NOW, patience: float = 60) -> Pruner:
    # Below what settings allow, so that there is little to write.
    periods = [part.split(":") for part in text.split(",")]
    retention = Retention(
        tuple((Timeframe.parse(name), int(days[:-1]) * DAY) for name, days in periods)
    )
    return Pruner(own.url, retention, clock=FixedClock(now), ages=lambda _: True, patience=patience)


async def fill(own: Kept, key: SeriesKey, *, every: int = 7 * HOUR) -> None:
    """Store minutes from long before the line until a day before now; all of that time is known."""
    times = range(OLD, NOW - DAY, every)
    bars = minutes(list(times), vwap=[10.25] * len(times), trades=[3] * len(times))
    await put(own.store, key, bars, settled=Spans.of(OLD, NOW - DAY))


async def shown(own: Kept, key: SeriesKey) -> Shown:
    return Shown(
        {
            view: as_aggregates(await stored(own.store, key, Timeframe.parse(view)))
            for view in VIEWS
        },
        {
            view: [
                tuple(row)
                for row in await own.pool.fetch(
                    f'SELECT "timestamp", open, high, low, close, trades, revision FROM {name} '
                    "WHERE symbol = $1 ORDER BY 1",
                    key.listing.symbol,
                )
            ]
            for view, name in VIEWS.items()
        },
    )


async def known(own: Kept, key: SeriesKey, view: str | None = None) -> Spans:
    wanted = Wanted(key, ALWAYS, Timeframe.parse(view) if view else None)
    ((state, _),) = [(found.state, found.bars) for found in await own.store.snapshot([wanted])]
    assert state is not None
    return state.known | state.rolled


@in_both_modes
async def test_every_view_says_what_it_said_before_the_minutes_were_dropped(own: Kept) -> None:
    key, other = fresh_key(), fresh_key()
    await fill(own, key)
    await fill(own, other)
    await own.refresh(onward=True)
    # Marked and not refreshed when the minutes go: on both sides of the line, and in its month.
    for at in (OLD + 3 * DAY, LINE - 5 * DAY, LINE - HOUR, LINE + HOUR):
        await put(own.store, key, minutes([at // MINUTE * MINUTE], close=33.0), 2**41)
    before, others = await shown(own, key), await shown(own, other)
    work = pruner(own)

    assert await work.prune()

    assert await shown(own, key) == before
    assert await shown(own, other) == others
    assert (await stored(own.store, key)).time.min() >= LINE
    assert work.postponed == 0
    await own.refresh(onward=True)
    assert await own.marks() == 0
    assert await shown(own, key) == before
    await own.compress()
    assert await shown(own, other) == others


@in_both_modes
async def test_bars_before_the_line_are_known_of_through_the_views_alone(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)

    await pruner(own, "1m:30d,1h:200d").prune()

    hours = (NOW - 200 * DAY) // DAY * DAY
    assert await known(own, key) == Spans.of(LINE, NOW - DAY)
    assert await known(own, key, "5m") == Spans.of(hours, NOW - DAY)
    assert await known(own, key, "1h") == Spans.of(hours, NOW - DAY)
    assert await known(own, key, "4h") == Spans.of(OLD, NOW - DAY)
    assert min((await shown(own, key)).read["1h"]) >= hours
    (state,) = await own.store.states([key])
    assert state is not None
    assert state.retained_from == LINE


@in_both_modes
async def test_what_comes_late_is_counted_and_changes_nothing_before_the_line(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)
    rows = await rows_of(own.pool, key)
    await pruner(own, "1m:30d,1d:30d").prune()
    late = minutes([LINE - 3 * DAY, LINE - MINUTE, LINE + 2 * MINUTE], close=99.0)
    gone = Spans.of(LINE - 9 * DAY, LINE)

    written = await put(own.store, key, late, 2**41, covered=gone, settled=gone)

    assert written.bars.time.tolist() == [LINE + 2 * MINUTE]
    assert written.too_old == own.store.too_old == 2
    assert await known(own, key) == Spans.of(LINE, NOW - DAY)
    # Week, month and year of the line are made of all minutes there were, and the new one.
    rows[LINE + 2 * MINUTE] = Minute(99.0, 100.0, 98.0, 99.0, 2.0, None, None, 1, False, 2**41)
    after = await shown(own, key)
    for view in VIEWS:
        since = (await known(own, key, view)).hull.since
        left = {time: bar for time, bar in recomputed(rows, view).items() if time >= since}
        assert_same(left, {t: bar for t, bar in after.read[view].items() if t >= since})
    assert min(after.read["1M"]) < OLD < min(after.read["1d"]) < LINE
    await own.refresh(onward=True)
    assert await shown(own, key) == after


@in_both_modes
async def test_the_line_moves_on_with_time_and_never_back(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)
    before = await shown(own, key)
    await pruner(own).prune()

    await pruner(own, now=NOW + 5 * DAY).prune()
    await pruner(own, "1m:60d").prune()

    (state,) = await own.store.states([key])
    assert state is not None
    assert state.retained_from == LINE + 5 * DAY
    assert (await stored(own.store, key)).time.min() >= LINE + 5 * DAY
    assert await shown(own, key) == before


@on_embedded
async def test_a_pass_cut_off_while_it_deletes_leaves_bars_and_line_as_they_were(
    own: Kept,
) -> None:
    key = fresh_key(Timeframe.parse("1s"))
    times = [OLD + n * HOUR for n in range(24)]
    await own.store.write([Write(key, SeriesFacts(), minutes(times), NOW)])

    async with own.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE bar IN SHARE MODE")
        work = asyncio.create_task(pruner(own).prune())
        await until(lambda: _waits_for_lock(own.pool))
        drawn = await connection.fetchval("SELECT count(*) FROM retained")
        await own.pool.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(StoreUnavailable):
            await work

    assert drawn == 0
    (state,) = await own.store.states([key])
    assert state is not None
    assert state.retained_from is None
    assert len(await stored(own.store, key)) == 24
    assert await pruner(own).prune()
    assert len(await stored(own.store, key)) == 0


@on_embedded
async def test_native_bars_and_minutes_without_aggregates_go_by_their_own_timeframe(
    own: Kept,
) -> None:
    stock, days = fresh_key(), fresh_key(DAY_FRAME)
    times = list(range(OLD, NOW - DAY, DAY))
    for key in (stock, days):
        bars = minutes(times)
        settled = Spans.of(OLD, NOW - DAY)
        await own.store.write([Write(key, SeriesFacts(), bars, NOW, settled=settled)])

    await pruner(own, "1m:30d").prune()

    assert (await stored(own.store, stock)).time.tolist() == [t for t in times if t >= LINE]
    assert await known(own, stock) == Spans.of(LINE, NOW - DAY)
    assert (await stored(own.store, days)).time.tolist() == times
    assert await known(own, days) == Spans.of(OLD, NOW - DAY)


@on_embedded
async def test_listings_that_do_not_age_are_left_as_they_are(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    retention = Retention(((MINUTE_FRAME, 30 * DAY),))
    work = Pruner(own.url, retention, clock=FixedClock(NOW), ages=lambda _: False)

    assert await work.prune()

    assert (await stored(own.store, key)).time.min() == OLD
    assert (work.bars, work.chunks) == (0, 0)


@on_embedded
async def test_one_drops_at_a_time(own: Kept) -> None:
    async with own.pool.acquire() as connection:
        await connection.fetchval("SELECT pg_advisory_lock($1)", 0x6261_7267_7265_7465)
        assert not await pruner(own).prune()
        await connection.fetchval("SELECT pg_advisory_unlock_all()")

    assert await pruner(own).prune()


@on_timescale
async def test_chunks_are_dropped_whole_where_every_bar_in_them_is_past(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)
    await own.compress()
    work = pruner(own)

    await work.prune()

    assert work.chunks > 10
    line = datetime.fromtimestamp(LINE / 1000, UTC)
    assert await own.pool.fetch("SELECT * FROM chunks_before($1)", line) == []
    assert (await stored(own.store, key)).time.min() >= LINE


@on_timescale
async def test_a_chunk_stays_that_holds_a_bar_that_is_kept(own: Kept) -> None:
    key, days = fresh_key(), fresh_key(DAY_FRAME)
    await fill(own, key)
    await own.store.write([Write(days, AROUND, minutes([OLD + 100 * DAY]), NOW)])
    await own.refresh(onward=True)

    await pruner(own).prune()

    assert (await stored(own.store, days)).time.tolist() == [OLD + 100 * DAY]
    assert (await stored(own.store, key)).time.min() >= LINE


@on_timescale
async def test_a_chunk_stays_while_somebody_reads_who_does_not_see_the_line(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)
    work = pruner(own, patience=0)

    async with own.pool.acquire() as reader, reader.transaction(isolation="repeatable_read"):
        before = await reader.fetchval("SELECT count(*) FROM bar")
        await work.prune()
        postponed = work.postponed
        seen = await reader.fetchval("SELECT count(*) FROM bar")
    state = (await own.store.states([key]))[0]
    await work.prune()

    assert postponed > 10
    assert seen == before
    assert state is not None
    # What it is told of a line is true already: nobody takes the time before it for empty.
    assert state.known.hull.since == state.retained_from > OLD
    assert work.chunks >= postponed
    assert (await stored(own.store, key)).time.min() >= LINE


@on_timescale
async def test_minutes_stay_until_their_aggregates_are_materialized(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    before = await shown(own, key)
    work = pruner(own)

    await work.prune()
    postponed = work.postponed
    await own.refresh(onward=True)
    await work.prune()

    assert postponed > 0
    assert work.postponed == 0
    assert (await stored(own.store, key)).time.min() >= LINE
    assert await shown(own, key) == before


@on_timescale
async def test_history_that_comes_below_the_line_of_others_is_answered_and_then_dropped(
    own: Kept,
) -> None:
    key, new = fresh_key(), fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)
    await pruner(own).prune()
    before = await shown(own, key)

    await fill(own, new)
    await own.refresh(onward=True)
    whole = await shown(own, new)
    rows = await rows_of(own.pool, new)
    await pruner(own).prune()

    for view in VIEWS:
        assert_same(recomputed(rows, view), whole.read[view])
    assert await shown(own, new) == whole
    assert await shown(own, key) == before
    assert (await stored(own.store, new)).time.min() >= LINE


@on_timescale
async def test_once_minutes_are_dropped_the_application_alone_refreshes(own: Kept) -> None:
    key = fresh_key()
    await fill(own, key)
    await own.refresh(onward=True)
    await pruner(own).prune()

    refresher = Refresher(own.url)
    await refresher.refresh()

    policies = await own.pool.fetchval(
        "SELECT count(*) FROM timescaledb_information.jobs "
        "WHERE proc_name = 'policy_refresh_continuous_aggregate'"
    )
    assert policies == 0
    assert refresher.standing.alone
    assert refresher.standing.onward
    assert refresher.standing.lagging == 0


async def _waits_for_lock(pool: asyncpg.Pool) -> bool:
    return await pool.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
