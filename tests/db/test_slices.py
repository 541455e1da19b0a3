"""Slices hold exactly the buckets they were cut from."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from db.slices import slices
from market.buckets import Buckets, Grid
from market.calendars import calendar
from market.instrument import Session
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Window

CLOCKS_CHANGE = 1_710_028_800_000
"""2024-03-10, when New York's clocks change; Berlin's do three weeks later."""


@settings(deadline=None)
@given(
    timeframe=st.sampled_from(["7m", "45m", "1h", "5h", "1d", "3d", "1w", "1M", "1y"]),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Europe/Berlin"]),
    session=st.sampled_from(list(Session)),
    since=st.integers(-30 * 24, 30 * 24),
    days=st.integers(0, 60),
    left_out=st.sets(st.integers(0, 200)),
)
def test_slices_hold_the_buckets_in_their_order_and_span_a_week_at_most(
    timeframe: str, zone: str, session: Session, since: int, days: int, left_out: set[int]
) -> None:
    grid = Grid(Timeframe.parse(timeframe), zone=zone, session=session, calendar=calendar("XNYS"))
    start = CLOCKS_CHANGE + since * HOUR
    every = grid.opening_in(Window(start, start + days * DAY))
    kept = np.array([n not in left_out for n in range(len(every))], np.bool_)
    buckets = Buckets(every.opens[kept], every.closes[kept])

    cut = [column.tolist() for column in slices(buckets)]

    assert [
        (opening, opening + step)
        for since_, until, step in zip(*cut, strict=True)
        for opening in range(since_, until, step)
    ] == list(zip(buckets.opens.tolist(), buckets.closes.tolist(), strict=True))
    assert all(
        until - since_ <= max(7 * DAY, step) for since_, until, step in zip(*cut, strict=True)
    )


def test_a_year_in_a_zone_without_summer_time_is_a_slice_a_week() -> None:
    grid = Grid(Timeframe.parse("1h"), zone="Asia/Kolkata", calendar=calendar("24/7"))
    midnight = CLOCKS_CHANGE - 330 * MINUTE
    year = grid.opening_in(Window(midnight, midnight + 364 * DAY))

    since, _, _ = slices(year)

    assert len(since) == 52
