"""Past bars in order, the same from every place that has them: the store, a folder, a provider.

Whoever needs years of closed bars (a backtest, an export) asks here. What differs among the places
is a `Shelf`: which timeframes it holds, and pieces of them. `ShelfHistory` makes any series of them
by the rules that charts go by: minutes decide a bucket if all of it is told of, where they were
dropped an aggregate of them, else a native frame whose edges meet; whole bars only, and what cannot
be told is said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from datasources.compose import Stock, buckets_in, compose, select
from datasources.found import Base, Found
from datasources.plan import builds, matching_natives, native_grid
from datasources.views import coarsest_view
from db.listed import Dropped
from market.bars import Bars
from market.buckets import Buckets, grid
from market.errors import UnknownName
from market.instrument import Instrument, Listing, Series
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import Spans, Window
from market.zones import ERA
from plugins.base import HistoryOffer, NativeFrame

BATCH = 10_000
"""Bars that are asked of a shelf at once, and that one stretch holds at the most."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The closed bars that open in *window*, oldest first.

    Inside *told* a bucket without a bar had no trades, or lies outside trading hours. Of the rest
    of the window nothing is known here; *dropped* are the gaps in which there were bars that are
    not kept any more because of their age.
    """

    window: Window
    bars: Bars
    told: Spans
    dropped: Spans = field(default_factory=Spans)

    @property
    def gaps(self) -> Spans:
        """The part of the window of which nothing is known."""
        return Spans((self.window,)) - self.told


class BarHistory(Protocol):
    """Closed bars of the past, of any series that what is held can build."""

    async def instruments(self) -> Sequence[Instrument]:
        """Return what there are bars of, in a stable order."""
        ...

    async def reach(self, series: Series) -> Window | None:
        """Return the smallest window around all that is held to build *series*; None: nothing."""
        ...

    def bars(self, series: Series, window: Window) -> AsyncIterator[Stretch]:
        """Yield *window* in stretches that follow each other, each of `BATCH` bars at the most."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Closed bars of one timeframe, and the time for which they are the whole truth."""

    bars: Bars
    told: Spans


class Shelf(Protocol):
    """One place that holds bars."""

    async def instruments(self) -> Sequence[Instrument]:
        """Return what there are bars of, in a stable order."""
        ...

    async def instrument(self, listing: Listing) -> Instrument | None:
        """Return what is traded as *listing*, None where no bars of it are held."""
        ...

    async def frames(self, listing: Listing) -> Sequence[NativeFrame]:
        """Return the timeframes held of a listing, and the grids they stand on."""
        ...

    async def reach(self, listing: Listing, timeframe: Timeframe) -> Window | None:
        """Return the smallest window around all that is held of one timeframe."""
        ...

    async def piece(self, listing: Listing, timeframe: Timeframe, window: Window) -> Piece:
        """Return the bars of a window in which `BATCH` can open at the most."""
        ...


