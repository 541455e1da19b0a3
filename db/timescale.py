"""Keep TimescaleDB's aggregates close behind the minutes: refresh what was written below them.

Answers do not depend on it: what is not refreshed bears a mark, and is read from finer bars. See
`docs/decisions/0010-timescale.md`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import asyncpg

from db.leading import leading
from market.errors import StoreUnavailable

log = logging.getLogger(__name__)

CHANNEL = "bargraph_stale"
_LOCK = 0x6261_7267_7265_6672
"""The advisory lock of whoever refreshes: one at a time for all processes of a database."""
_MARKS_AT_ONCE = 100_000
_RANGES_AT_ONCE = 16
_STATEMENT = 3600.0
"""Seconds one refresh of one window may take."""
_GATHER = 1.0
"""Seconds between the first mark and the refresh, in which more marks may come."""
# The whole window is one transaction: batches that begin with the newest, as is TimescaleDB's
# habit, would move the watermark past time that is not materialized yet.
_OPTIONS = """'{"buckets_per_batch": 0}'"""
# Below its line, minutes may be gone: marks there stay, or are taken away by whoever drops minutes.
_MARKS = """
    SELECT id, since, until FROM stale
    WHERE since >= (SELECT since FROM refreshable WHERE level = 1) ORDER BY id LIMIT $1
"""
_WINDOWS = """
    SELECT w.aggregate, greatest(w.opens, r.since) AS opens, w.ends, w.forced
    FROM refresh_windows($1, $2, $3) WITH ORDINALITY w
    JOIN refreshable r USING (aggregate)
    WHERE w.ends > r.since ORDER BY w.ordinality
