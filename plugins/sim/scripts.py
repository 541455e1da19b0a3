"""What a simulated symbol's streams of trades and of minutes tell, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from market.bars import CLOSED, Bars
from market.window import MINUTE, Window
from plugins.base import Trade
from plugins.sim.hours import Hour, Hours
from plugins.sim.listings import Simulated


class NewTrades:
    """Every trade from *since* on, told as soon as the clock has passed its time."""

    def __init__(self, hours: Hours, listing: Simulated, since: int) -> None:
        self._hours = hours
        self._listing = listing
        self._told = since
        self.due = since

    async def look(self, now: int) -> Sequence[Trade] | None:
        """Return the trades since the last look, of one hour at a time."""
        hour = await self._hours.around(self._listing, self._told)
        until = min(now, hour.window.until)
        trades = hour.between(self._told, until)
        self._told = until
        self.due = _next_trade(hour, until)
        return trades or None


class GrowingMinutes:
    """The minute running at *since* and all after it: each as it grows, and at its close."""

    def __init__(self, hours: Hours, listing: Simulated, since: int) -> None:
        self._hours = hours
        self._listing = listing
        self._open = since - since % MINUTE
        """The oldest minute whose close was not told."""
        self._told = self._open
        self.due = since

    async def look(self, now: int) -> Bars | None:
        """Return the minutes that closed or grew since the last look, of one hour at a time."""
        hour = await self._hours.around(self._listing, self._open)
        until = min(now, hour.window.until)
        running = until - until % MINUTE
        found = []
        if running > self._open:
            over = hour.bars(Window(self._open, running), now=until)
            found.append(over.with_columns(flags=np.full(len(over), CLOSED, np.uint8)))
        if hour.between(max(self._told, running), until):
            found.append(hour.bars(Window(running, until), now=until))
        self._open, self._told = running, until
        self.due = _next_trade(hour, until)
        if hour.between(running, until):
            self.due = min(self.due, running + MINUTE)
        bars = Bars.concat(found)
        return bars if len(bars) else None


def _next_trade(hour: Hour, time: int) -> int:
    """Return when the next trade can be seen, or the end of *hour* if it is in a later one."""
    following = hour.next_trade(time)
    # As in history, a trade is in the past once its millisecond is over.
    return hour.window.until if following is None else following + 1
