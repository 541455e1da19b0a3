"""Drop bars that are older than they are kept, and note since when there are any.

A transaction deletes bars and draws the line before which they are gone, so that what was dropped
is never taken for what was never fetched. Each passes a bounded stretch of time. Only chunks that
are dropped whole go after their lines. See
`docs/decisions/0018-what-was-dropped-stays-dropped.md`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import asyncpg

from db.leading import leading
from db.lines import Level, Lines, cursors, lines_of
from db.listed import StoredSeries, stored_series
from market.clock import Clock
from market.errors import StoreUnavailable
from market.instrument import Listing
from market.retention import Retention
from market.timeframe import MINUTE_FRAME, Timeframe

log = logging.getLogger(__name__)

_LOCK = 0x6261_7267_7265_7465
"""The advisory lock of whoever drops: one at a time for all processes of a database."""
_STATEMENT = 300.0
"""Seconds that one statement may take; one drops a month of minutes at the most, or a chunk."""
_LOCK_WAIT = 30.0
_LOOK = 0.1
_MOST_SERIES = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LEVELS = "SELECT level, timeframe, computed_from FROM preaggregation_configs ORDER BY level"
_DRAWN = """
    SELECT series_id, level, (extract(epoch FROM since) * 1000)::bigint AS since
    FROM retained WHERE since > '-infinity'
"""
_BEGINNING = """
    SELECT (extract(epoch FROM least(
        (SELECT "timestamp" FROM bar WHERE series_id = $1 ORDER BY "timestamp" LIMIT 1),
        (SELECT lower(known) FROM series WHERE id = $1),
        (SELECT min(lower(known)) FROM retained WHERE series_id = $1)
    )) * 1000)::bigint
"""
_IN_CHUNKS = "SELECT to_regproc('chunks_before') IS NOT NULL"
_CHUNKS = "SELECT chunk, opens, ends FROM chunks_before($1)"
_OLDER_SNAPSHOTS = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND age(backend_xmin) >= age($1::text::xid))
"""


@dataclass(frozen=True, slots=True)
class _Past:
    """A series some of whose bars are past, and the aggregates that are made of it."""

    stored: StoredSeries
    levels: Sequence[Level]

    @property
    def id(self) -> int:
        return self.stored.id

    @property
    def timeframe(self) -> Timeframe:
        return self.stored.key.timeframe


class Pruner:
    """Drops from one database what *retention* does not keep, every now and then.

    *ages* says whether a listing's bars grow old by *clock*; those of a replay do not. Any number
    may run: one at a time drops, and another takes over where it ends.
    """

    def __init__(
        self,
        dsn: str,
        retention: Retention,
        *,
        clock: Clock,
        ages: Callable[[Listing], bool],
        every: float = 3600.0,
        patience: float = 60.0,
        application_name: str = "bargraph",
    ) -> None:
        """*patience*: seconds to wait for those who still read what is to be dropped whole."""
        self._dsn = dsn
        self._retention = retention
        self._clock = clock
        self._ages = ages
        self._every = every
        self._patience = patience
        self._application_name = application_name
        self._away = False
        self.bars = 0
        """Bars dropped since the start; those of whole chunks are not counted."""
        self.chunks = 0
        """Chunks of TimescaleDB dropped whole since the start."""
        self.postponed = 0
        """Series, and chunks, that the last pass had to leave for later."""
        self.failures = 0
        """Passes that failed since the start."""

    async def run(self) -> None:
        """Drop for ever. A store that is away, or a pass that fails, is tried again."""
        while True:
            try:
                await self.prune()
                self._note_back()
            except StoreUnavailable as away:
                self._note_away(away)
            except asyncpg.PostgresError as error:
                self.failures += 1
                log.warning("Old bars could not be dropped: %s", error)
            await asyncio.sleep(self._every)

    async def prune(self) -> bool:
        """Drop all that is past now; return False if another one is at it.

        Raises `StoreUnavailable`, and `asyncpg.PostgresError` for what the server refused.
        """
        async with leading(
            self._dsn,
            _LOCK,
            application_name=self._application_name,
            statement=_STATEMENT,
            lock_wait=_LOCK_WAIT,
        ) as connection:
            if connection is None:
                return False
            now = self._clock.now()
            await _Pass(self, connection, self._retention, now, self._patience).run(self._ages)
        return True

    def _note_away(self, away: StoreUnavailable) -> None:
        if not self._away:
            log.warning("Old bars are not dropped for now: %s", away)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.warning("Old bars are dropped again")
        self._away = False


