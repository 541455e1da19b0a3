"""What the store decides when bars are written: promise 8 of the API, rule by rule."""

import asyncpg
import numpy as np
import pytest

from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, Wanted, Write
from market.bars import CLOSED, FROM_TRADES, NATIVE, Bars
from market.errors import InvalidBars
from market.timeframe import SECOND_FRAME, Timeframe
from market.window import DAY, MINUTE, Spans, Window
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

T1, T2 = T0 + MINUTE, T0 + 2 * MINUTE
HOUR_SPAN = Spans.of(T0, T0 + 60 * MINUTE)


async def test_a_new_minute_starts_at_revision_1(store: CandleStore) -> None:
    key = fresh_key()

    written = await put(store, key, minutes([T0, T1]))

    assert written.bars.revision.tolist() == [1, 1]
    assert await stored(store, key) == written.bars
    assert written.state.position == 1
    assert [(c.since, c.until) for c in written.changes] == [(T0, T1 + 1)]


async def test_values_come_back_bit_for_bit(store: CandleStore) -> None:
    key = fresh_key()
    rng = np.random.default_rng(7)
    close = rng.random(3) * 1e-7
    bars = Bars.of(
        [T0, T1, T2],
        close,
        close * 3,
        close / 3,
        close,
        [0.1 + 0.2, 1e300, 5e-324],
        vwap=[close[0], np.nan, np.nan],
        trades=[2**40, -1, 0],
        updated=[T1 + 1, T1 + 2, T1 + 3],
        flags=CLOSED | FROM_TRADES,
    )

    await put(store, key, bars)

    assert await stored(store, key) == bars.with_columns(revision=np.array([1, 1, 1]))


async def test_a_rewrite_that_differs_adds_one_to_the_revision(store: CandleStore) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0, T1]), T0)

    written = await put(store, key, minutes([T1], close=11), T0 + 1)

    assert written.bars.revision.tolist() == [2]
    assert (await stored(store, key)).revision.tolist() == [1, 2]
    assert (await stored(store, key)).close.tolist() == [10, 11]
    assert [(c.position, c.since, c.until) for c in written.changes] == [(2, T1, T1 + 1)]


@pytest.mark.parametrize(
    "columns", [{"vwap": [10.5]}, {"trades": [3]}], ids=["a vwap", "a count of trades"]
)
async def test_a_rewrite_that_only_adds_an_optional_value_differs(
    store: CandleStore, columns: dict[str, list[float]]
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]))

    written = await put(store, key, minutes([T0], **columns), T0 + 1)

    assert written.bars.revision.tolist() == [2]


async def test_equal_values_change_nothing(store: CandleStore) -> None:
    key = fresh_key()
    first = await put(store, key, minutes([T0], vwap=[10.0], trades=[3]), T0)

    again = minutes([T0], vwap=[10.0], trades=[3]).with_columns(updated=np.array([T0 + DAY]))
    second = await put(store, key, again, T0 + 1)

    assert second.bars == first.bars
    assert second.state == first.state
    assert second.changes == ()


async def test_values_asked_for_earlier_are_dropped_and_the_newer_ones_returned(
    store: CandleStore,
) -> None:
    key = fresh_key()
    newer = await put(store, key, minutes([T0, T1], close=12), T0 + 10)

    late = await put(store, key, minutes([T0, T1, T2], close=11), T0 + 9)

    assert late.bars.close.tolist() == [12, 12, 11]
    assert late.bars.revision.tolist() == [1, 1, 1]
    assert late.bars.take(slice(0, 2)) == newer.bars
    assert await stored(store, key) == late.bars


async def test_a_confirmed_value_stands_against_an_answer_between(store: CandleStore) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0], close=10), T0 + 1)
    await put(store, key, minutes([T0], close=10), T0 + 3)

    late = await put(store, key, minutes([T0], close=11), T0 + 2)

    assert late.bars.close.tolist() == [10]
    assert late.bars.revision.tolist() == [1]


async def test_of_answers_asked_for_in_the_same_millisecond_the_later_to_arrive_wins(
    store: CandleStore,
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0], close=10), T0)

    second = await put(store, key, minutes([T0], close=11), T0)

    assert second.bars.close.tolist() == [11]
    assert second.bars.revision.tolist() == [2]


