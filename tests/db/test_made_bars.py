"""Bars that the store makes of stored ones are those that would be made of what it sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.candles import CandleStore
from db.stored import SeriesFacts, Wanted, Write
from market.bars import CLOSED, FROM_TRADES, VOID, Bars
from market.buckets import Buckets, Grid
from market.calendars import calendar
from market.resample import resample
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from tests.db.minutes import ALWAYS, AROUND, T0, fresh_key, minutes, put
from tests.db.test_candles import CountedConnection

CLOCKS_CHANGE = 1_710_028_800_000
"""2024-03-10, when New York's clocks change."""
LATER = CLOCKS_CHANGE + 300 * DAY
FRAMES = ("7m", "30m", "45m", "1h", "5h", "1d", "1w", "1M")
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu")


@dataclass(frozen=True)
class Minute:
    at: int
    """Minutes since `CLOCKS_CHANGE`."""
    close: float
    volume: float
    vwap: float
    trades: int
    flags: int
    fate: str


prices = st.floats(1, 100, width=32)


def minutes_with(vwap: st.SearchStrategy[float], trades: st.SearchStrategy[int]) -> Any:
    """Many minutes close together, so that buckets hold several of every fate."""
    minute = st.builds(
        Minute,
        at=st.one_of(st.integers(0, 240), st.integers(-9 * 24 * 60, 9 * 24 * 60)),
        close=prices,
        volume=st.one_of(st.just(0.0), st.floats(0.125, 1000, width=32)),
        vwap=vwap,
        trades=trades,
        flags=st.sampled_from([CLOSED, CLOSED | FROM_TRADES]),
        fate=st.sampled_from(["kept", "kept", "corrected", "withdrawn"]),
    )
    some = st.lists(minute, unique_by=lambda minute: minute.at, max_size=5)
    many = st.lists(minute, unique_by=lambda minute: minute.at, min_size=20, max_size=40)
    return st.one_of(some, many).map(lambda them: sorted(them, key=lambda minute: minute.at))


stored_minutes = st.one_of(
    minutes_with(prices, st.integers(0, 50)),
    minutes_with(
        st.one_of(prices, prices, st.just(float("nan"))),
        st.one_of(st.integers(0, 50), st.integers(0, 50), st.just(-1)),
    ),
)


def bars_of(them: list[Minute], *, raised: float = 0.0) -> Bars:
    times = [CLOCKS_CHANGE + minute.at * MINUTE for minute in them]
    closes = np.array([minute.close for minute in them], np.float64)
    return Bars.of(
        times,
        closes - 0.25,
        closes + 1 + raised,
        closes - 1,
        closes,
        [minute.volume for minute in them],
        vwap=[minute.vwap for minute in them],
        trades=[minute.trades for minute in them],
        updated=[time + MINUTE + int(raised) for time in times],
        flags=np.array([minute.flags for minute in them], np.uint8),
    )


def grid_of(timeframe: str, zone: str) -> Grid:
    return Grid(Timeframe.parse(timeframe), zone=zone, calendar=calendar("24/7"))


