"""Bars as columns: merging by promise 8, cutting, joining, and refusing what cannot be true."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import CLOSED, FROM_TRADES, NATIVE, Bars
from market.errors import InvalidBars
from market.window import Spans, Window

# A bar's value follows from its rank, so that equal ranks are equal bars.
ranks = st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 3))
columns = st.dictionaries(st.integers(0, 12), ranks, max_size=10)


def bars_of(by_time):
    times = sorted(by_time)
    ranked = [by_time[time] for time in times]
    price = [float(1 + 100 * c + 50 * r + 10 * rev + upd) for c, r, rev, upd in ranked]
    return Bars.of(
        times,
        price,
        price,
        price,
        price,
        price,
        revision=[rev for _, _, rev, _ in ranked],
        updated=[upd for _, _, _, upd in ranked],
        flags=[CLOSED * c | NATIVE * (not recomputed) for c, recomputed, _, _ in ranked],
    )


def minutes(*times, price=1.0, **columns):
    prices = [price] * len(times)
    return Bars.of(times, prices, prices, prices, prices, prices, **columns)


@given(columns, columns)
@settings(deadline=None, max_examples=300)
def test_of_two_bars_at_one_time_the_higher_wins(some, others):
    merged = bars_of(some).merge(bars_of(others))

    expected = {
        time: max(found)
        for time in some | others
        if (found := [by_time[time] for by_time in (some, others) if time in by_time])
    }
    assert merged == bars_of(expected)


@given(columns, columns, columns)
@settings(deadline=None, max_examples=300)
def test_merging_does_not_depend_on_order(one, two, three):
    a, b, c = bars_of(one), bars_of(two), bars_of(three)

    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(columns, columns)
@settings(deadline=None, max_examples=100)
def test_merging_again_changes_nothing(some, others):
    merged = bars_of(some).merge(bars_of(others))

    assert merged.merge(merged) == merged
    assert merged.merge(bars_of(others)) == merged


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (
            {"flags": 0, "revision": 9, "updated": 9},
            {"flags": CLOSED | NATIVE, "revision": 0, "updated": 0},
        ),
        (
            {"flags": CLOSED | NATIVE, "revision": 9, "updated": 9},
            {"flags": CLOSED, "revision": 1, "updated": 1},
        ),
        (
            {"flags": CLOSED, "revision": 1, "updated": 9},
            {"flags": CLOSED, "revision": 2, "updated": 1},
        ),
        (
            {"flags": 0, "revision": 0, "updated": 1},
            {"flags": FROM_TRADES, "revision": 0, "updated": 2},
        ),
    ],
    ids=["closed first", "then recomputed", "then revision", "then updated"],
)
def test_ranks_are_compared_in_the_order_of_promise_8(lower, higher):
    worse, better = minutes(0, price=1, **lower), minutes(0, price=2, **higher)

    assert worse.merge(better) == better
    assert better.merge(worse) == better


def test_of_equal_ranks_ours_stays():
    ours, theirs = minutes(0, price=1), minutes(0, price=2)

    assert ours.merge(theirs) == ours


@given(
    st.lists(st.integers(0, 50), unique=True).map(sorted), st.integers(-5, 55), st.integers(-5, 55)
)
@settings(deadline=None)
def test_a_slice_holds_the_bars_that_open_in_the_window(times, since, until):
    cut = minutes(*times).slice(Window(since, until))

    assert cut.time.tolist() == [time for time in times if since <= time < until]


spans = st.lists(st.builds(Window, st.integers(-1, 13), st.integers(-1, 13)), max_size=4).map(Spans)


@given(st.sets(st.integers(0, 12)).map(sorted), spans)
@settings(deadline=None)
def test_inside_spans_are_the_bars_that_open_there(times, spans):
    bars = minutes(*times)

    inside = bars.inside(spans)

    assert inside == bars.take(spans.contains(bars.time))
    assert inside.time.tolist() == [t for t in times if any(w.since <= t < w.until for w in spans)]


def test_a_slice_by_absurd_times_is_still_a_slice():
    assert minutes(1, 2).slice(Window(-(10**30), 10**30)).time.tolist() == [1, 2]


def test_the_last_bars_are_the_newest():
    bars = minutes(1, 2, 3)

    assert bars.last(2).time.tolist() == [2, 3]
    assert bars.last(9).time.tolist() == [1, 2, 3]
    assert bars.last(0).time.tolist() == []


def test_closed_leaves_out_what_is_forming():
    bars = minutes(1, 2, 3, flags=[CLOSED, CLOSED | NATIVE, NATIVE])

    assert bars.closed().time.tolist() == [1, 2]


def test_parts_that_follow_each_other_are_joined():
    whole = minutes(1, 2, 3, 4, revision=[1, 2, 3, 4])

    parts = [whole.take(slice(0, 2)), Bars.empty(), whole.take(slice(2, 4))]

    assert Bars.concat(parts) == whole
    assert Bars.concat([]) == Bars.empty()


@pytest.mark.parametrize("second", [(2, 3), (1,)])
def test_parts_that_do_not_ascend_are_not_joined(second):
    with pytest.raises(InvalidBars):
        Bars.concat([minutes(1, 2), minutes(*second)])


def test_what_a_provider_does_not_tell_is_none_and_not_zero():
    bars = minutes(1)

    assert np.isnan(bars.vwap).all()
    assert bars.trades.tolist() == [-1]
    assert bars.revision.tolist() == [0]


def test_columns_cannot_be_written():
    bars = minutes(1, 2)

    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 5


def test_columns_can_be_replaced_in_a_copy():
    bars = minutes(1, 2)

    replaced = bars.with_columns(revision=np.array([4, 5]))

    assert replaced.revision.tolist() == [4, 5]
    assert bars.revision.tolist() == [0, 0]
    assert replaced.close is bars.close


def test_bars_are_equal_when_every_column_is():
    assert minutes(1, 2) == minutes(1, 2)
    assert minutes(1, 2) != minutes(1, 3)
    assert minutes(1, 2) != minutes(1, 2, flags=CLOSED)
    assert minutes(1, 2) != minutes(1, 2, vwap=[1.0, 1.0])
    assert minutes(1) != minutes(1, 2)


@given(
    st.integers(1, 10**15 - 1),
    st.integers(-15, 8),
    st.booleans(),
)
@settings(deadline=None, max_examples=1000)
def test_a_decimal_of_fifteen_significant_digits_survives(digits, exponent, negative):
    written = Decimal((int(negative), tuple(map(int, str(digits))), exponent))
    value = float(str(written))

    bars = Bars.of([1, 2], *[[value, value]] * 5)
    kept = Bars.concat([bars.slice(Window(1, 2)), bars.last(1)]).merge(minutes(3))

    for column in (kept.open, kept.high, kept.low, kept.close, kept.volume):
        assert [Decimal(repr(number)) for number in column.tolist()[:2]] == [written, written]


GOOD = {
    "time": [0, 60_000],
    "open": [1.0, 2.0],
    "high": [3.0, 3.0],
    "low": [1.0, 1.0],
    "close": [2.0, 2.0],
    "volume": [0.0, 5.0],
}


def test_true_bars_pass_the_check_unchanged():
    bars = Bars.of(**GOOD)

    assert bars.checked() is bars
    assert len(Bars.empty().checked()) == 0


@pytest.mark.parametrize(
    ("column", "second", "reason"),
    [
        ("open", float("nan"), "finite"),
        ("high", float("inf"), "finite"),
        ("low", float("-inf"), "finite"),
        ("close", float("nan"), "finite"),
        ("volume", float("nan"), "volume"),
        ("volume", float("inf"), "volume"),
        ("volume", -1.0, "volume"),
        ("high", 0.5, "high below low"),
        ("high", 1.5, "high below open or close"),
        ("low", 2.5, "low above open or close"),
        ("time", 0, "time not after"),
        ("time", -60_000, "time not after"),
    ],
)
def test_a_bar_that_cannot_be_true_is_refused_by_position_and_reason(column, second, reason):
    bars = Bars.of(**GOOD | {column: [GOOD[column][0], second]})

    with pytest.raises(InvalidBars, match=f"bar 1 .*{reason}"):
        bars.checked()


def test_a_price_below_zero_can_be_true():
    oil = Bars.of([0], [-30.0], [-10.0], [-40.0], [-37.63], [5.0])

    assert oil.checked() is oil
