"""Cut the buckets that bars are to be made for into slices, in which they touch and are equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from market.buckets import Buckets
from market.window import DAY, Times

_LENGTH = 7 * DAY
"""What a slice spans at most, if one bucket alone is not longer."""


def slices(buckets: Buckets) -> tuple[Times, Times, Times]:
    """Return where each slice of *buckets* begins and ends, and how long a bucket of it is, in ms.

    They stay few: days of one length run through the year but for the changes of its clocks.
    """
    step = buckets.closes - buckets.opens
    if not len(step):
        return step, step, step
    begins = np.ones(len(step), np.bool_)
    begins[1:] = (buckets.opens[1:] != buckets.closes[:-1]) | (step[1:] != step[:-1])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(step)) - 1
    since, until, step = buckets.opens[first], buckets.closes[last], step[first]
    length = np.maximum(_LENGTH // step, 1) * step
    counts = -((since - until) // length)
    nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    length = np.repeat(length, counts)
    starts = np.repeat(since, counts) + nth * length
    return starts, np.minimum(starts + length, np.repeat(until, counts)), np.repeat(step, counts)


def arguments(runs: Sequence[Buckets]) -> tuple[list[int], ...]:
    """Return the slices of all *runs* as `made_bars` takes them.

    First the positions of each run's first and last slice, then the columns of them all.
    """
    cut = [slices(buckets) for buckets in runs]
    lasts = np.cumsum([len(since) for since, _, _ in cut])
    firsts = [1, *(lasts[:-1] + 1).tolist()]
    columns = [np.concatenate(column).tolist() for column in zip(*cut, strict=True)]
    return firsts, lasts.tolist(), *columns
