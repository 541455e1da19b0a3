"""Coarser bars against a plain loop over their minutes, and bars of trades against the trades."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import CLOSED, FROM_TRADES, NATIVE, VOID, Bars
from market.buckets import Buckets, Grid
from market.calendars import calendar, in_session
from market.instrument import Session
from market.resample import resample, trades_to_bars
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Window

LATER = 10**15


def buckets_of(*edges):
    opens, closes = zip(*edges, strict=True) if edges else ((), ())
    return Buckets(np.array(opens, np.int64), np.array(closes, np.int64))


prices = st.floats(-1e6, 1e6, allow_subnormal=False)
amounts = st.one_of(st.just(0.0), st.floats(1e-8, 1e9))
rows = st.tuples(
    prices,
    prices,
    prices,
    prices,
    amounts,
    st.one_of(st.just(math.nan), st.floats(0.01, 1e6)),
    st.integers(-1, 500),
    st.integers(0, 9),
    st.integers(0, 10**12),
    st.integers(0, 7),
)


@st.composite
def bars(draw):
    times = sorted(draw(st.sets(st.integers(0, 60), max_size=25)))
    drawn = [draw(rows) for _ in times]
    return Bars.of(
        times,
        [row[0] for row in drawn],
        [row[1] for row in drawn],
        [row[2] for row in drawn],
        [row[3] for row in drawn],
        [row[4] for row in drawn],
        vwap=[row[5] for row in drawn],
        trades=[row[6] for row in drawn],
        revision=[row[7] for row in drawn],
        updated=[row[8] for row in drawn],
        flags=[row[9] for row in drawn],
    )


@st.composite
def runs_of_buckets(draw):
    edges = sorted(draw(st.sets(st.integers(-5, 65), min_size=2, max_size=14)))
    kept = draw(st.lists(st.booleans(), min_size=len(edges) - 1, max_size=len(edges) - 1))
    pairs = zip(edges[:-1], edges[1:], kept, strict=True)
    return buckets_of(*[(opens, closes) for opens, closes, keep in pairs if keep])


def by_hand(bars, buckets, now):
    """One dict for each bucket that has a bar, by the definition."""
    made = []
    for bucket in buckets:
        inside = bars.take((bars.time >= bucket.since) & (bars.time < bucket.until))
        if not len(inside):
            continue
        volume = math.fsum(inside.volume)
        traded = [(v, w) for v, w in zip(inside.volume, inside.vwap, strict=True) if v > 0]
        vwap = math.fsum(v * w for v, w in traded) / volume if volume > 0 else math.nan
        over = bucket.until <= now and all(flags & CLOSED for flags in inside.flags.tolist())
        marks = 0
        for flags in inside.flags.tolist():
            marks |= flags & (NATIVE | FROM_TRADES)
        made.append(
            {
                "time": bucket.since,
                "open": float(inside.open[0]),
                "high": max(inside.high.tolist()),
                "low": min(inside.low.tolist()),
                "close": float(inside.close[-1]),
                "volume": volume,
                "vwap": vwap,
                "trades": sum(inside.trades.tolist()) if min(inside.trades) >= 0 else -1,
                "revision": sum(inside.revision.tolist()),
                "updated": max(inside.updated.tolist()),
                "flags": marks | (CLOSED if over else 0),
            }
        )
    return made


@given(bars(), runs_of_buckets(), st.integers(-5, 65))
@settings(deadline=None, max_examples=1000)
def test_a_coarser_bar_is_what_a_loop_over_its_minutes_makes(bars, buckets, now):
    made = resample(bars, buckets, now=now)

    expected = by_hand(bars, buckets, now)
    for column in (
        "time",
        "open",
        "high",
        "low",
        "close",
        "trades",
        "revision",
        "updated",
        "flags",
    ):
        assert getattr(made, column).tolist() == [row[column] for row in expected]
    for column in ("volume", "vwap"):
        assert getattr(made, column).tolist() == pytest.approx(
            [row[column] for row in expected], rel=1e-12, abs=0, nan_ok=True
        )


@given(bars(), runs_of_buckets(), st.data())
@settings(deadline=None, max_examples=200)
def test_bars_that_are_not_kept_leave_no_trace(bars, buckets, drawn):
    keep = np.array(
        drawn.draw(st.lists(st.booleans(), min_size=len(bars), max_size=len(bars))), np.bool_
    )

    assert resample(bars, buckets, now=LATER, keep=keep) == resample(
        bars.take(keep), buckets, now=LATER
    )


def a_year_of_minutes():
    count = 366 * 1440
    chance = np.random.default_rng(20_240_101)
    price = np.round(chance.lognormal(4, 0.3, count), 2)
    time = np.arange(count) * MINUTE
    return Bars.of(
        time, price, price + 0.5, price - 0.25, price, chance.lognormal(0, 3, count), vwap=price,
        flags=CLOSED,
    )  # fmt: skip


def test_volume_and_vwap_of_a_year_are_exact_to_a_trillionth():
    minutes = a_year_of_minutes()

    year = resample(minutes, buckets_of((0, len(minutes) * MINUTE)), now=LATER)

    volume = math.fsum(minutes.volume)
    turnover = math.fsum((minutes.vwap * minutes.volume).tolist())
    assert year.volume[0] == pytest.approx(volume, rel=1e-12, abs=0)
    assert year.vwap[0] == pytest.approx(turnover / volume, rel=1e-12, abs=0)


def test_resampling_in_two_steps_gives_the_prices_of_one():
    window = Window(0, 40 * DAY)
    minutes = a_year_of_minutes().slice(window)

    def cut(name):
        timeframe = Timeframe.parse(name)
        return Grid(timeframe, zone="UTC", calendar=calendar("24/7")).opening_in(window)

    direct = resample(minutes, cut("1d"), now=LATER)
    stepwise = resample(resample(minutes, cut("1h"), now=LATER), cut("1d"), now=LATER)

    for column in ("time", "open", "high", "low", "close", "flags"):
        assert getattr(direct, column).tolist() == getattr(stepwise, column).tolist()
    assert direct.volume.tolist() == pytest.approx(stepwise.volume.tolist(), rel=1e-12, abs=0)


def minute_bars(*times, **columns):
    ones = np.ones(len(times))
    return Bars.of(times, ones, ones, ones, ones, ones, **columns)


@pytest.mark.parametrize(
    ("now", "flags", "closed"),
    [(10, [1, 1], True), (9, [1, 1], False), (10, [1, 0], False)],
    ids=["over", "still running", "with an input that was still forming"],
)
def test_a_bar_closes_with_its_bucket_and_its_inputs(now, flags, closed):
    bars = minute_bars(0, 5, flags=flags)

    made = resample(bars, buckets_of((0, 10)), now=now)

    assert made.is_closed.tolist() == [closed]


def test_an_empty_bucket_makes_no_bar_and_a_bar_outside_is_ignored():
    made = resample(minute_bars(1, 25, 99), buckets_of((0, 10), (10, 20), (30, 40)), now=LATER)

    assert made.time.tolist() == [0]
    assert made.volume.tolist() == [1]


def test_nothing_makes_nothing():
    assert resample(Bars.empty(), buckets_of((0, 10)), now=LATER) == Bars.empty()
    assert resample(minute_bars(1), buckets_of(), now=LATER) == Bars.empty()
    assert resample(minute_bars(1), buckets_of((5, 9)), now=LATER) == Bars.empty()


def test_vwap_needs_one_of_every_part_that_has_volume_and_of_no_other():
    known = Bars.of([0, 1], [9, 9], [9, 9], [9, 9], [9, 9], [2, 0], vwap=[9.0, math.nan])
    unknown = Bars.of([0, 1], [9, 9], [9, 9], [9, 9], [9, 9], [2, 1], vwap=[9.0, math.nan])
    silent = Bars.of([0, 1], [9, 9], [9, 9], [9, 9], [9, 9], [0, 0], vwap=[9.0, 9.0])

    vwaps = [
        resample(bars, buckets_of((0, 2)), now=LATER).vwap[0] for bars in (known, unknown, silent)
    ]

    assert vwaps[0] == 9
    assert math.isnan(vwaps[1])
    assert math.isnan(vwaps[2])


def test_a_regular_day_of_xnys_leaves_out_the_minutes_around_it():
    xnys = calendar("XNYS")
    cut = Grid(Timeframe.parse("1d"), zone=xnys.zone, session=Session.REGULAR, calendar=xnys)
    half_day = cut.at(1_732_894_200_000)  # 2024-11-29 10:30 in New York
    minutes = minute_bars(*range(half_day.since, half_day.until, MINUTE))

    made = resample(
        minutes,
        cut.opening_in(half_day),
        now=LATER,
        keep=in_session(minutes.time, xnys, Session.REGULAR),
    )

    assert made.time.tolist() == [half_day.since]
    assert made.volume.tolist() == [3.5 * 60]


# --- trades --------------------------------------------------------------------------------------

deals = st.tuples(st.integers(0, 60), prices, amounts)


@given(st.lists(deals, max_size=25), runs_of_buckets(), st.integers(-5, 65))
@settings(deadline=None, max_examples=300)
def test_a_bar_of_trades_is_what_a_loop_over_them_makes(deals, buckets, now):
    deals = sorted(deals, key=lambda deal: deal[0])
    times, paid, bought = (
        np.array([deal[i] for deal in deals], kind) for i, kind in enumerate("qdd")
    )

    made = trades_to_bars(times, paid, bought, buckets=buckets, now=now)

    # A trade is a bar of its own, and bars may share an instant here.
    single = Bars.of(
        times, paid, paid, paid, paid, bought, vwap=paid, trades=np.ones(len(deals), np.int64),
        updated=times, flags=CLOSED | FROM_TRADES,
    )  # fmt: skip
    expected = by_hand(single, buckets, now)
    for column in (
        "time",
        "open",
        "high",
        "low",
        "close",
        "trades",
        "revision",
        "updated",
        "flags",
    ):
        assert getattr(made, column).tolist() == [row[column] for row in expected]
    assert made.volume.tolist() == pytest.approx(
        [row["volume"] for row in expected], rel=1e-12, abs=0
    )
    # Prices of both signs cancel, so the error is measured against the largest of them.
    largest = max((abs(price) for _, price, _ in deals), default=0.0)
    assert made.vwap.tolist() == pytest.approx(
        [row["vwap"] for row in expected], rel=0, abs=1e-12 * largest, nan_ok=True
    )


def test_trades_of_one_instant_keep_the_order_of_the_venue():
    times = np.array([500, 500, 500, 1200], np.int64)
    paid, bought = np.array([3.0, 9.0, 1.0, 5.0]), np.array([1.0, 1.0, 2.0, 4.0])
    seconds = Grid(Timeframe.parse("1s"), zone="UTC", calendar=calendar("24/7"))

    made = trades_to_bars(
        times, paid, bought, buckets=seconds.opening_in(Window(0, HOUR)), now=1500
    )

    assert made.time.tolist() == [0, 1000]
    assert made.open.tolist() == [3, 5]
    assert made.high.tolist() == [9, 5]
    assert made.low.tolist() == [1, 5]
    assert made.close.tolist() == [1, 5]
    assert made.volume.tolist() == [4, 4]
    assert made.vwap.tolist() == [3.5, 5]
    assert made.trades.tolist() == [3, 1]
    assert made.is_closed.tolist() == [True, False]


def test_no_trades_make_no_bar():
    none = np.empty(0)

    made = trades_to_bars(
        none.astype(np.int64), none, none, buckets=buckets_of((0, 1000)), now=LATER
    )

    assert made == Bars.empty()


def test_a_withdrawn_bar_counts_in_the_revision_and_in_nothing_else():
    times = np.arange(3) * MINUTE
    withdrawn = Bars.of(
        times,
        *[[10.0, 99.0, 12.0]] * 4,
        [1.0, 50.0, 2.0],
        revision=[1, 2, 1],
        flags=[CLOSED, CLOSED | VOID, CLOSED],
    )
    buckets = Buckets(np.array([0]), np.array([5 * MINUTE]))

    bar = resample(withdrawn, buckets, now=5 * MINUTE)

    assert (bar.high.tolist(), bar.volume.tolist()) == ([12.0], [3.0])
    assert bar.revision.tolist() == [4]
    assert bar.flags.tolist() == [CLOSED]
