"""Live bars of one series, without GraphQL types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from datasources.cursors import CandleCursor
from datasources.live.events import Status
from datasources.live.fanout import Overflowed, Reader
from datasources.live.quote_tails import QuoteTails
from datasources.live.resumption import Resumption
from datasources.live.tail_events import (
    RangeChanged,
    ResetReason,
    TailEvent,
    Update,
    passing_key,
)
from datasources.live.tails import Tails
from market.buckets import grid
from market.instrument import Instrument, Series
from resolvers.candles import Asked, series_of
from resolvers.directory import Directory
from resolvers.live import Shown


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
    reached: CandleCursor | None = None
    """Where the catch-up ended."""

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
        self.reached = self.after
        async with self.live.tails.open(self.series, self.instrument) as (tail, followed):
            for event in await self.live.resumption.begin(tail, followed, self.after):
                self.reached = event.cursor
                yield event
            yield followed.status

    def told(self, place: object) -> bool:
        return isinstance(place, CandleCursor) and (
            self.reached is not None and self.reached.covers(place)
        )

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


def _place(event: TailEvent) -> CandleCursor | None:
    """Return up to where *event* tells of closed bars; None if it is about something else."""
    if isinstance(event, Status) or (isinstance(event, Update) and event.passing):
        return None
    return event.reached if isinstance(event, RangeChanged) else event.cursor


async def live_bars(
    directory: Directory, live: LiveSources, asked: Asked, after: str | None
) -> LiveBars:
    """Return the live bars that are meant. Raises what `series_of` raises, `BadInput`."""
    series, instrument = await series_of(directory, asked)
    grid(series)
    return LiveBars(live, series, instrument, None if after is None else CandleCursor.parse(after))