"""
_STANDING = """
    SELECT count(s.id) AS marks,
           coalesce(extract(epoch FROM now() - min(s.marked_at)), 0)::float8 AS oldest,
           r.since > '-infinity' AS alone,
           (SELECT count(*) FROM timescaledb_information.job_stats s
            JOIN timescaledb_information.jobs j USING (job_id)
            WHERE j.hypertable_schema = current_schema() AND j.scheduled
              AND s.last_run_status = 'Failed') AS failing,
           (SELECT count(*) FROM preaggregation_configs p
            LEFT JOIN timescaledb_information.jobs j
              ON j.hypertable_schema = current_schema()
             AND j.hypertable_name = p.continuous_aggregate
             AND j.proc_name = 'policy_refresh_continuous_aggregate' AND j.scheduled
            LEFT JOIN timescaledb_information.job_stats s ON s.job_id = j.job_id
            WHERE s.last_successful_finish IS NULL
               OR s.last_run_status = 'Failed'
               OR s.last_successful_finish < now() - 2 * j.schedule_interval) AS lagging
    FROM refreshable r LEFT JOIN stale s ON s.since >= r.since
    WHERE r.level = 1 GROUP BY r.since
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the aggregates are behind, as last seen.

    *marks*: written ranges that are not refreshed; the oldest is *oldest* seconds old.
    *failing_jobs*: of TimescaleDB, those that failed when they last ran. *lagging*: aggregates
    whose own job does not keep up, so that they are carried on from here. *alone*: minutes were
    dropped, so TimescaleDB has no such jobs any more.
    """

    marks: int = 0
    oldest: float = 0.0
    failing_jobs: int = 0
    lagging: int = 0
    alone: bool = False

    @property
    def onward(self) -> bool:
        """Whether the aggregates are to be carried on from here."""
        return self.alone or self.lagging > 0


class Refresher:
    """Refreshes the aggregates of one database, soon after writes and every now and then.

    Any number may run: one at a time refreshes, and another takes over where it ends.
    """

    def __init__(
        self, dsn: str, *, every: float = 60.0, application_name: str = "bargraph"
    ) -> None:
        self._dsn = dsn
        self._every = every
        self._application_name = application_name
        self._away = False
        self.standing = Standing()
        self.refreshes = 0
        self.failures = 0

    async def run(self) -> None:
        """Refresh for ever. A store that is away, or a refresh that fails, is tried again."""
        while True:
            try:
                async with self._leading() as connection:
                    self._note_back()
                    if connection is not None:
                        await self._lead(connection)
            except StoreUnavailable as away:
                self._note_away(away)
            await asyncio.sleep(self._every)

    async def refresh(self, *, onward: bool = True) -> bool:
        """Refresh all that bears a mark now; return False if another one is at it.

        With *onward* each aggregate is carried on to the newest bucket that may be materialized.
        Raises `StoreUnavailable`, and `asyncpg.PostgresError` for a refresh that failed.
        """
        async with self._leading() as connection:
            if connection is None:
                return False
            try:
                while await self._pass(connection, onward=onward):
                    pass
            except asyncpg.LockNotAvailableError:
                return False
            await self._look(connection)
        return True

    async def _lead(self, connection: asyncpg.Connection) -> None:
        marked = asyncio.Event()
        await connection.add_listener(CHANNEL, lambda *_: marked.set())
        while True:
            started = monotonic()
            marked.clear()
            more = False
            try:
                await self._look(connection)
                more = await self._pass(connection, onward=self.standing.onward)
                await self._look(connection)
            except asyncpg.LockNotAvailableError:
                log.info("TimescaleDB itself refreshes an aggregate; it is left to that for now")
            except asyncpg.PostgresError as error:
                if connection.is_closed():
                    raise
                self.failures += 1
                log.warning("An aggregate could not be refreshed: %s", error)
            took = monotonic() - started
            if not more:
                await _either(marked, self._every)
            # At most half of the time goes into refreshing.
            await asyncio.sleep(max(_GATHER, took))

    async def _pass(self, connection: asyncpg.Connection, *, onward: bool) -> bool:
        """Refresh what bears a mark, and take away these marks; return whether there are more."""
        # No minutes are dropped meanwhile that a refresh is about to read.
        await connection.execute("SELECT pg_advisory_lock(refresh_lock())")
        try:
            return await self._refresh_marked(connection, onward=onward)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock(refresh_lock())")

    async def _refresh_marked(self, connection: asyncpg.Connection, *, onward: bool) -> bool:
        marks = await connection.fetch(_MARKS, _MARKS_AT_ONCE)
        if not marks and not onward:
            return False
        ranges = coalesced([(mark["since"], mark["until"]) for mark in marks])
        windows = await connection.fetch(
            _WINDOWS, [since for since, _ in ranges], [until for _, until in ranges], onward
        )
        for name, opens, ends, forced in windows:
            # What CALL is given, it cannot take as parameters of a prepared statement.
            await connection.execute(
                f"CALL refresh_continuous_aggregate('{name}', '{opens}'::timestamptz, "
                f"'{ends}'::timestamptz, force => {forced}, options => {_OPTIONS})",
                timeout=_STATEMENT,
            )
            self.refreshes += 1
        # Not those that came since: the refresh may have missed what they stand for.
        await connection.execute(
            "DELETE FROM stale WHERE id = ANY ($1)", [mark["id"] for mark in marks]
        )
        return len(marks) == _MARKS_AT_ONCE

    async def _look(self, connection: asyncpg.Connection) -> None:
        row = await connection.fetchrow(_STANDING)
        alone = row["alone"]
        lagging = 0 if alone else row["lagging"]
        standing = Standing(row["marks"], row["oldest"], row["failing"], lagging, alone)
        if standing.failing_jobs and not self.standing.failing_jobs:
            log.warning(
                "Jobs of TimescaleDB fail; its aggregates are refreshed from here instead "
                "(see timescaledb_information.job_stats)"
            )
        self.standing = standing

    def _leading(self) -> AbstractAsyncContextManager[asyncpg.Connection | None]:
        return leading(
            self._dsn, _LOCK, application_name=self._application_name, statement=_STATEMENT
        )

    def _note_away(self, away: StoreUnavailable) -> None:
        if not self._away:
            log.warning("The aggregates are not refreshed for now: %s", away)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.warning("The aggregates are refreshed again")
        self._away = False


def coalesced(
    ranges: Sequence[tuple[datetime, datetime]], at_most: int = _RANGES_AT_ONCE
) -> list[tuple[datetime, datetime]]:
    """Return at most so many ranges that cover *ranges*, oldest first; the widest holes stay."""
    joined: list[tuple[datetime, datetime]] = []
    for since, until in sorted(ranges):
        if joined and since <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], until))
        else:
            joined.append((since, until))
    holes = sorted((joined[n][0] - joined[n - 1][1] for n in range(1, len(joined))), reverse=True)
    narrowest = holes[at_most - 2] if len(holes) >= at_most else timedelta(0)
    result: list[tuple[datetime, datetime]] = []
    for since, until in joined:
        if result and (since - result[-1][1] < narrowest or len(result) == at_most):
            result[-1] = (result[-1][0], until)
        else:
            result.append((since, until))
    return result


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
