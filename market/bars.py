"""Bars as columns: what is fetched, stored, merged and sent, without an object a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from market.errors import InvalidBars
from market.window import Mask, Spans, Times, Window

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.uint8]

CLOSED = 1
"""The bar's time is over."""
NATIVE = 2
"""The provider's own bar of this timeframe, not computed from its minutes."""
FROM_TRADES = 4
"""Built from single trades."""
VOID = 8
"""Withdrawn by the provider: it counts in revisions and is shown to nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one series, oldest first, no time twice. All columns have the same length.

    Times are milliseconds since the epoch, UTC: *time* of the opening, *updated* of the newest
    input at the provider. Prices and volume are float64. *vwap* is NaN and *trades* -1 where
    the provider gives none. *revision* 0 means not stored. The arrays are read-only.
    """

    time: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    vwap: Floats
    trades: Ints
    revision: Ints
    updated: Times
    flags: Flags

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "time",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "vwap",
        "trades",
        "revision",
        "updated",
        "flags",
    )

    @classmethod
    def of(
        cls,
        time: Sequence[int] | Times,
        open: Sequence[float] | Floats,
        high: Sequence[float] | Floats,
        low: Sequence[float] | Floats,
        close: Sequence[float] | Floats,
        volume: Sequence[float] | Floats,
        *,
        vwap: Sequence[float] | Floats | None = None,
        trades: Sequence[int] | Ints | None = None,
        revision: int | Sequence[int] | Ints = 0,
        updated: int | Sequence[int] | Times = 0,
        flags: int | Sequence[int] | Flags = 0,
    ) -> Bars:
        """Build bars from columns; what is left out takes its "none", a scalar fills its column."""
        n = len(time)
        columns = cls(
            time=np.asarray(time, dtype=np.int64),
            open=np.asarray(open, dtype=np.float64),
            high=np.asarray(high, dtype=np.float64),
            low=np.asarray(low, dtype=np.float64),
            close=np.asarray(close, dtype=np.float64),
            volume=np.asarray(volume, dtype=np.float64),
            vwap=np.full(n, np.nan) if vwap is None else np.asarray(vwap, dtype=np.float64),
            trades=np.full(n, -1) if trades is None else np.asarray(trades, dtype=np.int64),
            revision=_filled(revision, n, np.int64),
            updated=_filled(updated, n, np.int64),
            flags=_filled(flags, n, np.uint8),
        )
        return columns.frozen()

    @staticmethod
    def empty() -> Bars:
        return _NO_BARS

    @classmethod
    def concat(cls, parts: Sequence[Bars]) -> Bars:
        """Join bars that follow each other in time; for any others, `merge`."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        joined = cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.COLUMNS))
        if not np.all(joined.time[1:] > joined.time[:-1]):
            raise InvalidBars("concatenated bars must ascend in time")
        return joined.frozen()

    def frozen(self) -> Bars:
        """Return these bars with columns that nobody can write to. Slices of them stay so."""
        for name in self.COLUMNS:
            column = getattr(self, name)
            if column.flags.writeable:
                column = column.view()
                column.flags.writeable = False
                object.__setattr__(self, name, column)
        return self

    def __len__(self) -> int:
        return len(self.time)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bars) and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name == "vwap")
            for name in self.COLUMNS
        )

    __hash__ = None  # type: ignore[assignment]  # columns compare by content and are large

    @property
    def columns(self) -> tuple[Any, ...]:
        """All columns, in the order of `COLUMNS`."""
        return _columns_of(self)

    def take(self, index: Mask | Ints | slice) -> Bars:
        """Return the bars that a mask, ascending positions or a slice select."""
        if isinstance(index, np.ndarray) and index.dtype == np.bool_ and index.all():
            return self
        taken = Bars(*[column[index] for column in self.columns])
        return taken if isinstance(index, slice) else taken.frozen()

    def positions(self, window: Window) -> tuple[int, int]:
        """Return where the bars that open inside *window* begin, and where they end."""
        first, last = self.time.searchsorted((window.since, window.until)).tolist()
        return first, last

    def slice(self, window: Window) -> Bars:
        """Return the bars that open inside *window*."""
        first, last = self.positions(window)
        return self if first == 0 and last == len(self) else self.take(slice(first, last))

    def inside(self, spans: Spans) -> Bars:
        """Return the bars that open inside *spans*."""
        if not len(self) or spans.holds(Window(int(self.time[0]), int(self.time[-1]) + 1)):
            return self
        return self.take(spans.contains(self.time))

    def last(self, count: int) -> Bars:
        return self if count >= len(self) else self.take(slice(len(self) - count, None))

    @property
    def is_closed(self) -> Mask:
        closed: Mask = (self.flags & CLOSED) != 0
        return closed

    def closed(self) -> Bars:
        """Return those whose time is over."""
        return self.take(self.is_closed)

    def visible(self) -> Bars:
        """Return those that were not withdrawn."""
        void = (self.flags & VOID) != 0
        return self.take(~void) if void.any() else self

    def with_columns(self, **columns: Times | Floats | Ints | Flags) -> Bars:
        """Return the same bars with some columns replaced."""
        return Bars(*(columns.get(name, getattr(self, name)) for name in self.COLUMNS)).frozen()

    def merge(self, other: Bars) -> Bars:
        """Return the bars of both; of two at one time the higher by promise 8 of the API.

        The order is (closed, recomputed over native, revision, updated). Equal ranks keep ours.
        """
        if not len(other):
            return self
        if not len(self):
            return other
        if self.time[-1] < other.time[0]:
            return Bars.concat((self, other))
        if other.time[-1] < self.time[0]:
            return Bars.concat((other, self))
        both = [np.concatenate((getattr(other, c), getattr(self, c))) for c in self.COLUMNS]
        joined = Bars(*both)
        order = np.lexsort(
            (
                joined.updated,
                joined.revision,
                (joined.flags & NATIVE) == 0,
                joined.is_closed,
                joined.time,
            )
        )
        time = joined.time[order]
        highest = np.append(time[1:] != time[:-1], True)
        return joined.take(order[highest])

    def unlike(self, held: Bars) -> Bars:
        """Return those of these bars that *held* lacks, or has with other values or flags.

        When they were updated does not count.
        """
        if not len(self) or not len(held):
            return self
        at = np.minimum(np.searchsorted(held.time, self.time), len(held) - 1)
        other = np.zeros(len(self), dtype=np.bool_)
        for name in self.COLUMNS:
            if name != "updated":
                mine, theirs = getattr(self, name), getattr(held, name)[at]
                other |= (mine != theirs) & ((mine == mine) | (theirs == theirs))  # noqa: PLR0124 - NaN
        return self.take(other)

    def checked(self) -> Bars:
        """Return these bars if they can be true. Call it where bars enter the system.

        Raises `InvalidBars` naming the first bar that is NaN, infinite, out of order, has its high
        below another price, its low above one, or a negative volume.
        """
        prices = np.stack((self.open, self.high, self.low, self.close))
        reasons = (
            (~np.isfinite(prices).all(axis=0), "a price that is not a finite number"),
            (~np.isfinite(self.volume) | (self.volume < 0), "a volume that is not a number >= 0"),
            (self.high < self.low, "high below low"),
            (self.high < np.maximum(self.open, self.close), "high below open or close"),
            (self.low > np.minimum(self.open, self.close), "low above open or close"),
            (np.diff(self.time, prepend=self.time[:1] - 1) <= 0, "a time not after the one before"),
        )
        for wrong, reason in reasons:
            if wrong.any():
                at = int(np.argmax(wrong))
                raise InvalidBars(f"bar {at} (time {int(self.time[at])}) has {reason}")
        return self


def _filled(value: Any, n: int, dtype: Any) -> Any:
    """Return *value* as a column of *n*, repeated if it is a scalar."""
    return np.full(n, value, dtype) if np.ndim(value) == 0 else np.asarray(value, dtype)


_columns_of = attrgetter(*Bars.COLUMNS)
_NO_BARS = Bars.of((), (), (), (), (), ())
