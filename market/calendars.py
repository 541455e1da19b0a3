"""When instruments trade: every hour of every day, or in the sessions of an exchange.

Regular sessions, holidays and half days come from `exchange_calendars`; hours before and after
them are ours. Sessions are known from 1970 to 2060; outside these years an exchange counts as
closed, and its bars of days and longer are unaffected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from market.errors import UnknownName
from market.instrument import Session
from market.window import DAY, HOUR, Mask, Spans, Times, Window
from market.zones import ERA

# The source leaves yearly holidays out of any year before 1970.
_FIRST, _LAST = "1970-01-01", "2060-12-31"


class Calendar(Protocol):
    """When something trades, and the zone its days are counted in."""

    @property
    def name(self) -> str: ...

    @property
    def zone(self) -> str:
        """The IANA name of the zone that its dates belong to."""
        ...

    @property
    def around_the_clock(self) -> bool: ...

    @property
    def known(self) -> Window:
        """The time whose sessions are known."""
        ...

    def sessions(self, window: Window, session: Session) -> tuple[Times, Times]:
        """Return opens and closes (ms) of every session that overlaps *window*, ascending.

        They are whole sessions, not cut to the window. ALL means EXTENDED at an exchange.
        """
        ...

    def open_spans(self, window: Window, session: Session) -> Spans:
        """Return the part of *window* in which trading is on; ALL means EXTENDED at an exchange."""
        ...


def calendar(name: str) -> Calendar:
    """Return the calendar called *name*: `24/7` or `XNYS`. Raises `UnknownName` for any other.

    The first use of an exchange imports pandas and takes about half a second; later ones nothing.
    """
    if name not in _CALENDARS:
        raise UnknownName("calendar", name, _CALENDARS, field="calendar")
    return _calendar(name)


def in_session(times: Times, calendar: Calendar, session: Session) -> Mask:
    """Return for each instant whether *session* is on. ALL leaves nothing out, at night neither."""
    if session is Session.ALL or calendar.around_the_clock or not len(times):
        return np.ones(len(times), np.bool_)
    hull = Window(int(times.min()), int(times.max()) + 1)
    opens, closes = calendar.sessions(hull, session)
    if not len(opens):
        return np.zeros(len(times), np.bool_)
    at = np.searchsorted(opens, times, side="right") - 1
    return np.asarray((at >= 0) & (times < closes[at]))


class AroundTheClock:
    """Trading that never stops; a session is a day of UTC, whichever session is asked for."""

    name = "24/7"
    zone = "UTC"
    around_the_clock = True
    known = ERA

    def sessions(self, window: Window, session: Session) -> tuple[Times, Times]:
        window = window.clip(ERA)
        if window.empty:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        whole = window.aligned(DAY)
        opens = np.arange(whole.since, whole.until, DAY, dtype=np.int64)
        return opens, opens + DAY

    def open_spans(self, window: Window, session: Session) -> Spans:
        return Spans((window,))


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """An exchange with one session a trading day and hours before and after it.

    All four columns have one row a session, ascending.
    """

    name: str
    zone: str
    opens: Times
    closes: Times
    extended_opens: Times
    extended_closes: Times

    @property
    def around_the_clock(self) -> bool:
        return False

    @property
    def known(self) -> Window:
        return Window(int(self.extended_opens[0]), int(self.extended_closes[-1]))

    def sessions(self, window: Window, session: Session) -> tuple[Times, Times]:
        window = window.clip(ERA)
        if window.empty:
            return self.opens[:0], self.closes[:0]
        regular = session is Session.REGULAR
        opens = self.opens if regular else self.extended_opens
        closes = self.closes if regular else self.extended_closes
        overlap = slice(
            int(np.searchsorted(closes, window.since, side="right")),
            int(np.searchsorted(opens, window.until, side="left")),
        )
        return opens[overlap], closes[overlap]

    def open_spans(self, window: Window, session: Session) -> Spans:
        return Spans.from_edges(*self.sessions(window, session)).clip(window)


def _xnys() -> Exchange:
    # Imported here: it brings pandas, which only those who trade at an exchange need.
    from exchange_calendars.exchange_calendar_xnys import XNYSExchangeCalendar  # noqa: PLC0415

    zone = "America/New_York"
    known = XNYSExchangeCalendar(start=_FIRST, end=_LAST)
    sessions = known.closes.index
    # New York's clocks change on Sundays only, so 04:00 is four hours after midnight.
    midnights = np.asarray(sessions.tz_localize(zone).as_unit("ms").asi8, dtype=np.int64)
    opens = np.asarray(known.opens.dt.as_unit("ms").astype("int64"), dtype=np.int64)
    closes = np.asarray(known.closes.dt.as_unit("ms").astype("int64"), dtype=np.int64)
    short = np.asarray(sessions.isin(known.early_closes), dtype=np.bool_)
    return Exchange(
        name="XNYS",
        zone=zone,
        opens=_read_only(opens),
        closes=_read_only(closes),
        extended_opens=_read_only(midnights + 4 * HOUR),
        extended_closes=_read_only(midnights + np.where(short, 17, 20) * HOUR),
    )


def _read_only(times: Times) -> Times:
    times = times.copy()
    times.flags.writeable = False
    return times


_CALENDARS: dict[str, Callable[[], Calendar]] = {"24/7": AroundTheClock, "XNYS": _xnys}


@cache
def _calendar(name: str) -> Calendar:
    return _CALENDARS[name]()
