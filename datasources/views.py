"""Choose the stored view that answers for minutes with the fewest rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from datasources.found import Base
from datasources.plan import builds
from market.buckets import Buckets, Grid
from market.calendars import calendar
from market.instrument import Series
from market.timeframe import MINUTE_FRAME, Timeframe

_CLOCK = calendar("24/7")


@lru_cache
def view_grid(view: Timeframe) -> Grid:
    """Return the buckets of a stored view: UTC, around the clock."""
    return Grid(view, zone="UTC", calendar=_CLOCK)


def coarsest_view(
    views: Sequence[Timeframe], series: Series, base: Base, buckets: Buckets, *, longest: int
) -> Timeframe | None:
    """Return the coarsest of *views* whose buckets make up all of *buckets*; None: read the base.

    The view's buckets are at most *longest* milliseconds long.

    Views hold minutes of what trades around the clock, in UTC; another zone is served by one too
    where its days begin on the edges of the view.
    """
    if base.native or base.timeframe != MINUTE_FRAME or series.timeframe == MINUTE_FRAME:
        return None
    if not calendar(series.calendar).around_the_clock:
        return None
    for view in sorted(views, key=lambda view: view.nominal, reverse=True):
        short = view.nominal <= min(longest, series.timeframe.nominal)
        if short and builds(view_grid(view), buckets).all():
            return view
    return None
