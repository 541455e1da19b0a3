"""The places that hold past bars: the candle store, a folder of Parquet files, and a provider."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import asyncpg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasources.ask import Ask, ask_of
from datasources.files.label import Label, UnreadableFile
from datasources.files.naming import said_by_name
from datasources.files.parquet_files import ParquetReader
from datasources.files.placing import place_by_name
from datasources.files.table import READ_AS, TIME, Rows
from datasources.found import Base
from datasources.history import BATCH, Piece
from db.bar_pages import read_bars
from db.listed import Dropped, StoredSeries, dropped, levels, reach, stored_series
from db.stored import SeriesFacts, SeriesKey
from market.bars import NATIVE, Bars
from market.buckets import Grid
from market.calendars import calendar
from market.errors import UnknownName
from market.instrument import Instrument, InstrumentType, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import Spans, Window
from market.zones import ERA
from plugins.base import History, NativeFrame, Provider

log = logging.getLogger(__name__)


class StoreShelf:
    """What is stored, settled or not: a closed bar at hand is the provider's own word.

    Over a connection that shows one instant, all of it is as of then; over a pool, each piece as it
    stands when it is read. Where minutes were dropped, their aggregates tell of settled time alone:
    what else went into a bucket can no longer be seen.
    """

    def __init__(self, reads: asyncpg.Pool | asyncpg.Connection) -> None:
        self._reads = reads
        self._levels: dict[Timeframe, int] = {}

    async def instruments(self) -> Sequence[Instrument]:
        return _instruments((one.key, one.facts) for one in await stored_series(self._reads))

    async def instrument(self, listing: Listing) -> Instrument | None:
        held = await self._of(listing)
        return _instrument(listing, held[0].facts) if held else None

    async def frames(self, listing: Listing) -> Sequence[NativeFrame]:
        return [_frame(one.key.timeframe) for one in await self._of(listing)]

    async def reach(self, listing: Listing, timeframe: Timeframe) -> Window | None:
        one = await self._one(listing, timeframe)
        if one is None:
            return None
        ends = await reach(self._reads, one.id)
        state = (await read_bars(self._reads, one.key, Window(0, 0))).state
        known = Spans() if state is None else state.known
        return Spans((*known, *(() if ends is None else (ends,)))).hull

    async def piece(self, listing: Listing, timeframe: Timeframe, window: Window) -> Piece:
        key = SeriesKey(listing, timeframe)
        found = await read_bars(self._reads, key, window)
        if found.state is None:
            return Piece(Bars.empty(), Spans())
        around = {one.key: one.facts.around_the_clock for one in await self._of(listing)}
        own = _own_time(found.bars.visible(), _grid(timeframe, around.get(key, True)))
        return Piece(found.bars, found.state.known.clip(window) | own)

    async def dropped(self, listing: Listing, timeframe: Timeframe) -> Dropped | None:
        one = await self._one(listing, timeframe)
        return None if one is None else await dropped(self._reads, one.id)

    async def aggregated(self, listing: Listing, view: Timeframe, window: Window) -> Piece:
        self._levels = self._levels or await levels(self._reads)
        key = SeriesKey(listing, MINUTE_FRAME)
        found = await read_bars(self._reads, key, window, level=self._levels[view])
        if found.state is None:
            return Piece(Bars.empty(), Spans())
        return Piece(found.bars, (found.state.known | found.state.rolled).clip(window))

    async def _one(self, listing: Listing, timeframe: Timeframe) -> StoredSeries | None:
        held = (one for one in await self._of(listing) if one.key.timeframe == timeframe)
        return next(held, None)

    async def _of(self, listing: Listing) -> list[StoredSeries]:
        named = await stored_series(self._reads, provider=listing.provider, symbol=listing.symbol)
        return [one for one in named if one.key.listing == listing]


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a file: its number, and the window its bars open in."""

    path: Path
    number: int
    window: Window