async def test_a_minute_missing_from_a_covering_answer_is_void_and_counts_on(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0, T1, T2]), T0)

    written = await put(store, key, minutes([T0, T2]), T0 + 1, covered=Spans.of(T0, T2 + MINUTE))

    assert (await stored(store, key)).time.tolist() == [T0, T2]
    assert (await rows_of(pool, key))[T1].void
    assert (await rows_of(pool, key))[T1].revision == 2
    assert [(c.since, c.until) for c in written.changes] == [(T1, T1 + 1)]
    await assert_views_exact(pool, key)


async def test_a_withdrawn_minute_that_comes_back_adds_one_even_with_equal_values(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]), T0)
    await put(store, key, Bars.empty(), T0 + 1, covered=HOUR_SPAN)

    back = await put(store, key, minutes([T0]), T0 + 2)

    assert back.bars.revision.tolist() == [3]
    assert await stored(store, key) == back.bars
    await assert_views_exact(pool, key)


async def test_a_withdrawn_minute_does_not_come_back_by_an_answer_asked_for_earlier(
    store: CandleStore,
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]), T0)
    await put(store, key, Bars.empty(), T0 + 1, covered=HOUR_SPAN)
    await put(store, key, Bars.empty(), T0 + 5, covered=HOUR_SPAN)

    late = await put(store, key, minutes([T0]), T0 + 4)

    assert len(late.bars) == 0
    assert len(await stored(store, key)) == 0


@pytest.mark.parametrize("asked", [T0 - 1, T0])
async def test_absence_withdraws_only_what_was_asked_for_earlier(
    store: CandleStore, asked: int
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]), T0)

    written = await put(store, key, Bars.empty(), asked, covered=HOUR_SPAN)

    assert written.changes == ()
    assert len(await stored(store, key)) == 1


async def test_known_time_coalesces_and_only_settled_time_is_known(store: CandleStore) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]), settled=Spans.of(T0, T1))
    await put(store, key, minutes([T2]), settled=Spans.of(T2, T2 + MINUTE))
    apart = (await store.states([key]))[0]

    closed = await put(store, key, Bars.empty(), covered=HOUR_SPAN, settled=Spans.of(T1, T2))

    assert apart is not None
    assert apart.known == Spans((Window(T0, T1), Window(T2, T2 + MINUTE)))
    assert closed.state.known == Spans.of(T0, T2 + MINUTE)
    assert closed.state.position == apart.position


async def test_generation_grows_only_with_changes_in_time_already_known(
    store: CandleStore,
) -> None:
    key = fresh_key()
    known = Spans.of(T0, T0 + 10 * MINUTE)
    first = await put(store, key, minutes([T0, T1]), settled=known)
    outside = await put(store, key, minutes([T0 + 10 * MINUTE]))
    revised = await put(store, key, minutes([T1], close=11), T0 + 1)
    inserted = await put(store, key, minutes([T2]), T0 + 1)
    void = await put(store, key, Bars.empty(), T0 + 2, covered=Spans.of(T0, T1))
    same = await put(store, key, minutes([T1], close=11), T0 + 3, settled=known)

    states = (first, outside, revised, inserted, void, same)

    assert [w.state.generation for w in states] == [0, 0, 1, 2, 3, 3]
    assert [w.state.position for w in states] == [1, 2, 3, 4, 5, 5]


async def test_changes_far_apart_are_logged_apart_and_at_most_16(store: CandleStore) -> None:
    key = fresh_key()
    near = await put(store, key, minutes([T0, T0 + 3 * DAY, T0 + 10 * DAY]))

    many = await put(store, key, minutes([T0 + 30 * DAY * n for n in range(1, 41)]))

    assert [(c.since, c.until) for c in near.changes] == [
        (T0, T0 + 3 * DAY + 1),
        (T0 + 10 * DAY, T0 + 10 * DAY + 1),
    ]
    assert [c.position for c in many.changes] == list(range(3, 19))
    assert many.changes[0].since == T0 + 30 * DAY
    assert many.changes[-1].until == T0 + 1200 * DAY + 1
    assert many.state.position == 18


