"""One symbol's bars of one timeframe, put on the grid, and what they vouch for.

A recording of bars shorter than a day covers the days, in the zone of the instrument's calendar,
on which it has a row: what is missing there had no trades. One of days or longer covers all from
the opening of its first row to the close of its last: a weekday missing between was closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.bars import Bars
from market.buckets import Grid
from market.calendars import calendar
from market.instrument import Instrument
from market.timeframe import Timeframe
from market.window import DAY, Spans, Times, Window
from market.zones import day_starts, local_day
from plugins.replay.files import Columns, Unreadable, refuse_first


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """*closes* belongs to *bars*, row by row; *covered* are the spans vouched for, as edges."""

    instrument: Instrument
    timeframe: Timeframe
    bars: Bars
    closes: Times
    covered: tuple[Times, Times]

    def covered_in(self, window: Window) -> Spans:
        """Return the part of *window* that is vouched for."""
        opens, closes = self.covered
        first = int(np.searchsorted(closes, window.since, side="right"))
        past = int(np.searchsorted(opens, window.until, side="left"))
        return Spans.from_edges(opens[first:past], closes[first:past]).clip(window)

    def first_time(self, since: int) -> int | None:
        """Return the first opening on the grid, at or after *since*, that is vouched for."""
        opens, closes = self.covered
        grid = _grid(self.instrument, self.timeframe)
        for index in range(int(np.searchsorted(closes, since, side="right")), len(opens)):
            start, end = max(since, int(opens[index])), int(closes[index])
            bucket = grid.at(start)
            opening = start if bucket is None or bucket.since == start else bucket.until
            if opening < end:
                return opening
        return None

    def closed_by(self, now: int) -> int:
        """Return how many bars have closed at *now*."""
        return int(np.searchsorted(self.closes, now, side="right"))

    def opened_by(self, now: int) -> int:
        """Return how many bars have opened at *now*."""
        return int(np.searchsorted(self.bars.time, now, side="right"))

    def opening(self, row: int) -> Bars:
        """Return bar *row* as far as it is known before its close: its opening price alone."""
        bar = self.bars.take(slice(row, row + 1))
        return bar.with_columns(
            high=bar.open, low=bar.open, close=bar.open, volume=np.zeros(1), updated=bar.time
        )

    def newest_price(self, now: int) -> tuple[int, float] | None:
        """Return the newest opening or closing price at *now* and its time; None before any."""
        row = self.opened_by(now) - 1
        if row < 0:
            return None
        if self.closes[row] <= now:
            return int(self.closes[row]), float(self.bars.close[row])
        return int(self.bars.time[row]), float(self.bars.open[row])

    def next_price(self, now: int) -> int | None:
        """Return when the next bar opens or closes after *now*, None if none does."""
        row = self.opened_by(now)
        if row and now < self.closes[row - 1]:
            return int(self.closes[row - 1])
        return int(self.bars.time[row]) if row < len(self.closes) else None

    def spans(self) -> Spans:
        """Return all that is vouched for."""
        return Spans.from_edges(*self.covered)

    def joined(self, other: Recording) -> Recording:
        """Return both as one. Raises `Unreadable` at a row of *other* that this one has too."""
        refuse_first((np.isin(other.bars.time, self.bars.time), "another file has this time"))
        order = np.argsort(np.concatenate((self.bars.time, other.bars.time)))
        # Not anew from all rows: what lies between two files of days is in neither.
        covered = self.spans() | other.spans()
        return Recording(
            self.instrument,
            self.timeframe,
            self.bars.merge(other.bars),
            np.concatenate((self.closes, other.closes))[order],
            (
                np.array([span.since for span in covered], dtype=np.int64),
                np.array([span.until for span in covered], dtype=np.int64),
            ),
        )


def recording_of(instrument: Instrument, timeframe: Timeframe, columns: Columns) -> Recording:
    """Return the columns of a file as bars of *timeframe*. Raises `Unreadable`.

    Bars of days and longer that are all stamped at midnight UTC are labels of dates: they begin at
    that date's midnight in the zone of the instrument's calendar.
    """
    zone = calendar(instrument.calendar).zone
    time = columns.time
    if timeframe.step is None and not (time % DAY).any():
        time = day_starts(zone, time // DAY)
    closes = _closes(instrument, timeframe, time)
    bars = Bars.of(time, *columns.prices, columns.volume, updated=closes).checked()
    covered = _covered(instrument, timeframe, time, closes)
    return Recording(instrument, timeframe, bars, closes, covered)


def _grid(instrument: Instrument, timeframe: Timeframe) -> Grid:
    traded = calendar(instrument.calendar)
    return Grid(timeframe, zone=traded.zone, calendar=traded)


def _closes(instrument: Instrument, timeframe: Timeframe, time: Times) -> Times:
    off_grid = f"its time is not the opening of a {timeframe} bar in {_zone(instrument)}"
    if timeframe.step is None:
        buckets = _grid(instrument, timeframe).opening_in(Window(int(time[0]), int(time[-1]) + 1))
        if not len(buckets):
            raise Unreadable(0, off_grid)
        at = np.maximum(np.searchsorted(buckets.opens, time, side="right") - 1, 0)
        refuse_first((buckets.opens[at] != time, off_grid))
        return buckets.closes[at]
    # Not by the grid: between the days of a sparse recording lie millions of minutes.
    days = _days(instrument, time)
    at = np.searchsorted(days, time, side="right") - 1
    refuse_first(((time - days[at]) % timeframe.step != 0, off_grid))
    return np.minimum(time + timeframe.step, days[at + 1])


def _covered(
    instrument: Instrument, timeframe: Timeframe, time: Times, closes: Times
) -> tuple[Times, Times]:
    if timeframe.step is None:
        return time[:1], closes[-1:]
    days = _days(instrument, time)
    held = np.unique(np.searchsorted(days, time, side="right") - 1)
    opens, ends = days[held], days[held + 1]
    apart = np.flatnonzero(opens[1:] > ends[:-1])
    return opens[np.append(0, apart + 1)], ends[np.append(apart, len(ends) - 1)]


def _days(instrument: Instrument, time: Times) -> Times:
    """Return the edges of every local day from the first row's to the last one's."""
    zone = _zone(instrument)
    first, last = local_day(zone, int(time[0])), local_day(zone, int(time[-1]))
    return np.unique(day_starts(zone, np.arange(first, last + 2)))


def _zone(instrument: Instrument) -> str:
    return calendar(instrument.calendar).zone
