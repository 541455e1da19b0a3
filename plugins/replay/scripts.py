"""What a recording's streams of bars and of tickers tell, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from market.bars import CLOSED, Bars
from market.quotes import Ticker
from plugins.replay.recording import Recording

BATCH = 20_000
"""Bars that one batch holds at the most."""


class RecordedBars:
    """The bar running at *since* and all after it: its opening, and at its close the whole bar."""

    def __init__(self, recording: Recording, since: int) -> None:
        self._recording = recording
        self._next = recording.closed_by(since)
        """The oldest bar whose close was not told."""
        self._opened = -1
        """The newest bar whose opening was told."""
        self.due: int | None = since

    async def look(self, now: int) -> Bars | None:
        """Return what has closed since the last look, and the bar that has opened."""
        recording = self._recording
        first, past = self._next, min(recording.closed_by(now), self._next + BATCH)
        found = []
        if past > first:
            over = recording.bars.take(slice(first, past))
            found.append(over.with_columns(flags=np.full(len(over), CLOSED, np.uint8)))
        times, closes = recording.bars.time, recording.closes
        self._next = past
        if past == len(times):
            self.due = None
        elif now < times[past]:
            self.due = int(times[past])
        else:
            self.due = int(closes[past])
            if now < self.due and self._opened < past:
                found.append(recording.opening(past))
                self._opened = past
        return Bars.concat(found) if found else None


class NewestPrice:
    """The newest price that the recordings of one instrument tell, the finest timeframe first."""

    def __init__(self, recordings: Sequence[Recording], since: int) -> None:
        self._recordings = recordings
        self._told: int | None = None
        self.due: int | None = since

    async def look(self, now: int) -> Ticker | None:
        """Return the newest price if it came after the last look; nothing but price and time."""
        coming = (recording.next_price(now) for recording in self._recordings)
        self.due = min((time for time in coming if time is not None), default=None)
        known = (recording.newest_price(now) for recording in self._recordings)
        newest = max((one for one in known if one), key=lambda one: one[0], default=None)
        if newest is None or newest[0] == self._told:
            return None
        self._told, price = newest
        return Ticker(self._told, last=price)
