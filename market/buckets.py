"""Where the bars of a timeframe begin and end, in a zone and a session (promise 4 of the API).

Seconds, minutes and hours count elapsed time from the start of a *stretch*: a local day, or a
trading session where one other than ALL is chosen; the last bucket of a stretch may be short.
Days and longer count local dates in groups from 1970, whatever the session.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from market.bars import Ints
from market.calendars import Calendar, calendar
from market.instrument import Series, Session
from market.timeframe import Timeframe, Unit
from market.window import DAY, Mask, Spans, Times, Window
from market.zones import ERA, check_zone, day_starts, local_day

_REMEMBERED = 1024
"""Buckets that a grid keeps of the window that it was asked for last."""
_FIRST_MONDAY = 4
"""1970-01-05, in days since 1970-01-01."""


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """A run of buckets `[opens[i], closes[i])` in ms, ascending, none empty, none overlapping."""

    opens: Times
    closes: Times
    _spans: Spans | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.opens)

    def __iter__(self) -> Iterator[Window]:
        return map(Window, self.opens.tolist(), self.closes.tolist())

    @property
    def hull(self) -> Window:
        """The smallest window around all of them; empty (0, 0) where there is none."""
        return Window(int(self.opens[0]), int(self.closes[-1])) if len(self) else Window(0, 0)

    @property
    def spans(self) -> Spans:
        """The time inside any of them."""
        if self._spans is None:
            object.__setattr__(self, "_spans", Spans.from_edges(self.opens, self.closes))
        assert self._spans is not None
        return self._spans


class Grid:
    """The buckets of a timeframe in a zone and a session; of times outside `ERA` it tells nothing.

    *calendar* is asked only where a session is chosen. Raises `UnknownName` for an unknown zone.
    """

    __slots__ = ("_calendar", "_even", "_newest", "_phase", "_session", "_timeframe", "_zone")

    def __init__(
        self,
        timeframe: Timeframe,
        *,
        zone: str,
        session: Session = Session.ALL,
        calendar: Calendar,
    ) -> None:
        self._timeframe = timeframe
        self._zone = check_zone(zone)
        self._session = session
        self._calendar = calendar
        self._even, self._phase = _even(timeframe, zone, session)
        self._newest: tuple[Window, Buckets] | None = None

    def opening_in(self, window: Window) -> Buckets:
        """Return every bucket whose opening lies in *window*.

        The result grows with the window: bound its length before asking.
        """
        # A watchlist asks for the same window of one series after the other.
        if (newest := self._newest) is not None and newest[0] == window:
            return newest[1]
        buckets = self._opening_in(window.clip(ERA))
        if len(buckets) <= _REMEMBERED:
            buckets.opens.flags.writeable = buckets.closes.flags.writeable = False
            self._newest = (window, buckets)
        return buckets

    def _opening_in(self, window: Window) -> Buckets:
        if window.empty:
            return _NO_BUCKETS
        if self._even is not None:
            earliest = window.since + (self._phase - window.since) % self._even
            opens = np.arange(earliest, window.until, self._even)
            return Buckets(opens, opens + self._even)
        step = self._timeframe.step
        if step is None:
            groups = self._groups(window)
            wanted = slice(*np.searchsorted(groups.opens, (window.since, window.until)))
            return Buckets(groups.opens[wanted], groups.closes[wanted])
        starts, ends = self._stretches(window)
        # Of each stretch, the positions of its buckets that open in the window: [first, past).
        first = np.maximum(0, -((starts - window.since) // step))
        past = np.maximum(first, -((starts - np.minimum(ends, window.until)) // step))
        counts = past - first
        before = np.cumsum(counts) - counts
        position = np.arange(int(counts.sum())) - np.repeat(before - first, counts)
        opens = np.repeat(starts, counts) + position * step
        return Buckets(opens, np.minimum(opens + step, np.repeat(ends, counts)))

    def opens_at(self, times: Times) -> Mask:
        """Return, for each of *times*, ascending, whether a bucket opens there."""
        if self._even is not None or not len(times):
            return np.asarray((times - self._phase) % (self._even or 1) == 0)
        edges = self.opening_in(Window(int(times[0]), int(times[-1]) + 1)).opens
        if not len(edges):
            return np.zeros(len(times), dtype=np.bool_)
        at = np.minimum(np.searchsorted(edges, times), len(edges) - 1)
        return np.asarray(edges[at] == times)

    def at(self, time: int) -> Window | None:
        """Return the bucket that contains *time*, None between sessions."""
        reach = self.reach(Window(time, time + 1))
        return None if reach.empty else reach

    def reach(self, window: Window) -> Window:
        """Return the smallest window of whole buckets around all that *window* touches.

        Empty where it touches none.
        """
        window = window.clip(ERA)
        nothing = Window(window.since, window.since)
        if window.empty:
            return nothing
        if self._even is not None:
            since = window.since - (window.since - self._phase) % self._even
            return Window(since, window.until + (self._phase - window.until) % self._even)
        step = self._timeframe.step
        if step is None:
            groups = self._groups(window)
            return Window(int(groups.opens[0]), int(groups.closes[-1]))
        starts, ends = self._stretches(window)
        if not len(starts):
            return nothing
        head, tail, end = int(starts[0]), int(starts[-1]), int(ends[-1])
        since = max(head, head + (window.since - head) // step * step)
        until = min(end, tail - (tail - window.until) // step * step)
        return Window(since, until)

    def _stretches(self, window: Window) -> tuple[Times, Times]:
        """Return starts and ends of the days or sessions that overlap *window*, none empty."""
        if self._session is not Session.ALL:
            return self._calendar.sessions(window, self._session)
        first, last = self._local_days(window)
        edges = day_starts(self._zone, np.arange(first, last + 2))
        return _apart(edges)

    def _groups(self, window: Window) -> Buckets:
        """Return the groups of local dates that overlap *window*."""
        first, last = self._local_days(window)
        groups = np.arange(self._group_of(first), self._group_of(last) + 2)
        return Buckets(*_apart(day_starts(self._zone, self._first_dates(groups))))

    def _local_days(self, window: Window) -> tuple[int, int]:
        return local_day(self._zone, window.since), local_day(self._zone, window.until - 1)

    def _group_of(self, day: int) -> int:
        date, count = np.datetime64(day, "D"), self._timeframe.count
        match self._timeframe.unit:
            case Unit.DAY:
                return day // count
            case Unit.WEEK:
                return (day - _FIRST_MONDAY) // (7 * count)
            case Unit.MONTH:
                return int(date.astype("datetime64[M]").astype(np.int64)) // count
            case _:
                return int(date.astype("datetime64[Y]").astype(np.int64)) // count

    def _first_dates(self, groups: Ints) -> Ints:
        """Return the first date of each group, in days since 1970-01-01."""
        firsts = groups * self._timeframe.count
        match self._timeframe.unit:
            case Unit.DAY:
                return firsts
            case Unit.WEEK:
                return firsts * 7 + _FIRST_MONDAY
            case Unit.MONTH:
                return firsts.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
            case _:
                return firsts.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)


def _even(timeframe: Timeframe, zone: str, session: Session) -> tuple[int | None, int]:
    """Return how long every bucket is, and where one opens; None where they differ in length."""
    if zone != "UTC":
        return None, 0
    # In UTC days are equally long: what divides one goes on over midnight.
    match timeframe.unit:
        case Unit.DAY:
            return timeframe.count * DAY, 0
        case Unit.WEEK:
            return timeframe.count * 7 * DAY, _FIRST_MONDAY * DAY
    step = timeframe.step
    is_even = session is Session.ALL and step is not None and DAY % step == 0
    return (step, 0) if is_even else (None, 0)


def grid(series: Series) -> Grid:
    """Return the grid that *series* is cut by. Raises `UnknownName` for its zone or calendar."""
    return _grid(series.timeframe, series.timezone, series.session, series.calendar)


@lru_cache(maxsize=1024)
def _grid(timeframe: Timeframe, zone: str, session: Session, calendar_name: str) -> Grid:
    return Grid(timeframe, zone=zone, session=session, calendar=calendar(calendar_name))


def _apart(edges: Times) -> tuple[Times, Times]:
    """Return what lies between successive edges, without the dates a zone skipped."""
    opens, closes = edges[:-1], edges[1:]
    some = closes > opens
    return (opens, closes) if some.all() else (opens[some], closes[some])


_NO_BUCKETS = Buckets(np.empty(0, np.int64), np.empty(0, np.int64))