@runtime_checkable
class Ageing(Protocol):
    """A shelf whose bars are dropped because of their age, while aggregates may tell of them."""

    async def dropped(self, listing: Listing, timeframe: Timeframe) -> Dropped | None:
        """Return what was dropped of one timeframe, None where nothing was."""
        ...

    async def aggregated(self, listing: Listing, view: Timeframe, window: Window) -> Piece:
        """Return bars of an aggregate of the minutes, as `piece` does stored ones."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Sources:
    """What a series is built from, and what of that was dropped."""

    bases: Sequence[Base]
    instrument: Instrument
    offer: HistoryOffer
    dropped: Mapping[Base, Dropped]

    @property
    def past(self) -> Spans:
        """The time before which a base has no bars any more."""
        return Spans(Window(ERA.since, one.line) for one in self.dropped.values())


class ShelfHistory:
    """The history that one shelf holds, *batch* bars at a time."""

    def __init__(self, shelf: Shelf, *, batch: int = BATCH) -> None:
        self._shelf = shelf
        self._batch = batch

    async def instruments(self) -> Sequence[Instrument]:
        return await self._shelf.instruments()

    async def reach(self, series: Series) -> Window | None:
        """As in `BarHistory`. Raises `UnknownName` for a listing that is not held."""
        return await self._reach(series, await self._sources(series))

    async def kept_from(self, series: Series) -> int | None:
        """Return since when the oldest bars of *series* are kept, of which older ones were dropped.

        None where none were before those that are held. Raises `UnknownName` for a listing that is
        not held.
        """
        sources = await self._sources(series)
        held = await self._reach(series, sources)
        if held is None:
            return max((one.line for one in sources.dropped.values()), default=None)
        first = buckets_in(series, Spans.of(held.since, held.since + series.timeframe.nominal))
        lines: list[int] = []
        for base, dropped in sources.dropped.items():
            line: int | None = dropped.line
            if held.since < dropped.line:
                view = _view(series, base, dropped, first)
                line = None if view is None else dropped.lines.get(view)
            if line is not None and line <= held.since:
                lines.append(line)
        return max(lines, default=None)

    async def bars(self, series: Series, window: Window) -> AsyncIterator[Stretch]:
        """As in `BarHistory`. Raises `UnknownName` for a listing that is not held."""
        sources = await self._sources(series)
        held = await self._reach(series, sources)
        inner = Window(window.until, window.until) if held is None else window.clip(held)
        before = Window(window.since, window.until if inner.empty else inner.since)
        if not before.empty:
            yield Stretch(before, Bars.empty(), Spans(), sources.past.clip(before))
        if inner.empty:
            return
        finest = min(base.timeframe.nominal for base in sources.bases)
        width = max(series.timeframe.nominal, self._batch * finest)
        width = min(width, self._batch * series.timeframe.nominal)
        since = inner.since
        while since < inner.until:
            until = min(_opening(series, since + width), inner.until)
            turn = Window(since, until)
            buckets = buckets_in(series, Spans((turn,)))
            found, lost = await self._found(series, sources, buckets)
            missing = _open(buckets, found)
            gone = select(missing, lost.touches(missing.opens, missing.closes))
            yield Stretch(turn, found.bars, Spans((turn,)) - missing.spans, gone.spans)
            since = until
        if inner.until < window.until:
            yield Stretch(Window(inner.until, window.until), Bars.empty(), Spans())

    async def _sources(self, series: Series) -> _Sources:
        listing = series.listing
        instrument = await self._shelf.instrument(listing)
        if instrument is None:
            known = (one.symbol for one in await self._shelf.instruments())
            raise UnknownName("symbol", listing.symbol, known, field="symbol")
        frames = tuple(await self._shelf.frames(listing))
        bases = [
            Base(listing, frame.timeframe, native=False)
            for frame in frames
            if frame.timeframe == MINUTE_FRAME and series.timeframe.nominal >= MINUTE_FRAME.nominal
        ]
        natives = matching_natives(series, instrument, frames)
        bases += (Base(listing, frame.timeframe, native=True) for frame in natives)
        dropped: dict[Base, Dropped] = {}
        if isinstance(self._shelf, Ageing):
            for base in bases:
                one = await self._shelf.dropped(base.listing, base.timeframe)
                if one is not None:
                    dropped[base] = one
        return _Sources(bases, instrument, HistoryOffer(frames, BATCH), dropped)

    async def _reach(self, series: Series, sources: _Sources) -> Window | None:
        ends = [await self._shelf.reach(base.listing, base.timeframe) for base in sources.bases]
        ends += [
            told.hull
            for one in sources.dropped.values()
            for view, told in one.told.items()
            if view.nominal <= series.timeframe.nominal
        ]
        windows = [grid(series).reach(end) for end in ends if end is not None and not end.empty]
        return Spans(windows).hull if any(not window.empty for window in windows) else None

    async def _found(
        self, series: Series, sources: _Sources, buckets: Buckets
    ) -> tuple[Found, Spans]:
        """Return what is told of *buckets*, and the time whose bars were dropped for good."""
        found, lost = Found.nothing(), Spans()
        for base in sources.bases:
            left = _open(buckets, found)
            if base.native:
                fine = native_grid(base, sources.instrument, sources.offer)
                left = select(left, builds(fine, left))
            if len(left):
                found = found.merge(await self._built(series, base, left))
            if (dropped := sources.dropped.get(base)) is not None:
                gone = Spans.of(ERA.since, dropped.line)
                left = _open(buckets, found)
                left = select(left, left.opens < dropped.line)
                view = _view(series, base, dropped, left)
                if view is not None and len(left):
                    found = found.merge(await self._aggregated(series, base, view, left))
                    gone -= dropped.told[view]
                lost |= gone
        return found, lost

    async def _built(self, series: Series, base: Base, buckets: Buckets) -> Found:
        """Return those of *buckets* that *base* tells of whole."""
        pieces = [
            await self._shelf.piece(base.listing, base.timeframe, window)
            for window in self._turns(buckets, base.timeframe)
        ]
        bars, told = _joined(pieces)
        found = compose(series, buckets, Stock(base, bars, told, told, ERA.until))
        if base.timeframe != series.timeframe:
            return found
        # Nothing is to be computed, so nothing is rounded either.
        bars = bars.visible()
        whole = select(buckets, found.settled.contains(buckets.opens))
        return Found(bars.take(np.isin(bars.time, whole.opens)), found.settled, found.settled)

    async def _aggregated(
        self, series: Series, base: Base, view: Timeframe, buckets: Buckets
    ) -> Found:
        """Return those of *buckets* of which an aggregate of *base* tells whole."""
        assert isinstance(self._shelf, Ageing)
        pieces = [
            await self._shelf.aggregated(base.listing, view, window)
            for window in self._turns(buckets, view)
        ]
        bars, told = _joined(pieces)
        return compose(series, buckets, Stock(base, bars, told, told, ERA.until))

    def _turns(self, buckets: Buckets, timeframe: Timeframe) -> Iterator[Window]:
        """Yield the time around *buckets* in windows in which a batch can open at the most."""
        hull, width = buckets.hull, self._batch * timeframe.nominal
        for since in range(hull.since, hull.until, width):
            yield Window(since, min(since + width, hull.until))


def _view(series: Series, base: Base, dropped: Dropped, buckets: Buckets) -> Timeframe | None:
    """Return the aggregate that makes up *buckets* where *base* was dropped, None if none does."""
    longest = series.timeframe.nominal
    return coarsest_view(tuple(dropped.told), series, base, buckets, longest=longest)


def _open(buckets: Buckets, found: Found) -> Buckets:
    """Return those of *buckets* of which nothing settled was *found* yet."""
    return select(buckets, ~found.settled.contains(buckets.opens))


def _joined(pieces: Sequence[Piece]) -> tuple[Bars, Spans]:
    """Return the bars of *pieces* in order, and the time they tell of."""
    told = Spans(span for piece in pieces for span in piece.told)
    return Bars.concat([piece.bars for piece in pieces]), told


def _opening(series: Series, time: int) -> int:
    """Return the first opening of a bucket at or after *time*, *time* between sessions."""
    bucket = grid(series).at(time)
    return bucket.until if bucket is not None and bucket.since < time else time
