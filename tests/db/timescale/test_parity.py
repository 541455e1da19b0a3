"""The nine aggregates equal the recomputation from the minutes, however they are kept."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime

import numpy as np
import pytest

from db.stored import SeriesKey, Write
from market.bars import CLOSED, Bars
from market.window import DAY, HOUR, MINUTE, Spans, Window
from tests.db.minutes import AROUND, VIEWS, assert_views_exact, fresh_key, minutes, put, rows_of
from tests.db.timescale.kept import Kept

HISTORY = (
    datetime(1999, 12, 31, 22, 30, tzinfo=UTC),
    datetime(2019, 12, 29, 23, tzinfo=UTC),
    datetime(2024, 2, 29, 22, tzinfo=UTC),
    # The hour when Berlin's clocks, and then New York's, are changed.
    datetime(2024, 3, 31, 0, tzinfo=UTC),
    datetime(2024, 10, 27, 0, tzinfo=UTC),
    datetime(2024, 11, 3, 5, tzinfo=UTC),
)
AGO = (40 * DAY, 3 * DAY, 5 * HOUR, 150 * MINUTE, 100 * MINUTE, 70 * MINUTE, 50 * MINUTE, 0, -DAY)
"""How long before the server's now a write may begin: around every line there is, and ahead."""
SEEDS = [random.randrange(2**32) for _ in range(3)] if os.environ.get("BARGRAPH_CHAOS") else [1, 2]


def made_up(rng: random.Random, start: int) -> Bars:
    n = rng.choice([1, 2, 30, 200])
    step = rng.choice([1, 1, 3, 61])
    times = start + np.arange(n) * step * MINUTE
    opened, closed = ([rng.randint(1, 400) / 10 for _ in range(n)] for _ in range(2))
    return Bars.of(
        times,
        opened,
        [max(pair) + 0.5 for pair in zip(opened, closed, strict=True)],
        [min(pair) - 0.05 for pair in zip(opened, closed, strict=True)],
        closed,
        [rng.choice([0.0, 0.1, 0.7, 1e9]) for _ in range(n)],
        vwap=[rng.choice([np.nan, 1.5, 2.25]) if rng.random() < 0.2 else 1.7 for _ in range(n)],
        trades=[-1 if rng.random() < 0.05 else rng.randint(0, 9) for _ in range(n)],
        flags=CLOSED,
    )


async def write(own: Kept, rng: random.Random, key: SeriesKey, now: int, asked: int) -> None:
    starts = [round(at.timestamp() * 1000) for at in HISTORY]
    starts += [(now - ago) // MINUTE * MINUTE for ago in AGO]
    bars = made_up(rng, rng.choice(starts) + rng.randrange(120) * MINUTE)
    await own.store.write([Write(key, AROUND, bars, asked)])


async def withdraw(own: Kept, rng: random.Random, key: SeriesKey, asked: int) -> None:
    times = sorted(await rows_of(own.pool, key))
    if times:
        since = rng.choice(times)
        covered = Spans.of(since, since + rng.choice([MINUTE, HOUR, DAY]))
        await own.store.write([Write(key, AROUND, Bars.empty(), asked, covered)])


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_written_refreshed_and_compressed_in_any_order(
    own: Kept, seed: int
) -> None:
    rng = random.Random(seed)
    keys = [fresh_key() for _ in range(3)]
    now = round((await own.pool.fetchval("SELECT now()")).timestamp() * 1000)

    for turn in range(40):
        key = rng.choice(keys)
        match rng.choices(range(6), [10, 3, 3, 3, 1, 2])[0]:
            case 0:
                await write(own, rng, key, now, now + turn)
            case 1:
                await withdraw(own, rng, key, now + turn)
            case 2:
                await own.refresh()
            case 3:
                await own.run_policy(rng.choice(list(VIEWS)))
            case 4:
                await own.compress()
            case 5:
                await own.refresh(onward=True)
        await own.assert_exact(key)

    await own.refresh(onward=True)
    assert await own.marks() == 0
    await own.assert_exact(*keys)


async def test_history_is_true_at_once_however_far_below_the_policies(own: Kept) -> None:
    key, other = fresh_key(), fresh_key()
    years = [
        round(datetime(year, 6, 1, tzinfo=UTC).timestamp() * 1000) for year in range(2010, 2020)
    ]
    for start in reversed(years):
        await put(own.store, key, minutes([start + n * 7 * MINUTE for n in range(300)]))
    await put(own.store, other, minutes([years[5]]))
    await own.refresh(onward=True)
    await own.assert_exact(key)

    await put(own.store, key, minutes([years[3] - DAY, years[3]], close=99.0), years[-1])

    await own.assert_exact(key, other)
    await own.refresh()
    await own.assert_exact(key, other)


async def test_a_change_that_ends_in_the_first_day_of_a_month_or_year_reaches_it(
    own: Kept,
) -> None:
    key = fresh_key()
    ends = [datetime(2024, 3, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)]
    midnights = [round(end.timestamp() * 1000) for end in ends]
    await put(own.store, key, minutes([midnights[1] + 300 * DAY]))
    await own.refresh(onward=True)

    for midnight in midnights:
        await put(own.store, key, minutes([midnight - HOUR, midnight, midnight + HOUR]))
        await own.refresh()

    assert await own.marks() == 0
    await own.assert_exact(key)


async def test_minutes_in_compressed_chunks_are_corrected_confirmed_and_withdrawn(
    own: Kept,
) -> None:
    key, other = fresh_key(), fresh_key()
    start = round(datetime(2024, 5, 1, tzinfo=UTC).timestamp() * 1000)
    times = [start + n * MINUTE for n in range(3000)]
    for one in (key, other):
        await put(own.store, one, minutes(times), start)
    await own.refresh(onward=True)
    await own.compress()

    corrected = await put(own.store, key, minutes(times[5:8], close=12.0), start + 1)
    same = await put(own.store, key, minutes(times[100:102]), start + 2)
    between = await put(own.store, key, minutes(times[100:101], close=13.0), start + 1)
    added = await put(own.store, key, minutes([times[-1] + MINUTE]), start + 1)
    gone = Spans((Window(times[200], times[210]),))
    withdrawn = await put(own.store, key, minutes([]), start + 3, covered=gone)

    assert corrected.bars.revision.tolist() == [2, 2, 2]
    assert same.bars.revision.tolist() == [1, 1]
    assert between.bars.close.tolist() == [10.0]
    assert added.bars.revision.tolist() == [1]
    assert len(withdrawn.changes) == 1
    rows = await rows_of(own.pool, key)
    assert sum(row.void for row in rows.values()) == 10
    assert all(row.revision == 1 for row in (await rows_of(own.pool, other)).values())
    await own.assert_exact(key, other)
    await own.refresh()
    await own.assert_exact(key, other)


async def test_views_do_not_depend_on_the_zone_of_whoever_reads(own: Kept) -> None:
    key = fresh_key()
    for at in HISTORY:
        start = round(at.timestamp() * 1000)
        await put(own.store, key, minutes([start + n * 20 * MINUTE for n in range(12)]))
    await own.refresh(onward=True)
    await put(own.store, key, minutes([round(HISTORY[3].timestamp() * 1000)], close=77.0), 2**41)

    await own.pool.execute(
        f"ALTER DATABASE {await own.pool.fetchval('SELECT current_database()')} "
        "SET timezone = 'Europe/Berlin'"
    )
    async with own.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL timezone = 'Europe/Berlin'")
        await assert_views_exact(connection, key)  # type: ignore[arg-type]
