"""A simulated symbol's order book and ticker: functions of seed, symbol and time, twice a second.

The last trade's price lies at or between the best bid and the best ask. Every other level is a
multiple of a few ticks, and keeps its amount for some states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from market.bars import Ints
from market.quotes import Level, OrderBook, Ticker
from market.window import DAY, MINUTE
from plugins.sim.hours import Hour, Hours, Past
from plugins.sim.listings import Simulated
from plugins.sim.noise import bits, key_of, words

BEAT = 500
"""Milliseconds between two states."""
DEEPEST = 200
"""Levels a side that a book has at the most."""
_RESTING = 8
"""States for which a level keeps its amount."""

T = TypeVar("T", bound=OrderBook | Ticker)


@dataclass(frozen=True, slots=True)
class Moment:
    """A symbol at one beat: the *last* price traded before it, None if there was no trade ever."""

    listing: Simulated
    seed: int
    beat: int
    last: float | None
    volume: float
    """Traded in 24 hours and what has passed of the minute."""


def book_at(moment: Moment, depth: int) -> OrderBook:
    """Return the book; a shallower one is the top of a deeper one."""
    last = moment.last
    if last is None:
        return OrderBook(moment.beat * BEAT, (), (), sequence=moment.beat)
    listing = moment.listing
    ticks = round(last * 10**listing.decimals)
    # A lively or dear symbol has wider spreads, in ticks.
    breadth = 1 + int(0.02 * listing.deviation * ticks)
    word = words(_key(moment, "spread"), np.array([moment.beat]))
    spread = 1 + int(bits(word, 0, 16)[0] * breadth)
    bid = max(1, ticks - int(bits(word, 16, 16)[0] * (spread + 1)))
    step = 1 + breadth // 8
    count = np.arange(min(depth, DEEPEST))
    bids = np.where(count, (bid - 1) // step * step - (count - 1) * step, bid)
    asks = np.where(count, ((bid + spread) // step + count) * step, bid + spread)
    return OrderBook(
        moment.beat * BEAT,
        _levels(moment, bids[bids > 0]),
        _levels(moment, asks),
        sequence=moment.beat,
    )


def ticker_at(moment: Moment) -> Ticker:
    """Return the ticker; its bid and ask are the best of the book."""
    book = book_at(moment, 1)
    bid, bid_size = book.bids[0] if book.bids else (None, None)
    ask, ask_size = book.asks[0] if book.asks else (None, None)
    return Ticker(book.time, moment.last, bid, bid_size, ask, ask_size, volume=moment.volume)


class Quotes(Generic[T]):
    """The state at the first look, then one a beat while trading is on; only the newest is told."""

    def __init__(
        self,
        hours: Hours,
        listing: Simulated,
        seed: int,
        make: Callable[[Moment], T],
    ) -> None:
        self._hours = hours
        self._listing = listing
        self._seed = seed
        self._make = make
        self._told = -1
        self.due = 0

    async def look(self, now: int) -> T | None:
        """Return the state of the newest beat if it was not told."""
        beat = now // BEAT
        hour = await self._hours.around(self._listing, now)
        state = None
        time = beat * BEAT
        if self._told < 0 or (beat > self._told and hour.next_open(time) == time):
            past = await self._hours.before(self._listing, hour)
            state = self._make(_moment(self._listing, self._seed, beat, hour, past))
            self._told = beat
        following = hour.next_open((beat + 1) * BEAT)
        self.due = hour.window.until if following is None else following
        return state


def _moment(listing: Simulated, seed: int, beat: int, hour: Hour, past: Past) -> Moment:
    time = beat * BEAT
    minute = time - time % MINUTE
    before = hour.between(hour.window.since, time)
    return Moment(
        listing,
        seed,
        beat,
        before[-1].price if before else past.last,
        past.volume_since(minute - DAY) + hour.amounts[len(before)],
    )


def _levels(moment: Moment, ticks: Ints) -> tuple[Level, ...]:
    listing = moment.listing
    # Levels change their amounts at different beats.
    phase = (words(_key(moment, "phase"), ticks) % np.uint64(_RESTING)).astype(np.int64)
    age = (moment.beat + phase) // _RESTING
    lot = bits(words(_key(moment, "resting"), (ticks << 32) + age), 0, 16)
    units = 1 + (3.0 * listing.size * lot * lot * lot / (1.0625 - lot)).astype(np.int64)
    prices = ticks / 10.0**listing.decimals
    return tuple(zip(prices.tolist(), (units * listing.unit).tolist(), strict=True))


def _key(moment: Moment, use: str) -> int:
    return key_of(moment.seed, moment.listing.instrument.symbol, use)
