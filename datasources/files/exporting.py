"""Write a series of the store to a file, page by page, as it stood at one instant.

What the provider gave is written as it is stored. Bars of a timeframe that is not stored are
computed from finer ones, and the file says so. Where bars were dropped because of their age, what
is left of their aggregates is written.

No transaction waits for whoever takes an export: others would wait behind the locks that it holds.
What goes to a pipe is written to the temporary folder first.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryFile
from typing import BinaryIO

import asyncpg

from datasources.files.formats import Format, Writer, open_writer
from datasources.files.label import Label
from datasources.files.table import table_of
from datasources.history import ShelfHistory
from datasources.shelves import StoreShelf
from db.bar_pages import BarPages, ObservedBars, at_one_instant, bar_pages
from db.listed import StoredSeries
from db.stored import SeriesKey
from market.instrument import Series
from market.window import Spans, Window
from market.zones import ERA


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    *complete_from*: of the bars asked for that open before then some were dropped because of their
    age, and no aggregate tells of them any more; None where none were.
    """

    label: Label
    bars: int
    complete_from: int | None = None


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
    async with _handed_to(to) as stream, bar_pages(pool, stored.id) as series:
        window = _window(bounds, await series.reach(), series)
        known = series.state.known.clip(window)
        rows = await series.count(window)
        label = Label(stored.key, stored.facts, window, known, rows=rows)
        with open_writer(kind, stream, label) as writer:
            count = await _copy(series.pages(window), writer, advanced)
    line = series.state.retained_from
    is_lost = line is not None and (bounds.since is None or bounds.since < line)
    return Exported(label, count, line if is_lost else None)


async def export_computed(
    pool: asyncpg.Pool,
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
    async with _handed_to(to) as stream, at_one_instant(pool) as reads:
        history = ShelfHistory(StoreShelf(reads))
        ends = await history.reach(series) or Window(0, 0)
        window = Window(
            ends.since if bounds.since is None else bounds.since,
            ends.until if bounds.until is None else bounds.until,
        )
        complete_from = await history.kept_from(series) if bounds.since is None else None
        key = SeriesKey(series.listing, series.timeframe)
        label = Label(key, stored.facts, window, Spans(), computed=True)

        async def pages() -> AsyncIterator[ObservedBars]:
            nonlocal complete_from
            async for stretch in history.bars(series, window):
                if stretch.dropped:
                    complete_from = stretch.dropped.hull.until
                if len(stretch.bars):
                    yield ObservedBars(stretch.bars, stretch.bars.updated)

        with open_writer(kind, stream, label) as writer:
            count = await _copy(pages(), writer, advanced)
    return Exported(label, count, complete_from)


@asynccontextmanager
async def _handed_to(to: Path | BinaryIO) -> AsyncIterator[BinaryIO]:
    """Yield a file that takes what is written at full speed; at the end *to* has it."""
    if isinstance(to, Path):
        # A file under its own name is a whole one.
        part = to.with_name(f"{to.name}.part")
        with part.open("wb") as stream:
            yield stream
        await asyncio.to_thread(part.replace, to)
    elif _is_regular(to):
        yield to
    else:
        with TemporaryFile() as stream:
            yield stream
            await asyncio.to_thread(_pass_on, stream, to)


def _is_regular(stream: BinaryIO) -> bool:
    try:
        return S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return False


def _pass_on(stream: BinaryIO, to: BinaryIO) -> None:
    stream.seek(0)
    shutil.copyfileobj(stream, to)
    to.flush()


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
