"""What is missing, checked against sets of minutes that are too slow to be used."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datasources.ask import Ask, ask_of
from datasources.backfill.holes import (
    missing_of,
    stored_new,
    told_from,
    whole_day,
    without_trades,
)
from datasources.found import Base
from market.bars import Bars
from market.buckets import Grid
from market.calendars import calendar
from market.clock import FixedClock
from market.instrument import Session
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Spans, Window
from tests.datasources.chains import NOW, listing_of
from tests.fakes import FakeProvider, Market

FIRST = (NOW - 3 * 1440 * MINUTE) // MINUTE
LENGTH = 60
"""Minutes that are looked at; edges are chosen among them."""

windows = st.lists(
    st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted), max_size=6
)


def spans_of(edges: list[list[int]], since: int = FIRST) -> Spans:
    return Spans(Window((since + a) * MINUTE, (since + b) * MINUTE) for a, b in edges)


def minutes_in(spans: Spans) -> set[int]:
    return {minute for span in spans for minute in range(span.since, span.until, MINUTE)}


def ask_at(name: str) -> Ask:
    symbol = uuid4().hex
    provider = FakeProvider(FixedClock(NOW), {symbol: Market()}, calendar_name=name)
    instrument = provider.instrument(symbol)
    return ask_of(Base(listing_of(instrument), MINUTE_FRAME, native=False), instrument, provider)


ALWAYS, NEW_YORK = ask_at("24/7"), ask_at("XNYS")


def open_minutes(window: Window) -> set[int]:
    """The minutes of *window* that lie in a session of New York, early and late ones too."""
    grid = Grid(MINUTE_FRAME, zone="America/New_York", calendar=calendar("XNYS"))
    rules = calendar("XNYS")
    return {
        minute
        for minute in grid.opening_in(window).opens.tolist()
        if rules.open_spans(Window(minute, minute + MINUTE), Session.ALL)
    }


@given(known=windows, edges=st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted))
def test_missing_is_what_is_in_the_window_and_not_known(
    known: list[list[int]], edges: list[int]
) -> None:
    (window,) = spans_of([edges]) or (Window(0, 0),)

    missing = missing_of(ALWAYS, window, spans_of(known))

    assert minutes_in(missing) == minutes_in(Spans((window,))) - minutes_in(spans_of(known))


@given(known=windows, start=st.integers(-400, 1_000))
def test_missing_is_never_outside_a_session(known: list[list[int]], start: int) -> None:
    since = FIRST + start
    window = Window(since * MINUTE, (since + 300) * MINUTE)
    told = spans_of(known, since)

    missing = missing_of(NEW_YORK, window, told)

    assert minutes_in(missing) == open_minutes(window) - minutes_in(told)


@given(known=windows, begins=st.integers(0, LENGTH))
def test_minutes_are_told_back_to_the_first_that_is_not(
    known: list[list[int]], begins: int
) -> None:
    told = minutes_in(spans_of(known))
    expected = (FIRST + begins) * MINUTE
    while expected - MINUTE in told:
        expected -= MINUTE

    assert told_from(whole_day(ALWAYS), spans_of(known), (FIRST + begins) * MINUTE) == expected


@given(known=windows, traded=st.sets(st.integers(0, LENGTH - 1)))
def test_minutes_without_trades_are_those_known_to_have_none(
    known: list[list[int]], traded: set[int]
) -> None:
    window = Window(FIRST * MINUTE, (FIRST + LENGTH) * MINUTE)
    bars = bars_at(dict.fromkeys(traded, 1))

    empty = without_trades(ALWAYS, window, spans_of(known), bars)

    assert minutes_in(empty) == minutes_in(spans_of(known)) - set(bars.time.tolist())


@given(
    before=st.dictionaries(st.integers(0, 20), st.integers(1, 3)),
    after=st.dictionaries(st.integers(0, 20), st.integers(0, 3)),
)
def test_bars_count_as_stored_where_they_are_new_or_have_another_revision(
    before: dict[int, int], after: dict[int, int]
) -> None:
    expected = sum(bool(r) and before.get(minute) != r for minute, r in after.items())

    assert stored_new(bars_at(before), bars_at(after)) == expected


def bars_at(revisions: dict[int, int]) -> Bars:
    """Bars at these minutes with these revisions."""
    opens = [(FIRST + minute) * MINUTE for minute in sorted(revisions)]
    ones = [1.0] * len(opens)
    return Bars.of(opens, ones, ones, ones, ones, ones).with_columns(
        revision=np.array([revisions[m] for m in sorted(revisions)], dtype=np.int64)
    )
