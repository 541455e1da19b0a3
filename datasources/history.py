"""Past bars in order, the same from every place that has them: the store, a folder, a provider.

Whoever needs years of closed bars (a backtest, an export) asks here. What differs among the places
is a `Shelf`: which timeframes it holds, and pieces of them. `ShelfHistory` makes any series of them
by the rules that charts go by: minutes decide a bucket if all of it is told of, else a native frame
whose edges meet; whole bars only, and what cannot be told is said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from datasources.compose import Stock, buckets_in, compose, select
from datasources.found import Base, Found
from datasources.plan import builds, matching_natives, native_grid
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
    of the window nothing is known here.
    """

    window: Window
    bars: Bars
    told: Spans

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


class ShelfHistory:
    """The history that one shelf holds, *batch* bars at a time."""

    def __init__(self, shelf: Shelf, *, batch: int = BATCH) -> None:
        self._shelf = shelf
        self._batch = batch

    async def instruments(self) -> Sequence[Instrument]:
        return await self._shelf.instruments()

    async def reach(self, series: Series) -> Window | None:
        """As in `BarHistory`. Raises `UnknownName` for a listing that is not held."""
        return await self._reach(series, (await self._sources(series))[0])

    async def bars(self, series: Series, window: Window) -> AsyncIterator[Stretch]:
        """As in `BarHistory`. Raises `UnknownName` for a listing that is not held."""
        bases, instrument, offer = await self._sources(series)
        held = await self._reach(series, bases)
        inner = Window(window.until, window.until) if held is None else window.clip(held)
        before = Window(window.since, window.until if inner.empty else inner.since)
        if not before.empty:
            yield Stretch(before, Bars.empty(), Spans())
        if inner.empty:
            return
        finest = min(base.timeframe.nominal for base in bases)
        width = max(series.timeframe.nominal, self._batch * finest)
        width = min(width, self._batch * series.timeframe.nominal)
        since = inner.since
        while since < inner.until:
            until = min(_opening(series, since + width), inner.until)
            turn = Window(since, until)
            buckets = buckets_in(series, Spans((turn,)))
            found = Found.nothing()
            for base in bases:
                left = select(buckets, ~found.settled.contains(buckets.opens))
                if base.native:
                    left = select(left, builds(native_grid(base, instrument, offer), left))
                if len(left):
                    found = found.merge(await self._built(series, base, left))
            missing = select(buckets, ~found.settled.contains(buckets.opens))
            yield Stretch(turn, found.bars, Spans((turn,)) - missing.spans)
            since = until
        if inner.until < window.until:
            yield Stretch(Window(inner.until, window.until), Bars.empty(), Spans())

    async def _sources(self, series: Series) -> tuple[list[Base], Instrument, HistoryOffer]:
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
        return bases, instrument, HistoryOffer(frames, BATCH)

    async def _reach(self, series: Series, bases: Sequence[Base]) -> Window | None:
        ends = [await self._shelf.reach(base.listing, base.timeframe) for base in bases]
        windows = [grid(series).reach(end) for end in ends if end is not None and not end.empty]
        return Spans(windows).hull if any(not window.empty for window in windows) else None

    async def _built(self, series: Series, base: Base, buckets: Buckets) -> Found:
        """Return those of *buckets* that *base* tells of whole."""
        hull, width = buckets.hull, self._batch * base.timeframe.nominal
        starts = range(hull.since, hull.until, width)
        pieces = [
            await self._shelf.piece(
                base.listing, base.timeframe, Window(since, min(since + width, hull.until))
            )
            for since in starts
        ]
        told = Spans(span for piece in pieces for span in piece.told)
        bars = Bars.concat([piece.bars for piece in pieces])
        found = compose(series, buckets, Stock(base, bars, told, told, ERA.until))
        if base.timeframe != series.timeframe:
            return found
        # Nothing is to be computed, so nothing is rounded either.
        bars = bars.visible()
        whole = select(buckets, found.settled.contains(buckets.opens))
        return Found(bars.take(np.isin(bars.time, whole.opens)), found.settled, found.settled)


def _opening(series: Series, time: int) -> int:
    """Return the first opening of a bucket at or after *time*, *time* between sessions."""
    bucket = grid(series).at(time)
    return bucket.until if bucket is not None and bucket.since < time else time
