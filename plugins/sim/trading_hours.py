"""In which minutes a simulated symbol can trade, and how busy they usually are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.bars import Floats, Ints
from market.calendars import Calendar
from market.instrument import Session
from market.window import DAY, MINUTE, Times, Window

START = 1_420_070_400_000
"""2015-01-01 00:00 UTC, the simulated markets' first minute."""

# Busiest while both London and New York work.
_BY_HOUR = np.array(
    [7, 6, 6, 5, 5, 5, 6, 8, 10, 11, 10, 9, 10, 13, 16, 17, 16, 14, 12, 10, 10, 9, 8, 7]
)
_BY_HOUR_MEAN = float(_BY_HOUR.mean())
_SESSION_STEPS = 1024
"""Steps of the price path a trading day: 960 minutes, and as much as happens overnight."""
_THIN = 0.06


@dataclass(frozen=True, slots=True, eq=False)
class Minutes:
    """Minutes in which trading is on: *time* of the opening, the *step* of the price path at it,

    and how *busy* it is usually, 1 on average.
    """

    time: Times
    step: Ints
    busy: Floats


def minutes(calendar: Calendar, window: Window) -> Minutes:
    """Return the minutes that open in *window* (from `START` on) and can have trades."""
    since = -(-max(window.since, START) // MINUTE) * MINUTE
    time = np.arange(since, max(since, window.until), MINUTE, dtype=np.int64)
    if calendar.around_the_clock:
        hour = (time % DAY) // (60 * MINUTE)
        return Minutes(time, (time - START) // MINUTE, _BY_HOUR[hour] / _BY_HOUR_MEAN)
    return _in_sessions(calendar, time)


def _in_sessions(calendar: Calendar, time: Times) -> Minutes:
    if not len(time):
        return Minutes(time, time, np.empty(0))
    asked = Window(int(time[0]), int(time[-1]) + 1)
    opens, closes = calendar.sessions(asked, Session.EXTENDED)
    at = np.searchsorted(opens, time, side="right") - 1
    trades = (at >= 0) & (time < np.append(closes, 0)[at])
    time, opened = time[trades], opens[at[trades]]
    # By the weekday and not by the count of sessions, so that a holiday decided later moves no
    # other day's price. A session opens on its own date, in UTC too. 1970-01-01 was a Thursday.
    week, weekday = np.divmod(opened // DAY + 3, 7)
    day = (week - (START // DAY + 3) // 7) * 5 + weekday
    step = day * _SESSION_STEPS + (time - opened) // MINUTE
    return Minutes(time, step, _busy(calendar, time, asked))


def _busy(calendar: Calendar, time: Times, asked: Window) -> Floats:
    """Return a smile over the regular session, and little before and after it."""
    opens, closes = calendar.sessions(asked, Session.REGULAR)
    busy = np.full(len(time), _THIN)
    if len(opens):
        at = np.searchsorted(opens, time, side="right") - 1
        regular = (at >= 0) & (time < closes[at])
        begun = (time - opens[at])[regular] / (30.0 * MINUTE)
        left = (closes[at] - time)[regular] / (30.0 * MINUTE)
        busy[regular] = 0.6 + 0.8 / (1.0 + begun) + 0.8 / (1.0 + left)
    return busy