@dataclass(frozen=True, slots=True)
class _Shelved:
    facts: SeriesFacts
    known: Spans
    groups: tuple[_Group, ...]


class FolderShelf:
    """A folder of Parquet files, each with a label or a name that says whose bars it holds."""

    def __init__(self, series: dict[SeriesKey, _Shelved]) -> None:
        self._series = series

    @classmethod
    async def open(cls, folder: Path) -> FolderShelf:
        """Look at every file of *folder*. Raises `UnreadableFile` for the first that is wrong."""
        return cls(await asyncio.to_thread(_look, folder))

    async def instruments(self) -> Sequence[Instrument]:
        return _instruments((key, one.facts) for key, one in self._series.items())

    async def instrument(self, listing: Listing) -> Instrument | None:
        held = (one.facts for key, one in self._series.items() if key.listing == listing)
        facts = next(held, None)
        return None if facts is None else _instrument(listing, facts)

    async def frames(self, listing: Listing) -> Sequence[NativeFrame]:
        return [_frame(key.timeframe) for key in self._series if key.listing == listing]

    async def reach(self, listing: Listing, timeframe: Timeframe) -> Window | None:
        one = self._series.get(SeriesKey(listing, timeframe))
        if one is None:
            return None
        return Spans((*one.known, *(group.window for group in one.groups))).hull

    async def piece(self, listing: Listing, timeframe: Timeframe, window: Window) -> Piece:
        one = self._series.get(SeriesKey(listing, timeframe))
        if one is None:
            return Piece(Bars.empty(), Spans())
        parts = [
            await asyncio.to_thread(_read, group, timeframe, window)
            for group in one.groups
            if not group.window.clip(window).empty
        ]
        bars = Bars.concat(parts)
        own = _own_time(bars, _grid(timeframe, one.facts.around_the_clock))
        return Piece(bars, one.known.clip(window) | own)


class ProviderShelf:
    """What a provider tells of its past. Meant for those that have it at hand, such as `sim`."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def instruments(self) -> Sequence[Instrument]:
        return await self._provider.symbols()

    async def instrument(self, listing: Listing) -> Instrument | None:
        for one in await self._provider.symbols():
            if (one.market, one.symbol) == (listing.market, listing.symbol):
                return one
        return None

    async def frames(self, listing: Listing) -> Sequence[NativeFrame]:
        offer = (await self._ask(listing, MINUTE_FRAME)).offer
        return () if offer is None else offer.frames

    async def reach(self, listing: Listing, timeframe: Timeframe) -> Window | None:
        if not isinstance(self._provider, History):
            return None
        first = await self._provider.first_time(listing, timeframe, ERA.since)
        ask = await self._ask(listing, timeframe)
        return None if first is None else Window(first, ask.closed_until(ask.provider.clock.now()))

    async def piece(self, listing: Listing, timeframe: Timeframe, window: Window) -> Piece:
        ask = await self._ask(listing, timeframe)
        now = self._provider.clock.now()
        over = window.clip(Window(ERA.since, ask.closed_until(now)))
        limit = BATCH if ask.offer is None else ask.offer.page_of(timeframe)
        step = limit * timeframe.nominal
        bars: list[Bars] = []
        told: list[Window] = []
        for since in range(over.since, over.until, step):
            page = await ask.page(Window(since, min(since + step, over.until)), now)
            bars.append(ask.flagged(page.bars, now).closed())
            told += page.covered
        return Piece(Bars.concat(bars), Spans(told))

    async def _ask(self, listing: Listing, timeframe: Timeframe) -> Ask:
        instrument = await self.instrument(listing)
        if instrument is None:
            raise UnknownName("symbol", listing.symbol, field="symbol")
        native = timeframe != MINUTE_FRAME
        return ask_of(Base(listing, timeframe, native=native), instrument, self._provider)


def _instruments(series: Iterable[tuple[SeriesKey, SeriesFacts]]) -> list[Instrument]:
    """Return what stored series tell of their instruments, each once."""
    found: dict[tuple[str, str, str], Instrument] = {}
    for key, facts in series:
        listing = key.listing
        name = (listing.provider, listing.market, listing.symbol)
        found.setdefault(name, _instrument(listing, facts))
    return [found[name] for name in sorted(found)]


def _instrument(listing: Listing, facts: SeriesFacts) -> Instrument:
    around = facts.around_the_clock
    return Instrument(
        *(listing.provider, listing.market, listing.symbol),
        InstrumentType.SPOT if around else InstrumentType.STOCK,
        base=facts.base,
        quote=facts.quote,
        calendar="24/7" if around else "XNYS",
    )


def _frame(timeframe: Timeframe) -> NativeFrame:
    """Return a frame whose days begin where the instrument's calendar says."""
    return NativeFrame(timeframe, timezone=None)


