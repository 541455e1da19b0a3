"""Give every bucket of a window that has no bar the reason why, and join equal neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datasources.compose import buckets_in, closed_hours, spans_of
from datasources.found import Found, Gap, GapReason
from market.bars import Bars
from market.instrument import Series
from market.window import Mask, Spans, Window

_REASONS = tuple(GapReason)


def gaps_of(
    series: Series, window: Window, bars: Bars, found: Found, *, now: int, otherwise: GapReason
) -> list[Gap]:
    """Return the gaps of *window*, oldest first: with *bars* they account for all its buckets.

    The bucket that runs at *now* is none: its first trade may still come. *otherwise* is the
    reason of buckets that no source could speak of. Time between sessions is a gap too.
    """
    buckets = buckets_in(series, Spans((window,)))
    without = ~np.isin(buckets.opens, bars.time)
    told = found.fresh.contains(buckets.opens)
    without &= ~((buckets.opens <= now) & (buckets.closes > now) & told)
    reasons = np.full(len(buckets), _REASONS.index(otherwise))
    for reason, spans in reversed(found.unknown):
        reasons[_touched(spans, buckets.opens, buckets.closes)] = _REASONS.index(reason)
    reasons[told] = _REASONS.index(GapReason.NO_TRADES)
    idle = closed_hours(series, spans_of(buckets).hull)
    reasons[idle.covers(buckets.opens, buckets.closes)] = _REASONS.index(GapReason.SESSION_CLOSED)
    pieces = [
        Gap(int(o), int(c), _REASONS[int(r)])
        for o, c, r in zip(
            buckets.opens[without], buckets.closes[without], reasons[without], strict=True
        )
    ]
    between = Spans((window,)) - spans_of(buckets)
    pieces += [
        Gap(idle.since, idle.until, GapReason.SESSION_CLOSED)
        for idle in between & closed_hours(series, window)
    ]
    return joined(pieces)


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Return *gaps* in order, touching ones of one reason as one."""
    merged: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.since):
        if merged and merged[-1].until == gap.since and merged[-1].reason is gap.reason:
            merged[-1] = Gap(merged[-1].since, gap.until, gap.reason)
        else:
            merged.append(gap)
    return merged


def _touched(spans: Spans, opens: np.ndarray, closes: np.ndarray) -> Mask:
    """Return which of `[opens[i], closes[i])` share any instant with *spans*."""
    since = np.array([window.since for window in spans], dtype=np.int64)
    until = np.array([window.until for window in spans], dtype=np.int64)
    # If any span meets a bucket, the first one that ends after its opening does.
    at = np.searchsorted(until, opens, side="right")
    inside = at < len(since)
    touched: Mask = inside & (since[np.minimum(at, len(since) - 1)] < closes)
    return touched