def assert_alike(made: Bars, expected: Bars) -> None:
    """Sums of volume and turnover to 1e-12, all else bit for bit."""
    for name in ("time", "open", "high", "low", "close", "trades", "revision", "updated", "flags"):
        assert getattr(made, name).tolist() == getattr(expected, name).tolist(), name
    for name in ("volume", "vwap"):
        np.testing.assert_allclose(
            getattr(made, name), getattr(expected, name), rtol=1e-12, atol=0, err_msg=name
        )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    them=stored_minutes,
    cuts=st.lists(
        st.tuples(
            st.sampled_from(FRAMES),
            st.sampled_from(ZONES),
            st.one_of(st.integers(-30, 0), st.integers(-10 * 24, 10 * 24)),
            st.one_of(st.integers(40, 80), st.integers(1, 20 * 24)),
            st.integers(2, 40),
        ),
        min_size=1,
        max_size=4,
    ),
)
async def test_made_bars_are_those_resampled_from_the_minutes(
    store: CandleStore, them: list[Minute], cuts: list[tuple[str, str, int, int, int]]
) -> None:
    key = fresh_key()
    await put(store, key, bars_of(them), T0)
    changed = [minute for minute in them if minute.fate == "corrected"]
    await put(store, key, bars_of(changed, raised=3), T0 + 1)
    gone = bars_of([minute for minute in them if minute.fate == "withdrawn"])
    withdrawn = Spans.from_edges(gone.time, gone.time + MINUTE)
    await put(store, key, Bars.empty(), LATER, covered=withdrawn)
    wanted: list[tuple[Wanted, Buckets]] = []
    for timeframe, zone, since, hours, nth in cuts:
        start = CLOCKS_CHANGE + since * HOUR
        buckets = grid_of(timeframe, zone).opening_in(Window(start, start + hours * HOUR))
        some = np.arange(len(buckets)) % nth != 1
        buckets = Buckets(buckets.opens[some], buckets.closes[some])
        wanted.append((Wanted(key, buckets.hull, buckets=buckets), buckets))

    everything, *found = await store.snapshot([Wanted(key, ALWAYS), *(w for w, _ in wanted)])

    for one, (_, buckets) in zip(found, wanted, strict=True):
        assert one.state == everything.state
        assert np.isin(one.bars.time, buckets.opens).all()
        assert_alike(
            resample(one.bars, buckets, now=LATER),
            resample(everything.bars, buckets, now=LATER),
        )


async def test_one_bar_comes_for_each_bucket_that_holds_any(store: CandleStore) -> None:
    key = fresh_key()
    start = CLOCKS_CHANGE
    hours = grid_of("1h", "UTC").opening_in(Window(start, start + DAY))
    await put(store, key, minutes(range(start, start + 5 * HOUR, MINUTE)))
    of_third = Spans.of(start + 2 * HOUR, start + 3 * HOUR)
    await put(store, key, Bars.empty(), T0 + 1, covered=of_third)

    (found,) = await store.snapshot([Wanted(key, hours.hull, buckets=hours)])

    assert found.bars.time.tolist() == hours.opens[:5].tolist()
    assert found.bars.revision.tolist() == [60, 60, 120, 60, 60]
    assert (found.bars.flags & VOID != 0).tolist() == [False, False, True, False, False]


async def test_made_bars_stored_ones_and_views_come_with_one_statement(
    store: CandleStore, store_url: str
) -> None:
    start = CLOCKS_CHANGE
    keys = [fresh_key() for _ in range(20)]
    sevens = grid_of("7m", "UTC").opening_in(Window(start, start + HOUR))
    bars = minutes(range(start, start + HOUR, MINUTE))
    await store.write([Write(key, AROUND, bars, T0) for key in keys])
    connection = await asyncpg.connect(store_url)
    try:
        reader = CandleStore(CountedConnection(connection))
        hour = Timeframe.parse("1h")
        wanted = [
            one
            for key in [*keys, fresh_key()]
            for one in (
                Wanted(key, sevens.hull, buckets=sevens),
                Wanted(key, sevens.hull),
                Wanted(key, ALWAYS, hour),
            )
        ]
        await reader.snapshot(wanted[:3])  # asyncpg looks up the types of a new connection once
        statements: list[str] = []
        await asyncio.sleep(0)  # the log comes a turn of the loop late
        connection.add_query_logger(lambda record: statements.append(record.query))

        found = await reader.snapshot(wanted)

        await asyncio.sleep(0)
        assert len(statements) == 1
        assert [len(one.bars) for one in found] == [9, 60, 1] * 20 + [0, 0, 0]
    finally:
        await connection.close()


async def test_minutes_come_where_their_sum_is_too_great_for_the_database(
    store: CandleStore,
) -> None:
    key = fresh_key()
    start = CLOCKS_CHANGE
    hours = grid_of("1h", "UTC").opening_in(Window(start, start + HOUR))
    # Of what does not trade around the clock nothing is added up when it is written.
    bars = minutes([start, start + MINUTE]).with_columns(volume=np.array([1e308, 1e308]))
    facts = SeriesFacts("AAPL", "USD", around_the_clock=False)
    await store.write([Write(key, facts, bars, T0)])

    (found,) = await store.snapshot([Wanted(key, hours.hull, buckets=hours)])

    assert found.bars.time.tolist() == [start, start + MINUTE]