def _grid(timeframe: Timeframe, around_the_clock: bool) -> Grid:
    rules = calendar("24/7" if around_the_clock else "XNYS")
    zone = "UTC" if timeframe == MINUTE_FRAME else rules.zone
    return Grid(timeframe, zone=zone, calendar=rules)


def _own_time(bars: Bars, grid: Grid) -> Spans:
    """Return the time of the buckets that *bars* fill."""
    if not len(bars):
        return Spans()
    buckets = grid.opening_in(Window(int(bars.time[0]), int(bars.time[-1]) + 1))
    filled = np.isin(buckets.opens, bars.time)
    return Spans.from_edges(buckets.opens[filled], buckets.closes[filled])


def _look(folder: Path) -> dict[SeriesKey, _Shelved]:
    found: dict[SeriesKey, _Shelved] = {}
    for path in sorted(folder.glob("*.parquet")):
        file = ParquetReader(path).file
        label = file.label or _label_by_name(path)
        if label.computed:
            continue
        if label.known and label.rows is None:
            log.warning(
                "%s is an export of an older release, which does not count its rows: where it has "
                "no bar, it is not known whether there was none. Export it again",
                path.name,
            )
        groups = _groups(path)
        before = found.get(label.key)
        if before is not None:
            groups = tuple(sorted((*before.groups, *groups), key=lambda one: one.window))
        for one, other in pairwise(groups):
            if other.window.since < one.window.until:
                raise UnreadableFile(path.name, "it holds times that stand before, or elsewhere")
        known = label.known_of(file.size) | (Spans() if before is None else before.known)
        found[label.key] = _Shelved(label.facts, known, groups)
    return found


def _label_by_name(path: Path) -> Label:
    placement = place_by_name(said_by_name(path.stem), name=path.name)
    return Label(placement.key, placement.facts, ERA, Spans())


def _groups(path: Path) -> tuple[_Group, ...]:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.names.index(TIME)
        found = []
        for number in range(file.metadata.num_row_groups):
            held = file.metadata.row_group(number).column(column).statistics
            if held is None or not held.has_min_max:
                raise UnreadableFile(path.name, f"it says not from when to when its {TIME} is")
            found.append(_Group(path, number, Window(held.min, held.max + 1)))
    return tuple(found)


def _read(group: _Group, timeframe: Timeframe, window: Window) -> Bars:
    with pq.ParquetFile(group.path) as file:
        names = [name for name in file.schema_arrow.names if name in READ_AS.names]
        schema = pa.schema([READ_AS.field(name) for name in names])
        table = file.read_row_group(group.number, columns=names).select(names).cast(schema)
        table = table.combine_chunks()
    rows = Rows.of(np.arange(1, table.num_rows + 1), table)
    time = rows.columns[TIME].astype(np.int64)
    marks, _ = rows.sources(0 if timeframe == MINUTE_FRAME else NATIVE)
    updated = rows.ints("updated_ms", time)
    return rows.bars(time=time, updated=updated, marks=marks).checked().slice(window)
