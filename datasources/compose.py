"""Build the buckets of a series from the bars of its bases, and only those that are whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasources.found import Base, Found, Head
from market.bars import NATIVE, Bars
from market.buckets import Buckets, grid
from market.calendars import calendar, in_session
from market.instrument import Series, Session
from market.resample import resample
from market.timeframe import MINUTE_FRAME
from market.window import Mask, Spans, Window


@dataclass(frozen=True, slots=True)
class Stock:
    """What is at hand of one base: *bars* of it or of a view over it, oldest first.

    *settled* and *fresh* as in `Found`: the time for which the bars are the truth for good, and
    for which they were at *as_of*.
    """

    base: Base
    bars: Bars
    settled: Spans
    fresh: Spans
    as_of: int
    head: Head | None = None


def buckets_in(series: Series, spans: Spans) -> Buckets:
    """Return the buckets of *series* that open inside *spans*."""
    buckets = grid(series).opening_in(spans.hull)
    return buckets if len(spans) <= 1 else select(buckets, spans.contains(buckets.opens))


def select(buckets: Buckets, mask: Mask) -> Buckets:
    return buckets if mask.all() else Buckets(buckets.opens[mask], buckets.closes[mask])


def closed_hours(series: Series, window: Window) -> Spans:
    """Return the part of *window* in which no trade of *series* can happen."""
    rules = calendar(series.calendar)
    if rules.around_the_clock:
        return Spans()
    if series.session is Session.ALL:
        # In years whose sessions are not known there were trades all the same.
        window = window.clip(rules.known)
    return Spans((window,)) - rules.open_spans(window, series.session)


def allowed(series: Series, base: Base, buckets: Buckets, minutes_from: int | None) -> Mask:
    """Return which buckets *base* may decide: minutes decide none that opens before they begin."""
    if base.native or base.timeframe != MINUTE_FRAME or series.timeframe == MINUTE_FRAME:
        return np.ones(len(buckets), dtype=np.bool_)
    if minutes_from is None:
        return np.zeros(len(buckets), dtype=np.bool_)
    return buckets.opens >= minutes_from


def compose(series: Series, buckets: Buckets, stock: Stock) -> Found:
    """Return the bars of those *buckets* that *stock* covers whole, up to its *as_of*.

    A bucket that runs at `as_of` is whole if everything until then is at hand; its bar is forming.
    """
    hull = buckets.hull
    idle = closed_hours(series, hull)
    known = stock.settled | idle
    settled = fresh = buckets
    if hull.until > stock.as_of or not known.holds(hull):
        is_settled = known.covers(buckets.opens, buckets.closes) & (buckets.closes <= stock.as_of)
        settled = fresh = select(buckets, is_settled)
    if settled is not buckets:
        started = buckets.opens < stock.as_of
        reached = np.minimum(buckets.closes, stock.as_of)
        is_fresh = (stock.fresh | idle).covers(buckets.opens, reached) & started
        fresh = select(buckets, is_settled | is_fresh)
    settled_spans = settled.spans
    return Found(
        bars=_bars(series, fresh, stock),
        settled=settled_spans,
        fresh=settled_spans if fresh is settled else fresh.spans,
        as_of=stock.as_of,
        heads={stock.base: stock.head} if stock.head else {},
    )


def _bars(series: Series, buckets: Buckets, stock: Stock) -> Bars:
    if series.timeframe == MINUTE_FRAME == stock.base.timeframe and series.session is Session.ALL:
        # In every zone a minute is a minute.
        bars = stock.bars.visible()
        if len(buckets) == len(bars) and (buckets.opens == bars.time).all():
            return bars
        return bars.take(_opening(bars, buckets))
    rules = calendar(series.calendar)
    keep = None
    if series.session is not Session.ALL and not rules.around_the_clock and not stock.base.native:
        keep = in_session(stock.bars.time, rules, series.session)
    bars = resample(stock.bars, buckets, now=stock.as_of, keep=keep)
    marks = bars.flags & ~np.uint8(NATIVE)
    if stock.base.native:
        marks |= np.uint8(NATIVE)
    return bars.with_columns(flags=marks)


def _opening(bars: Bars, buckets: Buckets) -> Mask:
    """Return which of *bars* open where one of *buckets* does."""
    if not len(buckets):
        return np.zeros(len(bars), dtype=np.bool_)
    at = np.minimum(np.searchsorted(buckets.opens, bars.time), len(buckets) - 1)
    return np.asarray(buckets.opens[at] == bars.time)
