"""Make coarser bars of finer ones, and the finest of single trades."""

import numpy as np

from market.bars import CLOSED, FROM_TRADES, NATIVE, Bars, Flags, Floats, Ints
from market.buckets import Buckets
from market.window import Mask, Times


def resample(bars: Bars, buckets: Buckets, *, now: int, keep: Mask | None = None) -> Bars:
    """Return one bar for each of *buckets* in which at least one of *bars* opens.

    Only the *bars* that *keep* selects take part (all, if it is None). A bar is closed when its
    bucket is over at *now* (ms, the provider's) and all its inputs were closed; whether inputs are
    missing is the caller's to know. Withdrawn ones count in the revision alone. Volume is summed
    pairwise. VWAP is NaN where a part that has volume gives none, or there is no volume; trades are
    -1 where a part gives none.
    """
    if keep is not None:
        bars = bars.take(keep)
    counted, bars = bars, bars.visible()
    if len(bars) == len(counted) and (alone := _alone(bars, buckets)) is not None:
        return _each_by_itself(bars, buckets.closes[alone], now=now)
    inside, first, filled = _fill(bars.time, buckets)
    if not len(first):
        return Bars.empty()
    if not inside.all():
        bars = bars.take(inside)
    volume = np.add.reduceat(bars.volume, first)
    traded = np.where(bars.volume > 0, bars.vwap * bars.volume, 0.0)
    trades = np.add.reduceat(bars.trades, first)
    marks = np.bitwise_or.reduceat(bars.flags, first) & np.uint8(NATIVE | FROM_TRADES)
    final = np.logical_and.reduceat(bars.is_closed, first)
    return Bars(
        time=buckets.opens[filled],
        open=bars.open[first],
        high=np.maximum.reduceat(bars.high, first),
        low=np.minimum.reduceat(bars.low, first),
        close=bars.close[np.append(first[1:], len(bars)) - 1],
        volume=volume,
        vwap=_ratio(np.add.reduceat(traded, first), volume),
        trades=np.where(np.minimum.reduceat(bars.trades, first) < 0, -1, trades),
        revision=_revisions(counted, buckets.opens[filled], buckets.closes[filled]),
        updated=np.maximum.reduceat(bars.updated, first),
        flags=_with_closed(marks, final & (buckets.closes[filled] <= now)),
    )


def _alone(bars: Bars, buckets: Buckets) -> Ints | None:
    """Return the bucket of each bar where every bar opens one: no bucket has two. Else None."""
    if len(bars) > len(buckets) or not len(bars):
        return None
    at = np.minimum(np.searchsorted(buckets.opens, bars.time), len(buckets) - 1)
    return at if (buckets.opens[at] == bars.time).all() else None


def _each_by_itself(bars: Bars, closes: Times, *, now: int) -> Bars:
    """Return what `resample` makes of *bars* that are the only ones of their buckets."""
    marks = bars.flags & np.uint8(NATIVE | FROM_TRADES)
    return bars.with_columns(
        vwap=np.where(bars.volume > 0, bars.vwap, np.nan),
        trades=np.maximum(bars.trades, -1),
        flags=_with_closed(marks, bars.is_closed & (closes <= now)),
    )


def trades_to_bars(
    times: Times, prices: Floats, amounts: Floats, *, buckets: Buckets, now: int
) -> Bars:
    """Return one bar for each of *buckets* in which at least one trade happened.

    The columns describe trades in their order at the venue: times (ms) never descend, several may
    share one. A bar is closed when its bucket is over at *now* (ms, the provider's).
    """
    inside, first, filled = _fill(times, buckets)
    if not len(first):
        return Bars.empty()
    times, prices, amounts = times[inside], prices[inside], amounts[inside]
    last = np.append(first[1:], len(times))
    volume = np.add.reduceat(amounts, first)
    marks = np.full(len(first), FROM_TRADES, np.uint8)
    return Bars(
        time=buckets.opens[filled],
        open=prices[first],
        high=np.maximum.reduceat(prices, first),
        low=np.minimum.reduceat(prices, first),
        close=prices[last - 1],
        volume=volume,
        vwap=_ratio(np.add.reduceat(prices * amounts, first), volume),
        trades=last - first,
        revision=np.zeros(len(first), np.int64),
        updated=times[last - 1],
        flags=_with_closed(marks, buckets.closes[filled] <= now),
    )


def _fill(times: Times, buckets: Buckets) -> tuple[Mask, Ints, Ints]:
    """Say which *times* lie in a bucket and, of those, where each filled bucket's begin.

    The third answer is the positions of the filled buckets.
    """
    since = np.searchsorted(times, buckets.opens)
    until = np.searchsorted(times, buckets.closes)
    filled = np.flatnonzero(until > since)
    since, until = since[filled], until[filled]
    # +1 where a bucket's times begin and -1 where they end; buckets that touch cancel out.
    edges = np.zeros(len(times) + 1, np.int64)
    edges[since] += 1
    edges[until] -= 1
    inside = np.cumsum(edges[:-1]) > 0
    counts = until - since
    return inside, np.cumsum(counts) - counts, filled


def _revisions(bars: Bars, opens: Times, closes: Times) -> Ints:
    """Return the summed revisions of the bars in each `[opens[i], closes[i])`."""
    sums = np.concatenate(([0], np.cumsum(bars.revision)))
    since, until = np.searchsorted(bars.time, opens), np.searchsorted(bars.time, closes)
    return np.asarray(sums[until] - sums[since])


def _ratio(turnover: Floats, volume: Floats) -> Floats:
    ratio = np.full(len(volume), np.nan)
    np.divide(turnover, volume, out=ratio, where=volume > 0)
    return ratio


def _with_closed(marks: Flags, closed: Mask) -> Flags:
    return np.where(closed, marks | CLOSED, marks).astype(np.uint8)
