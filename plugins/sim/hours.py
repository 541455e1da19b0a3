"""Whole hours of a simulated symbol, those to come included: streams tell of them in time.

What will be traded is known before it is, so that a stream need not look for it: it waits for the
time of the next trade. An hour is computed once for all streams of its symbol, in a thread.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from market.bars import Bars
from market.lru import LRU
from market.window import DAY, HOUR, MINUTE, Times, Window
from plugins.base import Trade
from plugins.sim.listings import Simulated
from plugins.sim.tape import Tape, tapes

_HOURS_KEPT = 32
_LONGEST_PAUSE = 8 * DAY
"""Between two trades of a symbol lies less, holidays included."""


@dataclass(frozen=True, slots=True, eq=False)
class Hour:
    """One hour: its minutes (None before the market's first), and all *trades*, oldest first.

    *times* are those of the trades, *amounts* the sums of their amounts before each and in all.
    """

    window: Window
    tape: Tape | None
    trades: list[Trade]
    times: list[int]
    amounts: list[float]

    def between(self, since: int, until: int) -> list[Trade]:
        """Return the trades of `[since, until)`."""
        return self.trades[bisect_left(self.times, since) : bisect_left(self.times, until)]

    def next_trade(self, time: int) -> int | None:
        """Return when the first trade at or after *time* is; None if this hour has no more."""
        at = bisect_left(self.times, time)
        return self.times[at] if at < len(self.times) else None

    def bars(self, window: Window, *, now: int) -> Bars:
        """Return the minutes that open in *window* as history returns them at *now*."""
        return Bars.empty() if self.tape is None else self.tape.seen(window, now=now).bars()

    def next_open(self, time: int) -> int | None:
        """Return the first instant at or after *time* at which trading is on, None if it is not."""
        if self.tape is None:
            return None
        minutes = self.tape.minute
        at = int(np.searchsorted(minutes, time - time % MINUTE))
        return max(time, int(minutes[at])) if at < len(minutes) else None


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What came before an hour: the price of the *last* trade, None if there was none.

    *minutes* are those of the 24 hours before it that had trades; *sums* has one entry more, the
    amounts traded in these before each minute.
    """

    last: float | None
    minutes: Times
    sums: list[float]

    def volume_since(self, time: int) -> float:
        """Return what was traded from the full minute *time* up to the hour."""
        return self.sums[-1] - self.sums[int(np.searchsorted(self.minutes, time))]


class Hours:
    """The hours of all symbols of one *seed*, the newest kept."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._hours: LRU[tuple[str, int], Hour] = LRU(max_count=_HOURS_KEPT)
        self._pasts: LRU[tuple[str, int], Past] = LRU(max_count=_HOURS_KEPT)

    async def around(self, listing: Simulated, time: int) -> Hour:
        """Return the hour that *time* lies in."""
        since = time - time % HOUR
        key = (listing.instrument.symbol, since)
        hour = self._hours.get(key)
        if hour is None:
            # Two that ask at once compute the same.
            hour = await asyncio.to_thread(_hour, listing, self._seed, since)
            self._hours.put(key, hour)
        return hour

    async def before(self, listing: Simulated, hour: Hour) -> Past:
        """Return what came before *hour*."""
        key = (listing.instrument.symbol, hour.window.since)
        past = self._pasts.get(key)
        if past is None:
            past = await asyncio.to_thread(_past, listing, self._seed, hour.window.since)
            self._pasts.put(key, past)
        return past


def _hour(listing: Simulated, seed: int, since: int) -> Hour:
    window = Window(since, since + HOUR)
    tape = next(tapes(listing, seed, window, now=window.until), None)
    trades = [] if tape is None else tape.trades(window)
    return Hour(
        window,
        tape,
        trades,
        [trade.time for trade in trades],
        list(accumulate((trade.amount for trade in trades), initial=0.0)),
    )


def _past(listing: Simulated, seed: int, until: int) -> Past:
    def bars_since(since: int) -> Bars:
        window = Window(since, until)
        return Bars.concat([tape.bars() for tape in tapes(listing, seed, window, now=until)])

    day = bars_since(until - DAY)
    newest = day if len(day) else bars_since(until - _LONGEST_PAUSE)
    return Past(
        float(newest.close[-1]) if len(newest) else None,
        day.time,
        list(accumulate(day.volume.tolist(), initial=0.0)),
    )
