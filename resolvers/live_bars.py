"""Live bars of one series, without GraphQL types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from datasources.cursors import CandleCursor
from datasources.live.events import Status
from datasources.live.fanout import Overflowed, Reader
from datasources.live.quote_tails import QuoteTails
from datasources.live.resumption import Resumption
from datasources.live.tail_events import (
    RangeChanged,
    ResetReason,
    Snapshot,
    TailEvent,
    Update,
    passing_key,
)
from datasources.live.tails import Tails
from market.bars import Bars
from market.buckets import grid
from market.instrument import Instrument, Series
from resolvers.candles import Asked, series_of
from resolvers.directory import Directory
from resolvers.live import Shown

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class LiveSources:
    """What live subscriptions need of the process."""

    tails: Tails
    quotes: QuoteTails
    resumption: Resumption


@dataclass(slots=True)
class LiveBars:
    """The bars of a series as they close, are revised and run; a `LiveEvents`."""

    live: LiveSources
    series: Series
    instrument: Instrument
    after: CandleCursor | None
    caught_up: tuple[CandleCursor, ...] = ()
    """What the catch-up told: all up to each of these."""
    shown: Bars = field(default_factory=Bars.empty)
    """The newest closed bars that the catch-up sent."""

    @property
    def key(self) -> Hashable:
        return ("bars", self.series)

    async def __aiter__(self) -> AsyncIterator[TailEvent]:
        async with self.tail() as tail:
            async for event in self.catch_up():
                yield event
            async for shown in tail:
                if not self.told(shown.place):
                    yield shown.event

    async def catch_up(self) -> AsyncIterator[TailEvent]:
        """Yield a snapshot, or what followed the cursor. Raises `BargraphError`."""
        async with self.live.tails.open(self.series, self.instrument) as (tail, followed):
            beginning = await self.live.resumption.begin(tail, followed, self.after)
            for event in beginning.events:
                if isinstance(event, Snapshot | Update):
                    self.shown = _newest(self.shown.merge(event.bars.closed()))
                yield event
            self.caught_up = beginning.told
            yield followed.status

    def told(self, place: object) -> bool:
        if not isinstance(place, _Place):
            return False
        if not place.ahead and any(cursor.covers(place.cursor) for cursor in self.caught_up):
            return True
        return len(place.closed) > 0 and not len(place.closed.unlike(self.shown))

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[TailEvent]]]:
        async with self.live.tails.open(self.series, self.instrument) as (tail, _):
            with tail.readers.reading() as reader:
                yield self._shown(reader)

    async def _shown(self, reader: Reader[TailEvent]) -> AsyncIterator[Shown[TailEvent]]:
        while True:
            events: list[TailEvent]
            try:
                events = [await anext(reader)]
            except StopAsyncIteration:
                return
            except Overflowed:
                async with self.live.tails.open(self.series, self.instrument) as (tail, followed):
                    reset = ResetReason.OVERFLOW
                    events = [
                        *await self.live.resumption.snapshot(tail, followed, reset),
                        followed.status,
                    ]
            for event in events:
                yield Shown(event, passing_key(event), _place(event))


def _newest(bars: Bars) -> Bars:
    """Return copies of the few newest: of a snapshot only these can be told again."""
    return bars.take(np.arange(max(0, len(bars) - _SHOWN), len(bars)))


@dataclass(frozen=True, slots=True)
class _Place:
    """Up to where an event of the tail tells of closed bars, and which of them it sends.

    *ahead*: these may be newer than that, so only they themselves say whether a viewer has them.
    """

    cursor: CandleCursor
    closed: Bars
    ahead: bool = False


def _place(event: TailEvent) -> _Place | None:
    """Return where *event* stands; None if it is not about closed bars."""
    if isinstance(event, Status) or (isinstance(event, Update) and event.passing):
        return None
    if isinstance(event, RangeChanged):
        return _Place(event.reached, Bars.empty())
    ahead = isinstance(event, Update) and event.ahead
    return _Place(event.cursor, event.bars.closed(), ahead)


async def live_bars(
    directory: Directory, live: LiveSources, asked: Asked, after: str | None
) -> LiveBars:
    """Return the live bars that are meant. Raises what `series_of` raises, `BadInput`."""
    series, instrument = await series_of(directory, asked)
    grid(series)
    return LiveBars(live, series, instrument, None if after is None else CandleCursor.parse(after))