async def test_minutes_from_is_set_once_and_then_moves_only_backwards(store: CandleStore) -> None:
    key = fresh_key()
    written = await put(store, key, minutes([T0]))
    series_id = written.state.id

    first = await store.set_minutes_from(series_id, T0)
    later = await store.set_minutes_from(series_id, T1)
    earlier = await store.set_minutes_from(series_id, T0 - DAY)

    assert (first.minutes_from, first.generation, first.position) == (T0, 0, 1)
    assert later == first
    assert (earlier.minutes_from, earlier.generation, earlier.position) == (T0 - DAY, 1, 2)
    log = await store.changes(series_id, after=1, limit=10)
    assert [(c.since, c.until) for c in log.changes] == [(T0 - DAY, T0)]


async def test_writes_of_one_call_that_share_a_series_count_one_after_the_other(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    one, other = fresh_key(), fresh_key()

    written = await store.write(
        [
            Write(one, AROUND, minutes([T0]), T0),
            Write(other, AROUND, minutes([T0, T1]), T0),
            Write(one, AROUND, minutes([T0, T1], close=11), T0 + 1),
        ]
    )

    assert [w.bars.revision.tolist() for w in written] == [[1], [1, 1], [2, 1]]
    assert [w.state.position for w in written] == [1, 1, 2]
    await assert_views_exact(pool, one)
    await assert_views_exact(pool, other)


async def test_one_false_bar_stores_nothing_of_the_call(store: CandleStore) -> None:
    good, bad = fresh_key(), fresh_key()
    nan = minutes([T0, T1]).with_columns(close=np.array([10.0, np.nan]))

    with pytest.raises(InvalidBars):
        await store.write([Write(good, AROUND, minutes([T0]), T0), Write(bad, AROUND, nan, T0)])

    assert await store.states([good, bad]) == [None, None]


@pytest.mark.parametrize(
    "bars",
    [
        minutes([T0]).with_columns(flags=np.array([0], np.uint8)),
        minutes([T0 + 1]),
        minutes([1 << 60]),
        minutes([T0]).with_columns(flags=np.array([CLOSED | NATIVE | FROM_TRADES], np.uint8)),
    ],
    ids=["forming", "off the minute", "beyond the year 9999", "two sources"],
)
async def test_bars_that_cannot_be_final_are_refused(store: CandleStore, bars: Bars) -> None:
    with pytest.raises(InvalidBars):
        await put(store, fresh_key(), bars)


async def test_the_table_itself_refuses_nan(store: CandleStore, pool: asyncpg.Pool) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]))

    for column in ("open", "high", "low", "close", "volume", "vwap"):
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute(
                f"UPDATE bar SET {column} = 'NaN' FROM series s "
                "WHERE s.id = series_id AND s.symbol = $1",
                key.listing.symbol,
            )


async def test_a_product_beyond_float64_is_refused_and_not_stored(store: CandleStore) -> None:
    key = fresh_key()
    huge = minutes([T0], vwap=[1e200]).with_columns(volume=np.array([1e200]))

    with pytest.raises(InvalidBars):
        await put(store, key, huge)

    assert len(await stored(store, key)) == 0


async def test_sources_are_kept_and_shown_by_name(store: CandleStore, pool: asyncpg.Pool) -> None:
    key = fresh_key(Timeframe.parse("1d"))
    seconds = SeriesKey(key.listing, SECOND_FRAME)
    day = minutes([T0 // DAY * DAY]).with_columns(flags=np.array([CLOSED | NATIVE], np.uint8))
    second = minutes([T0]).with_columns(flags=np.array([CLOSED | FROM_TRADES], np.uint8))
    await store.write(
        [
            Write(key, SeriesFacts(), day, T0),
            Write(seconds, SeriesFacts(), second, T0),
        ]
    )

    rows = await pool.fetch(
        "SELECT timeframe, source FROM ohlcv_data WHERE symbol = $1 ORDER BY 1", key.listing.symbol
    )

    assert [tuple(row) for row in rows] == [("1d", "NATIVE"), ("1s", "TRADES")]
    assert (await stored(store, key)).flags.tolist() == [CLOSED | NATIVE]


async def test_only_minutes_around_the_clock_have_aggregates(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    stock, day = fresh_key(), fresh_key(Timeframe.parse("1d"))
    await store.write(
        [
            Write(stock, SeriesFacts("SPY", "USD"), minutes([T0]), T0),
            Write(day, AROUND, minutes([T0 // DAY * DAY]), T0),
        ]
    )

    found = await store.snapshot(
        [
            Wanted(key, Window(0, 1 << 60), view)
            for key in (stock, day)
            for view in await store.views()
        ]
    )

    assert {len(f.bars) for f in found} == {0}
