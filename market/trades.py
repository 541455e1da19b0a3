"""Single trades as columns, and the minutes they make.

A minute depends on its set of trades alone: not on the order in which they came, nor on how they
were cut into batches. Opening and closing price follow the order of the trades as stored, and sums
are exact before they are rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.bars import CLOSED, FROM_TRADES, Bars, Floats
from market.window import MINUTE, Times

Ids = NDArray[np.bytes_]


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Trades of one listing in any order, as columns of the same length.

    *time* in ms since the epoch, UTC; *id* the venue's, in UTF-8. None is empty or holds a NUL.
    """

    time: Times
    price: Floats
    amount: Floats
    id: Ids

    @classmethod
    def of(
        cls,
        time: Sequence[int] | Times,
        price: Sequence[float] | Floats,
        amount: Sequence[float] | Floats,
        id: Sequence[bytes] | Ids,
    ) -> Trades:
        return cls(
            np.asarray(time, dtype=np.int64),
            np.asarray(price, dtype=np.float64),
            np.asarray(amount, dtype=np.float64),
            np.asarray(id, dtype=np.bytes_) if len(id) else _NO_IDS,
        )

    @staticmethod
    def empty() -> Trades:
        return _NO_TRADES

    @classmethod
    def concat(cls, parts: Sequence[Trades]) -> Trades:
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else _NO_TRADES
        columns: list[Any] = [
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("time", "price", "amount", "id")
        ]
        return cls(*columns)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, part: slice) -> Trades:
        return Trades(self.time[part], self.price[part], self.amount[part], self.id[part])


def minute_bars(time: Times, price: Floats, amount: Floats) -> Bars:
    """Return the closed minutes of trades in their order; a minute without trades has no bar.

    Times are ms and never descend. `updated` is the time of the last trade. VWAP is NaN where
    nothing but zero amounts was traded.
    """
    if not len(time):
        return Bars.empty()
    minute = time // MINUTE
    first = np.flatnonzero(np.concatenate(([True], minute[1:] != minute[:-1])))
    last = np.append(first[1:], len(time))
    high, low = np.maximum.reduceat(price, first), np.minimum.reduceat(price, first)
    vwap = np.full(len(first), np.nan)
    # What is too large for a number becomes infinite, and is refused as a bar.
    with np.errstate(over="ignore", invalid="ignore"):
        volume, turnover = _sums(amount, first, last), _sums(price * amount, first, last)
        np.divide(turnover, volume, out=vwap, where=volume > 0)
    return Bars(
        time=minute[first] * MINUTE,
        open=price[first],
        high=high,
        low=low,
        close=price[last - 1],
        volume=volume,
        # Rounding may carry the mean of equal prices past them.
        vwap=np.clip(vwap, low, high),
        trades=(last - first).astype(np.int64),
        revision=np.zeros(len(first), np.int64),
        updated=time[last - 1],
        flags=np.full(len(first), FROM_TRADES | CLOSED, np.uint8),
    ).frozen()


def _sums(values: Floats, first: NDArray[np.intp], last: NDArray[np.intp]) -> Floats:
    """Return the sum of each `values[first[i]:last[i]]`, rounded once."""
    listed = values.tolist()
    bounds = zip(first.tolist(), last.tolist(), strict=True)
    return np.array([_sum(listed[since:until]) for since, until in bounds], dtype=np.float64)


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


_NO_IDS: Ids = np.empty(0, dtype="S1")
_NO_TRADES = Trades(np.empty(0, np.int64), np.empty(0), np.empty(0), _NO_IDS)
