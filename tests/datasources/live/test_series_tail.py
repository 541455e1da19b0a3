"""Which buckets of a series an event concerns, and what its running bar is."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasources.cursors import CandleCursor
from datasources.found import Base
from datasources.live.series_tail import NEWEST, SeriesTail
from datasources.live.tail_events import Update
from market.bars import CLOSED, Bars
from market.buckets import Buckets, grid
from market.calendars import calendar, in_session
from market.instrument import Instrument, InstrumentType, Listing, Series, Session
from market.resample import resample
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, MINUTE, Spans, Window
from tests.datasources.chains import NOW, RUNNING
from tests.fakes import row, to_bars

LISTING = Listing("fake", "crypto", "BTC/USDT")
AROUND = [("24/7", zone, Session.ALL) for zone in ("UTC", "America/New_York", "Asia/Kolkata")]
XNYS = [("XNYS", "America/New_York", session) for session in Session]
FRAMES = ("1m", "5m", "7m", "1h", "5h", "1d", "3d", "1w", "1M")


def tail_of(timeframe: str, rules: tuple[str, str, Session]) -> SeriesTail:
    name, zone, session = rules
    series = Series(LISTING, Timeframe.parse(timeframe), zone, session, name)
    instrument = Instrument("fake", "crypto", "BTC/USDT", InstrumentType.SPOT, calendar=name)
    return SeriesTail(series, instrument, (Base(LISTING, MINUTE_FRAME, native=False),))


tails = st.builds(tail_of, st.sampled_from(FRAMES), st.sampled_from([*AROUND, *XNYS]))


@settings(max_examples=200)
@given(
    tail=tails,
    told=st.integers(NOW - 200 * DAY, NOW),
    advanced=st.integers(0, 700) | st.integers(0, 5),
    changes=st.lists(
        st.tuples(st.integers(0, 1_200), st.integers(1, 40)).map(lambda c: (c[0], c[1])),
        max_size=5,
    ),
    running=st.booleans(),
)
def test_affected_buckets_are_those_that_changed_closed_or_run(
    tail: SeriesTail,
    told: int,
    advanced: int,
    changes: list[tuple[int, int]],
    running: bool,
) -> None:
    step = tail.series.timeframe.nominal
    told = told // MINUTE * MINUTE
    told_before = told - advanced * step // 2
    windows = [
        Window(since := told + 2 * step - back * step, since + length * step // 7 + 1)
        for back, length in changes
    ]

    found = tail.affected(windows, told_before, told, running=running)

    far = 1_300 * step
    every = list(
        grid(tail.series).opening_in(Window(told - max(8 * far, far + 60 * DAY), told + far))
    )
    begun = [bucket for bucket in every if bucket.since <= told]
    horizon = begun[-NEWEST].since

    def concerned(bucket: Window) -> bool:
        touched = any(w.since < bucket.until and bucket.since < w.until for w in windows)
        closed = told_before < bucket.until <= told
        return touched or closed or (running and bucket.since <= told < bucket.until)

    concern = [bucket for bucket in every if concerned(bucket)]
    assert list(found.buckets) == [bucket for bucket in concern if bucket.since >= horizon]
    older = [bucket for bucket in concern if bucket.since < horizon]
    if not older and told_before >= horizon:
        assert found.beyond is None
    else:
        assert found.beyond is not None
        assert all(found.beyond.contains(bucket) for bucket in older)


@settings(max_examples=200)
@given(
    timeframe=st.sampled_from(("5m", "7m", "1h", "4h")),
    rules=st.sampled_from([*AROUND, *XNYS]),
    told_minute=st.integers(-3 * 24 * 60, 0),
    missing=st.sets(st.integers(1, 240)),
    elapsed=st.integers(0, MINUTE - 1),
    lag=st.integers(0, 3),
)
def test_the_running_bar_is_that_of_all_its_minutes(
    timeframe: str,
    rules: tuple[str, str, Session],
    told_minute: int,
    missing: set[int],
    elapsed: int,
    lag: int,
) -> None:
    tail = tail_of(timeframe, rules)
    told = RUNNING + told_minute * MINUTE
    bucket = grid(tail.series).at(told)
    assume(bucket is not None)
    assert bucket is not None
    opens = [
        minute
        for n, minute in enumerate(range(bucket.since, told, MINUTE), start=1)
        if n not in missing
    ]
    minutes = to_bars({minute: row(minute) for minute in opens}, told, flags=CLOSED)
    at = told + lag * MINUTE
    forming = to_bars({at: row(at).so_far(elapsed)}, at + elapsed)
    only = Buckets(np.array([bucket.since]), np.array([bucket.until]))
    tail.read(only, resample(minutes, only, now=told), told)
    # Another bucket that was revised changes nothing.
    older = Buckets(only.opens - DAY, only.closes - DAY)
    tail.read(older, resample(minutes, older, now=told), told)

    running = tail.running(forming, told)

    inside = minutes
    calendar_ = calendar(rules[0])
    alone = rules[2] is Session.ALL or calendar_.around_the_clock
    grows = alone or bool(in_session(forming.time, calendar_, rules[2]).all())
    if grows and bucket.since <= at < bucket.until and lag == 0:
        inside = Bars.concat((minutes, forming))
    if grows and at >= bucket.until:
        # What the next bucket holds between what was told and its newest minute is not known.
        following = grid(tail.series).at(at)
        expected = forming if following is not None and following.since == at else Bars.empty()
        assert running.time.tolist() == expected.time.tolist()
        assert running.close.tolist() == expected.close.tolist()
        return
    expected = resample(inside, only, now=told)
    for name in ("time", "open", "high", "low", "close", "trades", "revision"):
        assert getattr(running, name).tolist() == getattr(expected, name).tolist(), name
    assert np.allclose(running.volume, expected.volume, rtol=1e-12, atol=0)
    assert not running.is_closed.any()


async def test_readers_are_shown_the_running_bar_only_if_it_differs() -> None:
    tail = tail_of("1m", AROUND[0])
    cursor = CandleCursor(None, {}, RUNNING)
    first = to_bars({RUNNING: row(RUNNING).so_far(10_000)}, NOW)
    second = to_bars({RUNNING: row(RUNNING).so_far(20_000)}, NOW)
    with tail.readers.reading() as reader:
        for forming in (first, first, second):
            tail.show(Bars.empty(), tail.running(forming, RUNNING), cursor)
        tail.readers.end()

        shown = [event async for event in reader]

    # It is conflated: only the newest is left.
    assert [event.bars for event in shown if isinstance(event, Update)] == [second]


def test_a_cursor_goes_back_to_what_is_owed() -> None:
    tail = tail_of("5m", AROUND[0])
    tail.owed = Spans.of(RUNNING - 10 * MINUTE, RUNNING - 5 * MINUTE)

    assert tail.cursor(CandleCursor(None, {}, RUNNING)).told_until == RUNNING - 10 * MINUTE
