"""Answer from the candle store: aggregates, raw minutes and native bars, in one statement."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasources.compose import (
    Stock,
    allowed,
    buckets_in,
    closed_hours,
    compose,
    select,
)
from datasources.found import Base, Found, Head, Want
from datasources.plan import builds, native_grid, offer_of
from datasources.views import coarsest_view
from db.candles import CandleStore
from db.stored import SeriesKey, SeriesState, Wanted
from market.bars import Bars
from market.buckets import Buckets
from market.calendars import calendar
from market.errors import StoreUnavailable
from market.instrument import Series, Session
from market.timeframe import Timeframe
from market.window import Spans, Window
from plugins.registry import Registry

log = logging.getLogger(__name__)


def key_of(base: Base) -> SeriesKey:
    return SeriesKey(base.listing, base.timeframe)


def head_of(state: SeriesState, window: Window | None = None) -> Head:
    """Return where a base stands; *window* is that in which its bars were read with the state."""
    return Head(
        state.id,
        state.position,
        state.generation,
        state.known,
        state.minutes_from,
        state.retained_from,
        Spans() if window is None else state.rolled.clip(window),
    )


_NEVER = -(2**62)
_WORTH_MAKING = 7
"""Stored bars a bucket; for fewer, reading them is as fast (decision record 10)."""


@dataclass(frozen=True, slots=True)
class Read:
    """Bars of one base that open in *window*, through a view or (None) as they are stored.

    With *buckets*, whose hull *window* is, the store makes one bar of the stored ones in each.
    """

    base: Base
    view: Timeframe | None
    window: Window
    buckets: Buckets | None = None


def made_by_store(
    series: Series, base: Base, view: Timeframe | None, buckets: Buckets
) -> Buckets | None:
    """Return what the store had best make bars for itself; None: let it send its own.

    Every stored bar inside counts: for days and longer of a session these are the sessions, of
    which the buckets are made then. None where a bucket ends within a session.
    """
    if view is not None or base.native:
        return None
    if series.timeframe.nominal < _WORTH_MAKING * base.timeframe.nominal:
        return None
    rules = calendar(series.calendar)
    if series.session is Session.ALL or rules.around_the_clock or series.timeframe.step:
        return buckets
    opens, closes = rules.sessions(buckets.hull, series.session)
    first = np.searchsorted(buckets.closes, opens, side="right")
    touched = np.searchsorted(buckets.opens, closes) > first
    opens, closes, first = opens[touched], closes[touched], first[touched]
    if (opens < buckets.opens[first]).any() or (closes > buckets.closes[first]).any():
        return None
    return Buckets(opens, closes)


class Aggregates:
    """The second link of the chain. While the store is away it finds nothing and says so once."""

    name = "aggregates"

    def __init__(self, store: CandleStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._views: tuple[Timeframe, ...] = ()
        self._away = False

    @property
    def available(self) -> bool:
        """Whether the store answered when it was last asked."""
        return not self._away

    @property
    def views(self) -> tuple[Timeframe, ...]:
        """The views the store has, the coarsest first; empty until `learn_views` could ask."""
        return self._views

    async def fetch(self, wants: Sequence[Want], so_far: Sequence[Found]) -> list[Found]:
        """Return what the store alone can say: whole buckets in settled time, by promise 5."""
        found = [Found.nothing() for _ in wants]
        if not await self.learn_views():
            return found
        bases = [want.bases for want in wants]
        minutes_from = [_NEVER for _ in wants]
        native = [Spans() for _ in wants]
        lost = [Spans() for _ in wants]
        for depth in range(max(map(len, bases), default=0)):
            turn: list[int] = []
            runs: list[Buckets] = []
            reads: list[Read] = []
            for i, want in enumerate(wants):
                if depth < len(bases[i]):
                    left = buckets_in(want.series, want.spans - found[i].settled)
                    if depth and not bases[i][0].native:
                        # Where minutes decide, what they lack is the provider's to say, unless it
                        # was dropped.
                        others = left.opens < minutes_from[i]
                        left = select(left, others | lost[i].touches(left.opens, left.closes))
                    # What a coarser native frame can build is its to decide, stored or not: else
                    # an answer would depend on what was asked for before.
                    if native[i]:
                        left = select(left, ~native[i].contains(left.opens))
                    buckets, view = self.buildable(want, bases[i][depth], left)
                    if bases[i][depth].native:
                        native[i] |= buckets.spans
                    if len(buckets):
                        turn.append(i)
                        runs.append(buckets)
                        made = made_by_store(want.series, bases[i][depth], view, buckets)
                        reads.append(Read(bases[i][depth], view, buckets.hull, made))
            answers = await self.read(reads)
            for i, buckets, read, (head, bars) in zip(turn, runs, reads, answers, strict=True):
                if head is None or head.known is None:
                    continue
                want = wants[i]
                if not read.base.native and head.minutes_from is not None:
                    minutes_from[i] = head.minutes_from
                if not read.base.native and (gone := head.lost):
                    lost[i] = gone - closed_hours(want.series, gone.hull.clip(read.window))
                may = allowed(want.series, read.base, buckets, head.minutes_from)
                told = head.known | head.rolled
                stock = Stock(read.base, bars, told, told, want.now, head)
                part = compose(want.series, select(buckets, may), stock)
                # What only the store says is not fresh: nobody asked the provider just now.
                lasting = part.bars.inside(part.settled)
                settled = Found(lasting, part.settled, part.settled, heads=part.heads)
                found[i] = found[i].merge(settled)
        return found

    async def learn_views(self) -> bool:
        """Ask once which views the store has; return whether it could be asked."""
        if not self._views:
            try:
                self._views = await self._store.views()
            except StoreUnavailable as away:
                self.note_away(away)
                return False
        return True

    def buildable(
        self, want: Want, base: Base, buckets: Buckets, *, longest: int = 2**62
    ) -> tuple[Buckets, Timeframe | None]:
        """Return those of *buckets* that *base* can build, and the view to read them through.

        The view's buckets are at most *longest* milliseconds long; None: read the base itself.
        """
        if base.native:
            provider = self._registry.get(want.series.listing.provider)
            if (offer := offer_of(provider, want.instrument)) is not None:
                fine = native_grid(base, want.instrument, offer)
                buckets = select(buckets, builds(fine, buckets))
        return buckets, coarsest_view(self._views, want.series, base, buckets, longest=longest)

    async def read(self, reads: Sequence[Read]) -> list[tuple[Head | None, Bars]]:
        """Return where each base stands and its bars; nothing while the store is away."""
        if not reads:
            return []
        try:
            answers = await self._store.snapshot(
                [Wanted(key_of(read.base), read.window, read.view, read.buckets) for read in reads]
            )
        except StoreUnavailable as away:
            self.note_away(away)
            return [(None, Bars.empty()) for _ in reads]
        self.note_back()
        return [
            (head_of(answer.state, read.window) if answer.state else None, answer.bars)
            for read, answer in zip(reads, answers, strict=True)
        ]

    def note_away(self, reason: StoreUnavailable) -> None:
        """Log once, until it is back, that the store is out of reach."""
        if not self._away:
            log.warning("The candle store is away, going on with cache and providers: %s", reason)
        self._away = True

    def note_back(self) -> None:
        if self._away:
            log.warning("The candle store is back")
        self._away = False
