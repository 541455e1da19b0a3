"""Build the live bars of one series from what is told of its base.

Closed bars, and the part of the running one whose base bars are closed, are read from the store
when something in their buckets changed; the base bar that still grows is added in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasources.compose import Stock, allowed, compose, select
from datasources.cursors import CandleCursor
from datasources.found import Base, Found, Head, Want
from datasources.live.fanout import Fanout
from datasources.live.tail_events import TailEvent, Update, passing_key
from market.bars import NATIVE, Bars
from market.buckets import Buckets, grid
from market.calendars import calendar, in_session
from market.instrument import Instrument, Series, Session
from market.resample import resample
from market.window import DAY, Spans, Window

NEWEST = 500
"""Bars that are sent one by one; of older ones only the range is told."""


_NO_BUCKETS = Buckets(np.empty(0, np.int64), np.empty(0, np.int64))
_NOTHING = Spans()
_FARTHEST = 14 * DAY
"""No exchange is closed for longer."""


@dataclass(frozen=True, slots=True)
class Affected:
    """Buckets to be read anew, oldest first, and the stretch in which too many or old ones are."""

    buckets: Buckets
    beyond: Window | None


class SeriesTail:
    """One series over the base that is fed, the first of *bases*, and who reads it."""

    def __init__(self, series: Series, instrument: Instrument, bases: tuple[Base, ...]) -> None:
        self.series = series
        self.instrument = instrument
        self.bases = bases
        self.readers: Fanout[TailEvent] = Fanout()
        self.stale = True
        """Whether the running bucket was not read yet."""
        self.others: dict[int, int] = {}
        """Log positions of the bases that no feed tells of, from before readers began."""
        self.owed = Spans()
        """Closed buckets that could not be read yet; readers are still to be told of them."""
        self._grid = grid(series)
        self._partial = Bars.empty()
        self._muted: Window | None = None
        self._shown = Bars.empty()
        self._held = Bars.empty()
        """The newest closed bars that every reader has, as it has them."""
        self._anchor = self._oldest = -(2**62)

    @property
    def base(self) -> Base:
        return self.bases[0]

    @property
    def is_base(self) -> bool:
        """Whether the bars of the base are the bars of the series."""
        around = calendar(self.series.calendar).around_the_clock
        whole = self.series.session is Session.ALL or around
        return self.base.timeframe == self.series.timeframe and whole and not self.base.native

    def want(self, buckets: Buckets, told: int) -> Want:
        spans = Spans.from_edges(buckets.opens, buckets.closes)
        return Want(self.series, self.instrument, self.bases, spans, told)

    def affected(
        self,
        changes: Sequence[Window],
        told_before: int,
        told: int,
        *,
        running: bool,
        owed: Spans = _NOTHING,
    ) -> Affected:
        """Return the buckets that *changes* touch or that closed in `(told_before, told]`.

        With *running* the one that runs is among them in any case, and so are those *owed*.
        """
        changes = (*changes, *owed.clip(Window(self._horizon(told), told)))
        touched = Spans(self._grid.reach(window) for window in changes)
        windows = list(touched)
        if told > told_before:
            windows.append(self._grid.reach(Window(told_before, told)))
        if running:
            windows.append(self._grid.at(told) or Window(told, told))
        spans = Spans(windows)
        if not spans:
            return Affected(_NO_BUCKETS, None)
        horizon = self._horizon(told)
        recent = self._grid.opening_in(Window(max(horizon, spans.hull.since), spans.hull.until))
        ended = (recent.closes > told_before) & (recent.closes <= told)
        wanted = ended | touched.touches(recent.opens, recent.closes)
        if running:
            wanted |= (recent.opens <= told) & (recent.closes > told)
        older = touched - Spans.of(horizon, max(horizon, spans.hull.until))
        if told_before < horizon:
            older |= Spans.of(told_before, horizon)
        return Affected(select(recent, wanted), older.hull if older else None)

    def compose(self, buckets: Buckets, rows: Bars, head: Head, told: Spans, now: int) -> Found:
        """Return what *rows* of the base say of *buckets*; those it cannot say are not fresh.

        The rows are the truth where the store knows that they are, and where the feed *told* them.
        """
        known = (head.known or Spans()) | head.rolled
        may = allowed(self.series, self.base, buckets, head.minutes_from)
        stock = Stock(self.base, rows, known, known | told, now, head)
        return compose(self.series, select(buckets, may), stock)

    def read(self, buckets: Buckets, bars: Bars, told: int) -> Bars:
        """Take in the *bars* of *buckets* read anew, and return those that are to be shown.

        The one of the running bucket is kept back: `running` shows it.
        """
        bucket = self._grid.at(told)
        if bucket is None:
            self.stale, self._partial = False, Bars.empty()
            return bars
        running = bars.time == bucket.since
        if (buckets.opens == bucket.since).any():
            self.stale, self._partial = False, bars.take(running)
        return bars.take(~running)

    def cursor(self, cursor: CandleCursor) -> CandleCursor:
        """Return from where to go on whoever has seen all up to *cursor* but what is owed."""
        told = cursor.told_until
        if self.owed:
            told = min(told, self.owed.hull.since)
        return CandleCursor(cursor.store, self.others | dict(cursor.positions), told)

    def recent(self, bars: Bars, told: int) -> Bars:
        """Return those of the base's *bars* that are sent one by one, of what closed by *told*.

        One that closed later waits until that is told: what a cursor says of closes must be so.
        """
        running = self._grid.at(told)
        over = bars.time < (running.since if running else told)
        return bars.take(over & (bars.time >= self._horizon(told)))

    def seen(self, bars: Bars, told: int) -> None:
        """Note that all readers have *bars*, or are told of them: those that closed by *told*.

        They must be as the store had them at a position that the tail has reached.
        """
        running = self._grid.at(told)
        over = bars.time < (running.since if running else told)
        self._held = self._held.merge(bars.take(over & bars.is_closed)).last(NEWEST)

    def _news(self, closed: Bars) -> Bars:
        """Return those of *closed* that readers do not have yet as they are."""
        closed = closed.unlike(self._held)
        self._held = self._held.merge(closed).last(NEWEST)
        return closed

    def show(
        self, closed: Bars, running: Bars, cursor: CandleCursor, *, ahead: bool = False
    ) -> None:
        """Show readers what closed or was revised, and the running bar if it differs."""
        closed = self._news(closed)
        if not len(closed) and (not len(running) or running == self._shown):
            return
        self._shown = running
        bars = closed.merge(running)
        update = Update(bars, cursor, passing=not len(closed), ahead=ahead)
        self.readers.put(update, passing_key(update))

    def tell(self, event: TailEvent) -> None:
        self.readers.put(event, passing_key(event))

    def running(self, forming: Bars, told: int) -> Bars:
        """Return the bar of the bucket that runs, with the base's *forming* bar in it."""
        if self.is_base:
            return forming if len(forming) and int(forming.time[0]) >= told else Bars.empty()
        grows = bool(len(forming)) and self._in_session(forming)
        bucket = self._grid.at(int(forming.time[0]) if grows else told)
        if bucket is None or self._mutes(bucket):
            return Bars.empty()
        partial = self._partial
        if len(partial) and int(partial.time[0]) != bucket.since:
            partial = Bars.empty()
        if not grows or not told <= int(forming.time[0]) <= max(told, bucket.since):
            # What lies between what was told and the forming bar is not known yet.
            return partial
        only = Buckets(np.array([bucket.since]), np.array([bucket.until]))
        bar = resample(Bars.concat((partial, forming)), only, now=told)
        marks = bar.flags & ~np.uint8(NATIVE)
        return bar.with_columns(flags=marks | np.uint8(NATIVE) if self.base.native else marks)

    def mute(self, bucket: Window | None) -> None:
        """Show nothing of *bucket* while it runs: what it is made of cannot be had whole."""
        self._muted = bucket

    def _mutes(self, bucket: Window) -> bool:
        # Before it was read, what is known of the running bucket is only its newest minute.
        return self.stale or bucket == self._muted

    def _in_session(self, forming: Bars) -> bool:
        rules = calendar(self.series.calendar)
        if self.series.session is Session.ALL or rules.around_the_clock or self.base.native:
            return True
        return bool(in_session(forming.time, rules, self.series.session).all())

    def _horizon(self, told: int) -> int:
        """Return where the newest `NEWEST` buckets begin."""
        running = self._grid.at(told)
        anchor = running.since if running else told
        if anchor != self._anchor:
            reach = 2 * NEWEST * self.series.timeframe.nominal
            opens = self._grid.opening_in(Window(anchor - reach, anchor + 1)).opens
            # Sessions leave out nights, weekends and holidays.
            farthest = 8 * reach + _FARTHEST
            while len(opens) < NEWEST and reach < farthest:
                reach *= 2
                opens = self._grid.opening_in(Window(anchor - reach, anchor + 1)).opens
            self._anchor = anchor
            self._oldest = int(opens[-NEWEST:][0]) if len(opens) else anchor
        return self._oldest
