"""The nine aggregates equal the recomputation from the minutes at every moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.candles import CandleStore
from db.stored import SeriesKey, Write
from market.bars import CLOSED, Bars
from market.timeframe import Timeframe
from market.window import DAY, MINUTE, Spans, Window
from tests.db.minutes import (
    AROUND,
    T0,
    VIEWS,
    Minute,
    as_aggregates,
    assert_same,
    assert_views_exact,
    fresh_key,
    minutes,
    put,
    recomputed,
    rows_of,
    stored,
)


def at(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp()) * 1000  # type: ignore[misc,arg-type]


# Minutes on both sides of the ends of hours, days, weeks, months, years and a leap day.
EDGES = [
    at(1969, 12, 31, 23, 59),
    at(1970, 1, 1),
    at(2023, 12, 31, 23, 59),
    at(2024, 1, 1),
    at(2024, 1, 1, 0, 4),
    at(2024, 1, 1, 0, 5),
    at(2024, 2, 29, 23, 59),
    at(2024, 3, 1),
    at(2024, 3, 3, 23, 59),
    at(2024, 3, 4),
    at(2024, 3, 4, 3, 59),
    at(2024, 3, 4, 4),
    *(at(2024, 3, 4, 11, minute) for minute in range(0, 60, 7)),
]
PRICES = st.integers(1, 40).map(lambda n: n / 10)


@dataclass(frozen=True)
class Step:
    """One write of the property test: minutes, how far they cover, and when they were asked for."""

    rows: dict[int, Minute]
    covered: Window | None
    observed_at: int

    def write(self, key: SeriesKey) -> Write:
        rows = [self.rows[time] for time in sorted(self.rows)]
        bars = Bars.of(
            sorted(self.rows),
            *([getattr(row, name) for row in rows] for name in ("open", "high", "low", "close")),
            [row.volume for row in rows],
            vwap=[np.nan if row.vwap is None else row.vwap for row in rows],
            trades=[-1 if row.trades is None else row.trades for row in rows],
            flags=CLOSED,
        )
        covered = Spans() if self.covered is None else Spans((self.covered,))
        return Write(key, AROUND, bars, self.observed_at, covered, covered)


@st.composite
def _minute(draw: st.DrawFn, observed_at: int) -> Minute:
    prices = [draw(PRICES) for _ in range(4)]
    return Minute(
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[1],
        volume=draw(st.sampled_from([0.0, 0.1, 0.7, 1e9])),
        vwap=draw(st.none() | PRICES),
        trades=draw(st.none() | st.integers(0, 9)),
        revision=1,
        void=False,
        observed_at=observed_at,
    )


@st.composite
def _step(draw: st.DrawFn) -> Step:
    observed_at = T0 + draw(st.integers(0, 5))
    times = draw(st.lists(st.sampled_from(EDGES), max_size=6, unique=True))
    covered = draw(st.none() | st.tuples(*[st.sampled_from(EDGES)] * 2).map(sorted))
    return Step(
        rows={time: draw(_minute(observed_at)) for time in times},
        covered=covered and Window(covered[0], covered[1] + MINUTE),
        observed_at=observed_at,
    )


def _applied(rows: dict[int, Minute], step: Step) -> dict[int, Minute]:
    """Promise 8, told a second time."""
    after = dict(rows)
    for time, new in step.rows.items():
        old = rows.get(time)
        if old is None:
            after[time] = new
        elif replace(new, revision=old.revision, observed_at=old.observed_at) == old:
            after[time] = replace(old, observed_at=max(old.observed_at, new.observed_at))
        elif new.observed_at >= old.observed_at:
            after[time] = replace(new, revision=old.revision + 1)
    for time, old in rows.items():
        inside = step.covered and step.covered.since <= time < step.covered.until
        if inside and time not in step.rows and old.observed_at < step.observed_at:
            revision = old.revision + (not old.void)
            after[time] = replace(old, void=True, revision=revision, observed_at=step.observed_at)
    return after


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(_step(), min_size=1, max_size=6))
async def test_any_sequence_of_writes_leaves_rows_and_views_exact(
    store: CandleStore, pool: asyncpg.Pool, steps: list[Step]
) -> None:
    key = fresh_key()
    expected: dict[int, Minute] = {}

    for step in steps:
        await store.write([step.write(key)])
        expected = _applied(expected, step)

    assert await rows_of(pool, key) == expected
    await assert_views_exact(pool, key)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.lists(_step(), min_size=2, max_size=2), min_size=2, max_size=5))
async def test_concurrent_writes_of_two_series_leave_views_exact_and_never_deadlock(
    store: CandleStore, pool: asyncpg.Pool, steps: list[list[Step]]
) -> None:
    keys = [fresh_key(), fresh_key()]
    await store.ensure([(key, AROUND) for key in keys])

    await asyncio.gather(
        *(
            store.write([step.write(key) for key, step in zip(keys[::order], pair, strict=True)])
            for order, pair in zip([1, -1] * len(steps), steps, strict=False)
        )
    )

    for key in keys:
        await assert_views_exact(pool, key)


async def test_views_agree_with_two_years_of_minutes_and_with_what_the_store_reads(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    rng = np.random.default_rng(11)
    time = at(2022, 12, 30) + np.sort(rng.choice(2 * 366 * 1440, 6000, replace=False)) * MINUTE
    close = 20_000 + rng.normal(size=len(time)).cumsum()
    bars = Bars.of(
        time,
        np.roll(close, 1),
        np.maximum(close, np.roll(close, 1)) + 1,
        np.minimum(close, np.roll(close, 1)) - 1,
        close,
        rng.lognormal(0, 4, len(time)),
        vwap=close + 0.25,
        trades=rng.integers(0, 10_000, len(time)),
        flags=CLOSED,
    )

    await put(store, key, bars)

    await assert_views_exact(pool, key)
    rows = await rows_of(pool, key)
    for timeframe in VIEWS:
        read = await stored(store, key, Timeframe.parse(timeframe))
        assert_same(recomputed(rows, timeframe), as_aggregates(read))


async def test_an_aggregate_is_as_new_as_its_newest_minute(store: CandleStore) -> None:
    key = fresh_key()
    day = T0 // DAY * DAY

    await put(store, key, minutes([day, day + 5 * MINUTE, day + 8 * MINUTE]))

    five = await stored(store, key, Timeframe.parse("5m"))
    assert five.time.tolist() == [day, day + 5 * MINUTE]
    assert five.updated.tolist() == [day + MINUTE, day + 9 * MINUTE]


async def test_a_bucket_whose_minutes_were_all_withdrawn_is_gone_and_counts_on(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]), T0)
    await put(store, key, Bars.empty(), T0 + 1, covered=Spans.of(T0, T0 + MINUTE))
    gone = [len(await stored(store, key, Timeframe.parse(view))) for view in VIEWS]

    await put(store, key, minutes([T0]), T0 + 2)

    assert gone == [0] * 9
    for view in VIEWS:
        assert (await stored(store, key, Timeframe.parse(view))).revision.tolist() == [3]
    await assert_views_exact(pool, key)


async def test_volume_without_a_vwap_leaves_the_aggregate_without_one(store: CandleStore) -> None:
    key = fresh_key()
    hour = T0 // (60 * MINUTE) * 60 * MINUTE
    times = [hour, hour + 10 * MINUTE, hour + 30 * MINUTE]
    await put(store, key, minutes(times, vwap=[10.5, np.nan, 9.5]))

    half = await stored(store, key, Timeframe.parse("30m"))
    whole = await stored(store, key, Timeframe.parse("1h"))

    assert np.isnan(half.vwap[0])
    assert half.vwap[1] == 9.5
    assert np.isnan(whole.vwap[0])


async def test_every_registered_view_can_be_queried_by_name(pool: asyncpg.Pool) -> None:
    registered = await pool.fetch(
        "SELECT timeframe, view_name FROM preaggregation_configs ORDER BY level"
    )

    assert {row["timeframe"]: row["view_name"] for row in registered} == VIEWS
    for view in ("ohlcv_data", *VIEWS.values()):
        columns = await pool.fetch(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = $1",
            view,
        )
        names = {row["column_name"] for row in columns}
        assert names >= {
            "market", "provider", "symbol", "timestamp", "base_currency", "quote_currency",
            "open", "high", "low", "close", "volume", "source", "trades", "vwap", "revision",
            "dataset",
        }  # fmt: skip
        assert ("timeframe" in names) == (view == "ohlcv_data")
