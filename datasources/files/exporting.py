"""Write a series of the store to a file, page by page, as it stood at one instant.

What the provider gave is written as it is stored. Bars of a timeframe that is not stored are
computed from finer ones, and the file says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import asyncpg

from datasources.files.formats import Format, Writer, open_writer
from datasources.files.label import Label
from datasources.files.table import table_of
from datasources.history import BarHistory
from db.bar_pages import BarPages, ObservedBars, bar_pages
from db.listed import StoredSeries, reach
from db.stored import SeriesKey
from market.instrument import Series
from market.window import Spans, Window
from market.zones import ERA


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    label: Label
    bars: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The window asked for; where a side is None it ends with what there is."""

    since: int | None = None
    until: int | None = None


async def export_stored(
    pool: asyncpg.Pool,
    stored: StoredSeries,
    bounds: Bounds,
    *,
    kind: Format,
    to: Path | BinaryIO,
    advanced: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write the bars of *stored* as they are; *advanced* is told how many each time.

    The same bars give the same bytes. Raises `StoreUnavailable`.
    """
    ends = await reach(pool, stored.id)
    async with bar_pages(pool, stored.id) as series:
        window = _window(bounds, ends, series)
        label = Label(stored.key, stored.facts, window, series.state.known.clip(window))
        return await _write(label, series.pages(window), kind=kind, to=to, advanced=advanced)


async def export_computed(
    history: BarHistory,
    series: Series,
    stored: StoredSeries,
    bounds: Bounds,
    *,
    kind: Format,
    to: Path | BinaryIO,
    advanced: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write bars of *series*, computed from those of *stored*: whole ones only.

    Raises `StoreUnavailable`.
    """
    ends = await history.reach(series) or Window(0, 0)
    window = Window(
        ends.since if bounds.since is None else bounds.since,
        ends.until if bounds.until is None else bounds.until,
    )
    key = SeriesKey(series.listing, series.timeframe)
    label = Label(key, stored.facts, window, Spans(), computed=True)

    async def pages() -> AsyncIterator[ObservedBars]:
        async for stretch in history.bars(series, window):
            if len(stretch.bars):
                yield ObservedBars(stretch.bars, stretch.bars.updated)

    return await _write(label, pages(), kind=kind, to=to, advanced=advanced)


async def _write(
    label: Label,
    pages: AsyncIterator[ObservedBars],
    *,
    kind: Format,
    to: Path | BinaryIO,
    advanced: Callable[[int], None],
) -> Exported:
    if not isinstance(to, Path):
        with open_writer(kind, to, label) as writer:
            return Exported(label, await _copy(pages, writer, advanced))
    # A file under its own name is a whole one.
    part = to.with_name(f"{to.name}.part")
    with part.open("wb") as stream, open_writer(kind, stream, label) as writer:
        count = await _copy(pages, writer, advanced)
    await asyncio.to_thread(part.replace, to)
    return Exported(label, count)


async def _copy(
    pages: AsyncIterator[ObservedBars], writer: Writer, advanced: Callable[[int], None]
) -> int:
    count = 0
    async for page in pages:
        await asyncio.to_thread(_put, writer, page)
        count += len(page.bars)
        advanced(len(page.bars))
    return count


def _put(writer: Writer, page: ObservedBars) -> None:
    writer.write(table_of(page))


def _window(bounds: Bounds, ends: Window | None, series: BarPages) -> Window:
    """Return the window to write: without bounds all that is stored or known."""
    known = series.state.known
    sides = [ends] if ends is not None else []
    sides += [known.hull] if known else []
    since = min((side.since for side in sides), default=ERA.since)
    until = max((side.until for side in sides), default=ERA.since)
    return Window(
        since if bounds.since is None else bounds.since,
        until if bounds.until is None else bounds.until,
    )
