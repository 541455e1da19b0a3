"""Which time of a base is missing, and how far back its minutes are told without a break."""

from __future__ import annotations

import numpy as np

from datasources.ask import Ask
from datasources.compose import closed_hours
from market.bars import Bars
from market.instrument import Series
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Spans, Window
from market.zones import ERA

MOST_BARS = 20_000_000
"""Bars a window may hold, were all of them traded: 38 years of minutes, 231 days of seconds."""


def fillable(ask: Ask, window: Window, *, settle: int) -> Window:
    """Return the part of *window* that can be settled now, in whole bars. May be empty."""
    window = window.clip(ERA)
    opening = ask.grid.at(window.since)
    since = opening.since if opening else window.since
    return Window(since, min(window.until, ask.closed_until(ask.provider.clock.now() - settle)))


def missing_of(ask: Ask, window: Window, known: Spans) -> Spans:
    """Return the time of *window* in which a trade can have been that is not *known*."""
    left = Spans((window,)) - known
    return left - closed_hours(whole_day(ask), left.hull) if left else left


def told_from(whole_day: Series, known: Spans, minutes_from: int) -> int:
    """Return the oldest minute from which on, up to *minutes_from*, everything is *known*.

    Outside all hours of *whole_day* there is nothing to know.
    """
    if not known or known.hull.since >= minutes_from:
        return minutes_from
    told = known | closed_hours(whole_day, Window(known.hull.since, minutes_from))
    for window in told:
        if window.since < minutes_from <= window.until:
            return -(-window.since // MINUTE) * MINUTE
    return minutes_from


def decided_from(whole_day: Series, known: Spans, minutes_from: int, *, imported: Spans) -> int:
    """Return the oldest *imported* minute from which on all are *known* up to *minutes_from*.

    What charts were shown moves nothing by itself: it depends on who asked before.
    """
    told = imported.clip(Window(told_from(whole_day, known, minutes_from), minutes_from))
    return -(-told.hull.since // MINUTE) * MINUTE if told else minutes_from


def without_trades(ask: Ask, window: Window, known: Spans, stored: Bars) -> Spans:
    """Return the buckets of *window* that are *known* to be empty, *stored* being its bars."""
    buckets = ask.grid.opening_in(window)
    idle = closed_hours(whole_day(ask), window)
    empty = known.covers(buckets.opens, buckets.closes)
    empty &= ~idle.covers(buckets.opens, buckets.closes)
    empty &= ~np.isin(buckets.opens, stored.visible().time)
    return Spans.from_edges(buckets.opens[empty], buckets.closes[empty])


def stored_new(before: Bars, after: Bars) -> int:
    """Return how many bars of *after* the store did not hold *before*, or held otherwise."""
    at = np.searchsorted(before.time, after.time)
    same = np.zeros(len(after), dtype=np.bool_)
    inside = at < len(before)
    at = at[inside]
    same[inside] = (before.time[at] == after.time[inside]) & (
        before.revision[at] == after.revision[inside]
    )
    return int(np.count_nonzero(~same & (after.revision > 0)))


def has_minutes(ask: Ask) -> bool:
    """Whether coarser bars are computed from the base."""
    return not ask.base.native and ask.base.timeframe == MINUTE_FRAME


def whole_day(ask: Ask) -> Series:
    """Return the base as a series of all its hours."""
    return Series(ask.base.listing, ask.base.timeframe, calendar=ask.instrument.calendar)
