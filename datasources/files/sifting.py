"""Tell the rows of a file that can be bars of a series from those that cannot, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasources.files.label import UnreadableFile
from datasources.files.placing import Placement
from datasources.files.reading import Batch, Refused
from datasources.files.table import NEEDED, NONE, PRICES, TIME, Rows
from market.bars import NATIVE, Bars, Floats, Ints
from market.timeframe import MINUTE_FRAME
from market.window import DAY, Mask, Spans, Times, Window
from market.zones import ERA

MOST_DOUBTS = 1_000
"""Stretches in which a refused row may belong; of a file with more nothing is known."""
# A file whose every time is this near to 1970 counts seconds (until the year 2286).
_NEAR_EPOCH = 10_000_000_000
_MANY = 3
# Sums over decades of values below this stay finite.
_LARGEST = 1e290


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is taken in, with when each bar was asked for, and what is refused, by line."""

    bars: Bars
    observed: Times
    refused: Sequence[Refused]
    last_close: int | None = None


class Sieve:
    """Sifts one file from its first batch to its last.

    *observed_at* is when all its values were asked for, where that is known and the file does not
    say it itself; else each bar counts as asked for at its close, so that whatever a provider said
    later stands. Bars before *kept_from* were dropped, and are not taken in again. What is refused
    leaves a doubt: where its bar belongs, a time without one is not known to be empty.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        name: str,
        now: int,
        observed_at: int | None = None,
        kept_from: int | None = None,
        last: int | None = None,
        doubts: Spans | None = None,
    ) -> None:
        self._placement = placement
        self._name = name
        self._now = now
        self._observed_at = observed_at
        self._kept_from = ERA.since if kept_from is None else kept_from
        self.last = last
        """The opening of the newest bar taken."""
        self.doubts = Spans() if doubts is None else doubts
        """All time is doubted once these are more than `MOST_DOUBTS`."""
        self.doubted_since: int | None = None
        """Since when everything is doubted until the next bar; as `last`, or of the beginning."""

    def sift(self, batch: Batch) -> Sifted:
        """Return the bars of *batch*. Raises `UnreadableFile` for a file that runs backwards."""
        rows = batch.rows
        if not len(rows):
            self._doubt(np.array([one.line for one in batch.refused]), np.empty(0, np.int64), None)
            return Sifted(Bars.empty(), np.empty(0, np.int64), batch.refused)
        stamped = rows.ints(TIME, np.full(len(rows), NONE))
        wrong, reasons = self._untimed(stamped)
        sane = np.where(wrong, 0, stamped)
        opens = np.where(wrong, NONE, self._placement.opens(sane))
        closes, off = self._placement.closes(np.where(wrong, 0, opens)[~wrong])
        close = np.full(len(rows), NONE)
        close[~wrong] = closes
        off_grid = np.zeros(len(rows), np.bool_)
        off_grid[~wrong] = off
        marks, unknown = rows.sources(
            0 if self._placement.key.timeframe == MINUTE_FRAME else NATIVE
        )
        reasons += [
            (off_grid, f"no bar of {self._placement.key.timeframe} opens at its {TIME}"),
            (~wrong & (close > self._now), "its bar is not over yet"),
            (~wrong & (opens < self._kept_from), "bars that old are not kept"),
            *_impossible(rows),
            (unknown, "source is none of MINUTES, NATIVE, TRADES"),
        ]
        for mask, _ in reasons:
            wrong = wrong | mask
        late = self._out_of_order(opens, wrong)
        reasons.append((late, f"its {TIME} is not after that of the bar before it"))
        refused = sorted((*batch.refused, *_named(rows, reasons)), key=lambda one: one.line)
        good = ~(wrong | late)
        taken = rows.take(np.flatnonzero(good))
        time = opens[good]
        self._doubt(np.array([one.line for one in refused]), taken.line, time)
        self._doubt_at(opens[late], close[late])
        if len(time):
            self.last = int(time[-1])
        asked = close[good] if self._observed_at is None else np.full(len(time), self._observed_at)
        bars = taken.bars(
            time=time, updated=taken.ints("updated_ms", close[good]), marks=marks[good]
        )
        # Nobody can have asked later than now.
        observed = np.minimum(taken.ints("observed_ms", asked), self._now)
        return Sifted(bars, observed, refused, int(close[good][-1]) if len(time) else None)

    def _untimed(self, stamped: Times) -> tuple[Mask, list[tuple[Mask, str]]]:
        missing = stamped == NONE
        seconds = ~missing & (np.abs(stamped) < _NEAR_EPOCH)
        if self._placement.zone is None or not seconds.all() or not (stamped % DAY).any():
            seconds &= False
        outside = ~missing & ((stamped < ERA.since) | (stamped >= ERA.until))
        reasons = [
            (missing, f"{TIME} is missing"),
            (seconds, f"{TIME} looks like seconds, not milliseconds"),
            (outside, f"{TIME} is no time in milliseconds"),
        ]
        return missing | seconds | outside, reasons

    def _out_of_order(self, opens: Times, wrong: Mask) -> Mask:
        """Return which of the rows that are not *wrong* do not follow all before them."""
        candidates = np.flatnonzero(~wrong)
        time = opens[candidates]
        if self.last is None and len(time) >= _MANY and (np.diff(time) < 0).all():
            raise UnreadableFile(self._name, "it runs from new to old: sort it, the oldest first")
        newest = np.maximum.accumulate(
            np.concatenate(([NONE if self.last is None else self.last], time))
        )
        late = np.zeros(len(opens), np.bool_)
        late[candidates] = time <= newest[:-1]
        return late

    def _doubt(self, refused: Ints, lines: Ints, time: Times | None) -> None:
        """Doubt the time between the bars around each of the *refused* lines."""
        time = np.empty(0, np.int64) if time is None else time
        before = np.concatenate(([ERA.since if self.last is None else self.last], time))
        if self.doubted_since is not None and len(time):
            self._add([Window(self.doubted_since, int(time[0]))])
            self.doubted_since = None
        found = []
        for place in np.unique(np.searchsorted(lines, refused)).tolist():
            if place == len(time):
                if self.doubted_since is None:
                    self.doubted_since = int(before[place])
            else:
                found.append(Window(int(before[place]), int(time[place])))
        self._add(found)

    def _doubt_at(self, opens: Times, closes: Times) -> None:
        pairs = np.unique(np.stack((opens, closes), axis=1), axis=0).tolist()
        self._add([Window(since, until) for since, until in pairs])

    def _add(self, windows: Sequence[Window]) -> None:
        if windows:
            self.doubts |= Spans(windows)
        if len(self.doubts) > MOST_DOUBTS:
            self.doubts = Spans((ERA,))

    def all_doubts(self) -> Spans:
        """Return the doubts at the end of the file."""
        if self.doubted_since is None:
            return self.doubts
        return self.doubts | Spans.of(self.doubted_since, ERA.until)


def _impossible(rows: Rows) -> list[tuple[Mask, str]]:
    opened, high, low, close = prices = [rows.floats(name) for name in PRICES]
    volume, vwap = rows.floats("volume"), rows.floats("vwap")
    trades = rows.ints("trades", np.zeros(len(rows), np.int64))
    # Comparisons with NaN are false: each such row has its own reason already.
    return [
        *(
            (~np.isfinite(price), f"{name} is not a finite number")
            for name, price in zip(PRICES, prices, strict=True)
        ),
        (~np.isfinite(volume) | (volume < 0), "volume is not a number of 0 or more"),
        (high < low, "high is below low"),
        (high < np.maximum(opened, close), "high is below open or close"),
        (low > np.minimum(opened, close), "low is above open or close"),
        (np.isinf(vwap), "vwap is not a finite number"),
        (_beyond(volume, vwap), "volume or vwap is beyond what can be summed up"),
        (trades < 0, "trades is below 0"),
    ]


def _beyond(volume: Floats, vwap: Floats) -> Mask:
    """Return which bars no aggregate could hold: the store would refuse the batch with them."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        turnover = np.abs(volume * vwap)
        vanished = (turnover == 0) & (volume > 0) & (np.abs(vwap) > 0)
    return np.asarray((volume >= _LARGEST) | (turnover >= _LARGEST) | vanished)


def _named(rows: Rows, reasons: Sequence[tuple[Mask, str]]) -> list[Refused]:
    """Return each row that a mask marks, with the first reason that does."""
    found: dict[int, Refused] = {}
    for mask, reason in reasons:
        for at in np.flatnonzero(mask).tolist():
            if at not in found:
                found[at] = Refused(int(rows.line[at]), reason, _shown(rows, at))
    return list(found.values())


def _shown(rows: Rows, at: int) -> str:
    def text(value: Any) -> str:
        if isinstance(value, (int, np.integer)):
            return "" if value == NONE else str(int(value))
        return "" if value is None or np.isnan(value) else str(value)

    return ",".join(text(rows.columns[name][at]) for name in NEEDED if name in rows.columns)
