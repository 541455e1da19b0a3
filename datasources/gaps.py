"""Give every bucket of a window that has no bar the reason why, and join equal neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datasources.compose import buckets_in, closed_hours
from datasources.found import Found, Gap, GapReason
from market.bars import Bars, Ints
from market.calendars import calendar
from market.instrument import Series
from market.window import Spans, Times, Window

_REASONS = tuple(GapReason)


def gaps_of(
    series: Series, window: Window, bars: Bars, found: Found, *, now: int, otherwise: GapReason
) -> list[Gap]:
    """Return the gaps of *window*, oldest first: with *bars* they account for all its buckets.

    The bucket that runs at *now* is none: its first trade may still come. *otherwise* is the
    reason of buckets that no source could speak of. Time between sessions is a gap too.
    """
    buckets = buckets_in(series, Spans((window,)))
    if len(bars) == len(buckets) and calendar(series.calendar).around_the_clock:
        return []
    without = np.ones(len(buckets), dtype=np.bool_)
    without[np.searchsorted(buckets.opens, bars.time)] = False
    told = found.fresh.contains(buckets.opens)
    unexplained = ~told
    reasons = np.full(len(buckets), _REASONS.index(otherwise))
    # That it was dropped is said only where nothing else is: another base may have had it.
    weakest = [one for one in found.unknown if one[0] is GapReason.NOT_KEPT]
    others = [one for one in found.unknown if one[0] is not GapReason.NOT_KEPT]
    for reason, spans in weakest + others[::-1]:
        touched = spans.touches(buckets.opens, buckets.closes)
        reasons[touched] = _REASONS.index(reason)
        unexplained &= ~touched
    reasons[told] = _REASONS.index(GapReason.NO_TRADES)
    # An answer that others began may be from before the running bucket opened.
    later = unexplained & (found.as_of > 0) & (buckets.opens >= found.as_of)
    without &= ~((buckets.opens <= now) & (buckets.closes > now) & (told | later))
    idle = closed_hours(series, buckets.hull)
    reasons[idle.covers(buckets.opens, buckets.closes)] = _REASONS.index(GapReason.SESSION_CLOSED)
    pieces = _runs(buckets.opens[without], buckets.closes[without], reasons[without])
    between = Spans((window,)) - buckets.spans
    pieces += [
        Gap(idle.since, idle.until, GapReason.SESSION_CLOSED)
        for idle in between & closed_hours(series, window)
    ]
    return joined(pieces)


def _runs(opens: Times, closes: Times, reasons: Ints) -> list[Gap]:
    """Return one gap for each run of touching buckets of one reason: there may be millions."""
    if not len(opens):
        return []
    begins = np.flatnonzero((opens[1:] != closes[:-1]) | (reasons[1:] != reasons[:-1])) + 1
    first = np.append(0, begins)
    last = np.append(begins, len(opens)) - 1
    return [
        Gap(int(since), int(until), _REASONS[int(reason)])
        for since, until, reason in zip(opens[first], closes[last], reasons[first], strict=True)
    ]


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Return *gaps* in order, touching ones of one reason as one."""
    merged: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.since):
        if merged and merged[-1].until == gap.since and merged[-1].reason is gap.reason:
            merged[-1] = Gap(merged[-1].since, gap.until, gap.reason)
        else:
            merged.append(gap)
    return merged
