"""Half-open stretches of time, one (`Window`) or many (`Spans`), in milliseconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

Times = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The instants `since <= t < until`; empty where `until <= since`."""

    since: int
    until: int

    @property
    def empty(self) -> bool:
        return self.until <= self.since

    @property
    def length(self) -> int:
        return max(0, self.until - self.since)

    def clip(self, other: Window) -> Window:
        """Return what both share, empty where they do not meet."""
        since = max(self.since, other.since)
        return Window(since, max(since, min(self.until, other.until)))

    def contains(self, other: Window) -> bool:
        return other.empty or (self.since <= other.since and other.until <= self.until)

    def aligned(self, step: int) -> Window:
        """Return the smallest window of whole *step*s (counted from the epoch) around this one."""
        return Window(self.since // step * step, -(-self.until // step) * step)


class Spans:
    """A set of instants kept as disjoint, touching-merged windows, oldest first. Immutable."""

    __slots__ = ("_windows",)

    def __init__(self, windows: Iterable[Window] = ()) -> None:
        given = [window for window in windows if window.since < window.until]
        # Nearly all spans are one window: most time is known in one piece.
        self._windows = tuple(given) if len(given) < 2 else _merged(given)

    @classmethod
    def of(cls, since: int, until: int) -> Spans:
        return cls((Window(since, until),))

    @classmethod
    def from_edges(cls, opens: Times, closes: Times) -> Spans:
        """Return the union of `[opens[i], closes[i])`, both columns ascending."""
        if not len(opens):
            return cls()
        apart = np.flatnonzero(opens[1:] > closes[:-1])
        if not len(apart):
            return cls.of(int(opens[0]), int(closes[-1]))
        starts = opens[np.concatenate(([0], apart + 1))]
        ends = closes[np.concatenate((apart, [len(closes) - 1]))]
        return cls(Window(int(s), int(e)) for s, e in zip(starts, ends, strict=True))

    def __iter__(self) -> Iterator[Window]:
        return iter(self._windows)

    def __len__(self) -> int:
        return len(self._windows)

    def __bool__(self) -> bool:
        return bool(self._windows)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Spans) and self._windows == other._windows)

    def __hash__(self) -> int:
        return hash(self._windows)

    def __repr__(self) -> str:
        return f"Spans({', '.join(f'[{w.since}, {w.until})' for w in self._windows)})"

    def __or__(self, other: Spans) -> Spans:
        if not other._windows:
            return self
        return Spans((*self._windows, *other._windows)) if self._windows else other

    def __and__(self, other: Spans) -> Spans:
        shared: list[Window] = []
        mine, theirs = self._windows, other._windows
        i = j = 0
        while i < len(mine) and j < len(theirs):
            shared.append(mine[i].clip(theirs[j]))
            if mine[i].until <= theirs[j].until:
                i += 1
            else:
                j += 1
        return Spans(shared)

    def __sub__(self, other: Spans) -> Spans:
        if not other._windows:
            return self
        left: list[Window] = []
        theirs = other._windows
        j = 0
        for window in self._windows:
            since = window.since
            while j < len(theirs) and theirs[j].until <= since:
                j += 1
            k = j
            while k < len(theirs) and theirs[k].since < window.until:
                left.append(Window(since, theirs[k].since))
                since = max(since, theirs[k].until)
                k += 1
            left.append(Window(since, window.until))
        return Spans(left)

    def clip(self, window: Window) -> Spans:
        if len(self._windows) == 1:
            return Spans((self._windows[0].clip(window),))
        return self & Spans((window,))

    def holds(self, window: Window) -> bool:
        """Whether all of *window* lies inside."""
        if len(self._windows) == 1:
            return self._windows[0].contains(window)
        return window.empty or any(mine.contains(window) for mine in self._windows)

    def covers(self, opens: Times, closes: Times) -> Mask:
        """Return, for each `[opens[i], closes[i])`, whether all of it lies inside one span."""
        if not self._windows:
            return closes <= opens
        if len(self._windows) == 1:
            (only,) = self._windows
            return np.asarray(((opens >= only.since) & (closes <= only.until)) | (closes <= opens))
        since = np.array([w.since for w in self._windows], dtype=np.int64)
        until = np.array([w.until for w in self._windows], dtype=np.int64)
        at = np.searchsorted(since, opens, side="right") - 1
        inside = (at >= 0) & (closes <= until[np.maximum(at, 0)])
        return np.asarray(inside | (closes <= opens))

    def touches(self, opens: Times, closes: Times) -> Mask:
        """Return, for each `[opens[i], closes[i])`, whether it shares an instant with a span."""
        if not self._windows:
            return np.zeros(len(opens), dtype=np.bool_)
        since = np.array([w.since for w in self._windows], dtype=np.int64)
        until = np.array([w.until for w in self._windows], dtype=np.int64)
        # If any span meets a stretch, the first one that ends after its opening does.
        at = np.searchsorted(until, opens, side="right")
        inside = at < len(since)
        return np.asarray(inside & (since[np.minimum(at, len(since) - 1)] < closes))

    def contains(self, times: Times) -> Mask:
        """Return, for each instant, whether it lies inside a span."""
        if len(self._windows) == 1:
            (only,) = self._windows
            return np.asarray((times >= only.since) & (times < only.until))
        return self.covers(times, times + 1)

    @property
    def total(self) -> int:
        """The summed length in milliseconds."""
        return sum(w.length for w in self._windows)

    @property
    def hull(self) -> Window:
        """The smallest window around all of them; empty (0, 0) where there is none."""
        if not self._windows:
            return Window(0, 0)
        return Window(self._windows[0].since, self._windows[-1].until)


def _merged(windows: list[Window]) -> tuple[Window, ...]:
    """Return the same time as windows of which no two touch, oldest first."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.since <= merged[-1].until:
            if window.until > merged[-1].until:
                merged[-1] = Window(merged[-1].since, window.until)
        else:
            merged.append(window)
    return tuple(merged)
