"""Every trade of a stretch of minutes, and the bars that these trades make.

A minute has 16 slots of 3.75 s; each holds one trade or none. Bars are made of exactly the trades
that `Tape.trades` lists: amounts are whole units and prices whole ticks, so sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from market.bars import Bars, Ints
from market.calendars import calendar
from market.window import MINUTE, Mask, Times, Window
from plugins.base import Trade
from plugins.sim.listings import Simulated
from plugins.sim.noise import bits, key_of, words
from plugins.sim.path import Path
from plugins.sim.trading_hours import START, minutes

SLOTS = 16
_SLOT = MINUTE // SLOTS
_PIECE = 4096 * MINUTE


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """Slots by minute, arrays of shape (minutes, 16); only those marked *traded* hold a trade."""

    listing: Simulated
    minute: Times
    traded: Mask
    time: Times
    ticks: Ints
    units: Ints

    def trades(self, window: Window) -> list[Trade]:
        """Return the trades inside *window*, oldest first."""
        wanted = self.traded & (self.time >= window.since) & (self.time < window.until)
        slot = (self.minute[:, None] - START) // _SLOT + np.arange(SLOTS)
        scale = 10.0**self.listing.decimals
        return [
            Trade(str(number), time, price, amount)
            for number, time, price, amount in zip(
                slot[wanted].tolist(),
                self.time[wanted].tolist(),
                (self.ticks[wanted] / scale).tolist(),
                (self.units[wanted] * self.listing.unit).tolist(),
                strict=True,
            )
        ]

    def seen(self, window: Window, *, now: int) -> Tape:
        """Return the minutes that open in *window*, with what was traded before *now*."""
        rows = slice(*np.searchsorted(self.minute, (window.since, window.until)))
        return Tape(
            self.listing,
            self.minute[rows],
            self.traded[rows] & (self.time[rows] < now),
            self.time[rows],
            self.ticks[rows],
            self.units[rows],
        )

    def bars(self) -> Bars:
        """Return a bar for each minute that has a trade."""
        some = self.traded.any(axis=1)
        traded, time, ticks = self.traded[some], self.time[some], self.ticks[some]
        units = np.where(traded, self.units[some], 0)
        row = np.arange(len(traded))
        first = traded.argmax(axis=1)
        last = SLOTS - 1 - traded[:, ::-1].argmax(axis=1)
        high = np.where(traded, ticks, 0).max(axis=1)
        low = np.where(traded, ticks, np.iinfo(np.int64).max).min(axis=1)
        volume = units.sum(axis=1)
        scale = 10.0**self.listing.decimals
        vwap = (units * ticks).sum(axis=1) / (volume * scale)
        return Bars.of(
            self.minute[some],
            ticks[row, first] / scale,
            high / scale,
            low / scale,
            ticks[row, last] / scale,
            volume * self.listing.unit,
            # Rounding may carry the mean of equal prices past them.
            vwap=np.clip(vwap, low / scale, high / scale),
            trades=traded.sum(axis=1),
            updated=time[row, last],
        )


def tapes(listing: Simulated, seed: int, window: Window, *, now: int) -> Iterator[Tape]:
    """Yield what was traded before *now* in the minutes that open in *window*, oldest first.

    In pieces, so that a long window needs little memory besides its result.
    """
    since, until = max(window.since, START), min(window.until, now)
    for start in range(since, until, _PIECE):
        yield _tape(listing, seed, Window(start, min(start + _PIECE, until)), now=now)


def _tape(listing: Simulated, seed: int, window: Window, *, now: int) -> Tape:
    open_minutes = minutes(calendar(listing.instrument.calendar), window)
    symbol = listing.instrument.symbol
    path = Path(key_of(seed, symbol, "path"), listing.home, listing.deviation)
    steps = open_minutes.step
    opened = path.prices(steps)
    # A minute ends where the next step begins, computed anew only where that is not the next row.
    closed = np.append(opened[1:], 0.0)
    apart = np.append(np.diff(steps) != 1, True)[: len(steps)]
    closed = closed[: len(steps)]
    closed[apart] = path.prices(steps[apart] + 1)
    lively = open_minutes.busy * path.moods(steps)

    number = (open_minutes.time - START) // MINUTE
    word = words(
        key_of(seed, symbol, "slots"), (number[:, None] * SLOTS + np.arange(SLOTS)).ravel()
    ).reshape(-1, SLOTS)
    chance = np.clip(listing.busy * lively, 0.0, 0.97)
    offset = np.arange(SLOTS) * _SLOT + (bits(word, 16, 12) * _SLOT).astype(np.int64)
    time = open_minutes.time[:, None] + offset
    along = offset / float(MINUTE)
    drift = opened[:, None] + (closed - opened)[:, None] * along
    wiggle = np.sqrt(along * (1.0 - along)) * (bits(word, 44, 20) - 0.5)
    price = drift + wiggle * (3.0 * listing.deviation * opened)[:, None]
    ticks = np.maximum(np.floor(price * 10.0**listing.decimals + 0.5), 1.0).astype(np.int64)
    # Many small trades and a few large ones.
    lot = bits(word, 28, 16)
    size = (listing.size * np.sqrt(lively))[:, None] * (lot * lot * lot / (1.0625 - lot))
    return Tape(
        listing,
        open_minutes.time,
        (bits(word, 0, 16) < chance[:, None]) & (time < now),
        time,
        ticks,
        1 + size.astype(np.int64),
    )