class _Pass:
    """One pass over all series, at one instant, counted by *pruner*."""

    def __init__(
        self,
        pruner: Pruner,
        connection: asyncpg.Connection,
        retention: Retention,
        now: int,
        patience: float,
    ) -> None:
        self._pruner = pruner
        self._connection = connection
        self._retention = retention
        self._now = now
        self._patience = patience

    async def run(self, ages: Callable[[Listing], bool]) -> None:
        self._pruner.postponed = 0
        past = await self._past(ages)
        if await self._connection.fetchval(_IN_CHUNKS) and not await self._drop_chunks(past):
            # What is dropped whole need not be deleted bar by bar.
            return
        drawn = await self._drawn()
        for one in past:
            target = self._lines(one, self._now)
            before = drawn.get(one.id, {})
            if any(level not in before or before[level] < line for level, line in target.items()):
                with self._or_later(one.stored.key.listing.symbol):
                    await self._drop(one, target)

    async def _past(self, ages: Callable[[Listing], bool]) -> list[_Past]:
        """Return the series whose bars are not kept for ever."""
        levels = [
            Level(row["level"], Timeframe.parse(row["timeframe"]), row["computed_from"])
            for row in await self._connection.fetch(_LEVELS)
        ]
        return [
            _Past(one, levels if _is_rolled_up(one) else ())
            for one in await stored_series(self._connection, limit=_MOST_SERIES)
            if self._retention.period(one.key.timeframe) is not None and ages(one.key.listing)
        ]

    async def _drop(self, one: _Past, target: Lines) -> None:
        """Move the lines of a series to *target*, each step a transaction."""
        beginning = await self._connection.fetchval(_BEGINNING, one.id)
        end = max(target.values())
        for cursor in cursors(end if beginning is None else beginning, end, one.timeframe):
            self._pruner.bars += await self._connection.fetchval(
                "SELECT drop_bars($1, $2)", one.id, _array(self._lines(one, cursor))
            )

    async def _drop_chunks(self, past: Sequence[_Past]) -> bool:
        """Drop the chunks in which every bar is past; return False if that has to wait.

        A dropped chunk is gone for older snapshots as well. So lines are drawn first, and nothing
        is dropped before everybody who reads sees them.
        """
        whole = await self._whole_chunks(past)
        if whole and not await self._seen_by_all():
            self._pruner.postponed += len(whole)
            return False
        for chunk, own, opens, ends in whole:
            with self._or_later(chunk):
                await self._connection.execute(
                    "SELECT drop_whole_chunk($1, $2, $3, $4)", chunk, own, opens, ends
                )
                self._pruner.chunks += 1
        return True

    async def _whole_chunks(
        self, past: Sequence[_Past]
    ) -> list[tuple[str, list[int], datetime, datetime]]:
        """Draw lines at the ends of the chunks to be dropped, and return these, oldest first."""
        targets = {one.id: self._lines(one, self._now)[0] for one in past}
        newest = _moment(max(targets.values(), default=0))
        drawn = await self._drawn()
        whole = []
        for chunk, opens, ends in await self._connection.fetch(_CHUNKS, newest):
            cursor = (ends - _EPOCH) // timedelta(milliseconds=1)
            own = [one for one in past if targets[one.id] >= cursor]
            ids = [one.id for one in own]
            if await self._connection.fetchval("SELECT holds_others($1, $2, $3)", ids, opens, ends):
                continue
            ready = False
            with self._or_later(chunk):
                for one in own:
                    if drawn.get(one.id, {}).get(0, cursor - 1) < cursor:
                        await self._connection.execute(
                            "SELECT draw_lines($1, $2)", one.id, _array(self._lines(one, cursor))
                        )
                ready = True
            if not ready:
                break
            whole.append((chunk, ids, opens, ends))
        return whole

    async def _seen_by_all(self) -> bool:
        """Wait until no snapshot is older than what is committed now; False if it took too long."""
        xid = await self._connection.fetchval("SELECT pg_current_xact_id()::xid::text")
        given_up = monotonic() + self._patience
        while await self._connection.fetchval(_OLDER_SNAPSHOTS, xid):
            if monotonic() >= given_up:
                return False
            await asyncio.sleep(_LOOK)
        return True

    async def _drawn(self) -> dict[int, dict[int, int]]:
        """Return the lines that are drawn, by series."""
        drawn: dict[int, dict[int, int]] = {}
        for row in await self._connection.fetch(_DRAWN):
            drawn.setdefault(row["series_id"], {})[row["level"]] = row["since"]
        return drawn

    def _lines(self, one: _Past, cursor: int) -> Lines:
        return lines_of(self._retention, one.timeframe, one.levels, self._now, cursor=cursor)

    @contextmanager
    def _or_later(self, what: str) -> Iterator[None]:
        """Leave for later what is still needed, or locked by somebody for long."""
        try:
            yield
        except (asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.LockNotAvailableError) as error:
            self._pruner.postponed += 1
            log.info("Old bars of %s are dropped later: %s", what, error)


def _is_rolled_up(one: StoredSeries) -> bool:
    return one.key.timeframe == MINUTE_FRAME and one.facts.around_the_clock


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _array(lines: Lines) -> list[datetime | None]:
    """Return *lines* as `draw_lines` takes them."""
    return [_moment(lines[n]) if n in lines else None for n in range(max(lines) + 1)]
