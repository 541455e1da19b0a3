"""Take the bars of a file into the store, batch by batch, so that it can be interrupted anywhere.

Writing a batch twice changes nothing, so the place reached is noted after the batch is stored. What
is known of time without bars is said at the end, when every row was seen.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasources.aggregates import head_of
from datasources.backfill.holes import decided_from
from datasources.files.placing import Placement
from datasources.files.reading import BarFile, Batch, Position, Reader
from datasources.files.report import Report, still_there
from datasources.files.sifting import Sieve, Sifted
from datasources.found import Base, Head
from db.candles import CandleStore
from db.imports import ImportProgress
from db.stored import SeriesState, Write
from market.bars import Bars
from market.clock import Clock
from market.instrument import Series
from market.timeframe import MINUTE_FRAME
from market.window import Spans, Window
from market.zones import ERA

_COMPARED = ("open", "high", "low", "close", "volume", "vwap", "trades")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user states of a file that does not say it itself.

    *complete*: between its first and its last bar nothing is missing, so a time without a bar had
    no trades. *observed_at*: when the provider was asked for these bars (ms).
    """

    complete: bool = False
    observed_at: int | None = None


@dataclass(slots=True)
class Progress:
    """How far a file has come. *kept*: rows that newer answers in the store stood against."""

    offset: int = 0
    line: int = 0
    taken: int = 0
    refused: int = 0
    kept: int = 0
    report_size: int = 0
    first: int | None = None
    last: int | None = None
    last_close: int | None = None
    doubted_since: int | None = None
    doubts: list[tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a file: rows by what became of them, and the time that is known from now on."""

    taken: int
    refused: int
    kept: int
    known: Spans
    resumed_at: int
    """The line after which an interrupted import went on, 0 for one that began."""

    @property
    def seen(self) -> int:
        """The rows that the file holds, refused ones among them."""
        return self.taken + self.refused


class Importer:
    """Imports files one after the other.

    *announce* tells other processes where a base stands, which voids what they cached.
    """

    def __init__(
        self,
        store: CandleStore,
        progress: ImportProgress,
        *,
        clock: Clock,
        announce: Callable[[Mapping[Base, Head]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._progress = progress
        self._clock = clock
        self._announce = announce

    async def take_in(
        self,
        reader: Reader,
        placement: Placement,
        *,
        choices: Choices,
        report: Path,
        advanced: Callable[[int], None] = lambda _: None,
    ) -> Imported:
        """Import a file and write what is refused to *report*; *advanced* is told each offset.

        Raises `UnreadableFile`, `StoreUnavailable`. What was stored by then stays, and the next
        import of the same file with the same choices goes on from there; it begins anew if the
        report lost what was written to it, or is to be written elsewhere.
        """
        job = await asyncio.to_thread(_job, reader.file.path, placement, choices)
        kept = await self._progress.get(job)
        at = Progress(**(kept or {}))
        if not await asyncio.to_thread(still_there, report, at.report_size):
            at = Progress()
        resumed_at = at.line
        now = self._clock.now()
        (state,) = await self._store.states([placement.key])
        sieve = Sieve(
            placement,
            name=reader.file.path.name,
            now=now,
            observed_at=choices.observed_at,
            kept_from=state.retained_from if state else None,
            last=at.last,
            doubts=Spans(Window(since, until) for since, until in at.doubts or ()),
        )
        sieve.doubted_since = at.doubted_since
        batches = reader.batches(Position(at.offset, at.line))
        with Report(report, size=at.report_size) as refusals:
            while (batch := await asyncio.to_thread(_next, batches)) is not None:
                sifted = await asyncio.to_thread(sieve.sift, batch)
                refusals.add(sifted.refused)
                if len(sifted.bars):
                    at.kept += await self._keep(placement, sifted)
                _advance(at, batch, sifted, sieve, refusals)
                await self._progress.keep(job, asdict(at), now=now)
                advanced(at.offset)
        known = _known(reader.file, choices, at, now) - sieve.all_doubts()
        await self._settle(placement, known, now)
        await self._progress.end(job, now=now)
        return Imported(at.taken, at.refused, at.kept, known, resumed_at)

    async def _keep(self, placement: Placement, sifted: Sifted) -> int:
        """Store bars, and return how many of them newer answers stood against."""
        observed_at = int(sifted.observed.max())
        write = Write(
            placement.key, placement.facts, sifted.bars, observed_at, observed=sifted.observed
        )
        (written,) = await self._store.write([write])
        await self._tell(placement, written.state)
        return _unlike(sifted.bars, written.bars)

    async def _settle(self, placement: Placement, known: Spans, now: int) -> None:
        """Store what is known, and let minutes decide coarser bars as far back as they now reach.

        They reach further back only where all of them are known up to those that decide already.
        Where none decide yet, `Beginnings` finds noted what was imported.
        """
        if not known:
            return
        key = placement.key
        if key.timeframe == MINUTE_FRAME:
            # Before the rest: whoever finds that known finds out whose it is.
            await self._store.note_imported(key, placement.facts, known)
        write = Write(key, placement.facts, Bars.empty(), now, settled=known)
        (written,) = await self._store.write([write])
        state = written.state
        if key.timeframe == MINUTE_FRAME and state.minutes_from is not None:
            series = Series(key.listing, key.timeframe, calendar=placement.calendar_name)
            imported = await self._store.imported(state.id)
            since = decided_from(series, state.known, state.minutes_from, imported=imported)
            if since < state.minutes_from:
                state = await self._store.set_minutes_from(state.id, since)
        await self._tell(placement, state)

    async def _tell(self, placement: Placement, state: SeriesState) -> None:
        key = placement.key
        native = key.timeframe != MINUTE_FRAME
        await self._announce({Base(key.listing, key.timeframe, native=native): head_of(state)})


def _advance(at: Progress, batch: Batch, sifted: Sifted, sieve: Sieve, refusals: Report) -> None:
    at.offset, at.line = batch.then.offset, batch.then.line
    at.taken += len(sifted.bars)
    at.refused += len(sifted.refused)
    at.report_size = refusals.size
    if len(sifted.bars):
        at.first = int(sifted.bars.time[0]) if at.first is None else at.first
        at.last_close = sifted.last_close
    at.last = sieve.last
    at.doubted_since = sieve.doubted_since
    at.doubts = [(span.since, span.until) for span in sieve.doubts]


def _known(file: BarFile, choices: Choices, at: Progress, now: int) -> Spans:
    """Return the time of which the file tells all, as far as it is over.

    A label that counts other rows proves that some are missing, whatever the user states.
    """
    if file.label is not None and file.label.rows is not None:
        return file.label.known_of(at.taken + at.refused).clip(Window(ERA.since, now))
    if choices.complete and at.first is not None and at.last_close is not None:
        return Spans.of(at.first, min(at.last_close, now))
    return Spans()


def _unlike(given: Bars, stored: Bars) -> int:
    """Return how many of *given* the store does not hold as they were given."""
    there = np.isin(given.time, stored.time)
    mine = given.take(there)
    theirs = stored.take(np.isin(stored.time, mine.time))
    other = np.zeros(len(mine), np.bool_)
    for name in _COMPARED:
        a, b = getattr(mine, name), getattr(theirs, name)
        other |= (a != b) & ~((a != a) & (b != b))  # noqa: PLR0124 - NaN
    return int((~there).sum() + other.sum())


def _next(batches: Iterator[Batch]) -> Batch | None:
    return next(batches, None)


def _job(path: Path, placement: Placement, choices: Choices) -> str:
    """Return a digest of what decides the outcome: every byte of the file, where to, and how."""
    with path.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256")
    whole.update(repr((placement, choices)).encode())
    return whole.hexdigest()
