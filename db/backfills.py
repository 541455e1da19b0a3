"""Backfill jobs as rows: added once, held by one runner at a time, counted, ended, and pruned.

The database's clock decides about leases and stamps rows, because all processes share it. Whatever
puts PostgreSQL out of reach raises `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

import asyncpg

from db import backfill_statements as sql
from db.binary import clipped
from db.errors import store_failures
from market.errors import BargraphError
from market.instrument import Adjustment, Listing
from market.timeframe import Timeframe
from market.window import Window

MOST_UNFINISHED = 200
"""Jobs that may wait or run at a time, those left out that wait for another provider that fails."""
MOST_ENDED = 2_000
"""Jobs that are kept after they ended."""


class BackfillState(StrEnum):
    """Where a job stands; the last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self in _OVER


_OVER = (BackfillState.DONE, BackfillState.CANCELLED, BackfillState.FAILED)


@dataclass(frozen=True, slots=True)
class Backfill:
    """A job as its row tells it.

    *timeframe* is that of the base that is filled, *native* whether its bars are the provider's
    own. *holes* and *done* are milliseconds: of missing time found when the job first ran, and of
    it told since. *bars* were stored, new or revised. *reason* is a stable code for why it ended
    as it did, None for a job that closed every hole. *number* grows with every job. Since
    *failing_since* the provider fails and tells nothing new; *message* says why. Times are ms.
    """

    id: UUID
    number: int
    listing: Listing
    timeframe: Timeframe
    native: bool
    window: Window
    state: BackfillState
    reason: str | None
    message: str | None
    holes: int
    done: int
    bars: int
    created_at: int
    started_at: int | None
    ended_at: int | None
    updated_at: int
    failing_since: int | None = None


@dataclass(frozen=True, slots=True)
class NewBackfill:
    """What a job is added with; *asked* is the caller's input in a form that can be compared."""

    listing: Listing
    timeframe: Timeframe
    native: bool
    window: Window
    asked: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that one runner has to itself, for as long as it renews the claim."""

    backfill: Backfill
    fence: int


@dataclass(frozen=True, slots=True)
class AnotherLook:
    """Recent time of a job that ended, to be looked at once more."""

    backfill: Backfill
    window: Window


class BackfillRunning(BargraphError):
    """The series has an unfinished job already: *running*."""

    code: ClassVar[str] = "BACKFILL_RUNNING"

    def __init__(self, running: Backfill) -> None:
        super().__init__(
            f"{running.listing.symbol} {running.timeframe} of {running.listing.provider} is being "
            f"filled already."
        )
        self.running = running


class IdempotencyConflict(BargraphError):
    """The key came before, with another input."""

    code: ClassVar[str] = "IDEMPOTENCY_CONFLICT"

    def __init__(self, key: str) -> None:
        super().__init__("This idempotency key was used with another input before.")
        self.key = key


class TooManyBackfills(BargraphError):
    """No more than *most* jobs may be unfinished."""

    code: ClassVar[str] = "TOO_MANY_BACKFILLS"

    def __init__(self, most: int) -> None:
        super().__init__(f"At most {most} backfills may wait or run at a time.")
        self.most = most


_ACQUIRE = 5.0
"""Seconds to wait for a free connection."""


class BackfillStore:
    """The jobs in PostgreSQL. One instance serves any number of tasks. Durations are seconds."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        most_unfinished: int = MOST_UNFINISHED,
        most_ended: int = MOST_ENDED,
    ) -> None:
        self._pool = pool
        self._most_unfinished = most_unfinished
        self._most_ended = most_ended

    async def add(self, new: NewBackfill, *, key: str) -> Backfill:
        """Add a job, or return the one that came with *key* and the same input before.

        Raises `IdempotencyConflict`, `BackfillRunning`, `TooManyBackfills`.
        """
        names = _names(new.listing, new.timeframe)
        async with self._connection() as connection, connection.transaction():
            await connection.execute(sql.ONE_AT_A_TIME)
            if (row := await connection.fetchrow(sql.BY_KEY, key)) is not None:
                return _same(row, key, new.asked)
            if (row := await connection.fetchrow(sql.RUNNING, *names)) is not None:
                raise BackfillRunning(_backfill(row))
            if await connection.fetchval(sql.COUNT, new.listing.provider) >= self._most_unfinished:
                raise TooManyBackfills(self._most_unfinished)
            row = await connection.fetchrow(
                sql.ADD,
                *names,
                uuid4(),
                key,
                new.asked,
                new.native,
                clipped(new.window.since),
                clipped(new.window.until),
            )
            await connection.execute(sql.PRUNE, self._most_ended)
        return _backfill(row)

    async def keyed(self, key: str, *, asked: str) -> Backfill | None:
        """Return the job that was added with *key*. Raises `IdempotencyConflict`."""
        async with self._connection() as connection:
            row = await connection.fetchrow(sql.BY_KEY, key)
        return None if row is None else _same(row, key, asked)

    async def get(self, id: UUID) -> Backfill | None:
        return await self._one(sql.BY_ID, id)

    async def page(self, *, first: int, after: int | None = None) -> list[Backfill]:
        """Return at most *first* jobs, the newest first, with a lower number than *after*."""
        async with self._connection() as connection:
            return [_backfill(row) for row in await connection.fetch(sql.PAGE, first, after)]

    async def cancel(self, id: UUID) -> Backfill | None:
        """End a job that is not over, and return it as it now is; None if there is no such job."""
        return await self._one(sql.CANCEL, id) or await self.get(id)

    async def claim(self, id: UUID, *, seconds: float) -> Claim | None:
        """Hold the job for so long, None if it is over, gone, resting, or held by anybody."""
        async with self._connection() as connection:
            row = await connection.fetchrow(sql.CLAIM, id, seconds)
        return None if row is None else Claim(_backfill(row), row["fence"])

    async def renew(self, claim: Claim, *, seconds: float) -> bool:
        """Hold the job for so long from now on; return whether it still was ours and not over."""
        async with self._connection() as connection:
            row = await connection.fetchrow(sql.RENEW, claim.backfill.id, claim.fence, seconds)
        return row is not None

    async def release(self, claim: Claim) -> None:
        """Let others claim the job at once."""
        async with self._connection() as connection:
            await connection.execute(sql.RELEASE, claim.backfill.id, claim.fence)

    async def progress(
        self, claim: Claim, *, holes: int, done: int, bars: int, answered: bool = False
    ) -> Backfill | None:
        """Note how far the job is, and *bars* more.

        A provider that *answered* fails no more if the job never was so far. None if it is not ours
        any more, or over.
        """
        noted = (claim.backfill.id, claim.fence, holes, done, bars, answered)
        return await self._one(sql.PROGRESS, *noted)

    async def put_off(
        self,
        claim: Claim,
        message: str,
        *,
        least: float,
        most: float,
        enough: float,
        retry_after: float | None = None,
    ) -> Backfill | None:
        """Let the job rest because its provider fails, and claim it no more until then.

        It rests for as long as the provider has been failing, *least* to *most*, or *retry_after*
        if that is longer, and no longer than until that has been *enough*. None if it has, and if
        the job is not ours any more, or over.
        """
        rests = (message, least, most, enough, retry_after)
        return await self._one(sql.PUT_OFF, claim.backfill.id, claim.fence, *rests)

    async def finish(
        self,
        claim: Claim,
        state: BackfillState,
        *,
        reason: str | None = None,
        message: str | None = None,
        again: Window | None = None,
        again_in: float = 0,
    ) -> Backfill | None:
        """End the job, with *again* to be looked at once more in so many seconds.

        None if it is not ours any more, or over.
        """
        since, until = (again.since, again.until) if again else (None, None)
        wait = again_in if again else None
        ended = (claim.backfill.id, claim.fence, state, reason, message)
        return await self._one(sql.FINISH, *ended, since, until, wait)

    async def free_key(self, key: str, *, failed_for: float) -> None:
        """Let *key* be new again if its job failed longer ago than that. The job keeps its row."""
        async with self._connection() as connection:
            await connection.execute(sql.FREE_KEY, key, failed_for)

    async def orphans(self) -> list[UUID]:
        """Return the unfinished jobs that nobody holds and that do not rest, the oldest first."""
        async with self._connection() as connection:
            return [row["id"] for row in await connection.fetch(sql.ORPHANS)]

    async def take_look(self, *, seconds: float, give_up_after: float) -> AnotherLook | None:
        """Return a look that is due, and have it to ourselves for so long; None if none is.

        Those of jobs that ended longer than *give_up_after* seconds ago are given up.
        """
        async with self._connection() as connection:
            await connection.execute(sql.GIVE_UP_LOOKS, give_up_after)
            row = await connection.fetchrow(sql.TAKE_LOOK, seconds)
        if row is None:
            return None
        window = Window(_ms(row["again_since"]), _ms(row["again_until"]))
        return AnotherLook(_backfill(row), window)

    async def looked(self, look: AnotherLook) -> None:
        """Forget a look that was taken."""
        async with self._connection() as connection:
            await connection.execute(sql.LOOKED, look.backfill.id)

    async def _one(self, statement: str, *arguments: object) -> Backfill | None:
        async with self._connection() as connection:
            row = await connection.fetchrow(statement, *arguments)
        return None if row is None else _backfill(row)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        with store_failures():
            async with asyncio.timeout(_ACQUIRE):
                connection = await self._pool.acquire()
            try:
                yield connection
            finally:
                await self._pool.release(connection, timeout=_ACQUIRE)


def _names(listing: Listing, timeframe: Timeframe) -> tuple[str, ...]:
    return (
        listing.provider,
        listing.market,
        listing.symbol,
        str(timeframe),
        listing.adjustment or "",
        listing.feed or "",
        listing.dataset,
    )


def _same(row: Mapping[str, Any], key: str, asked: str) -> Backfill:
    if row["asked"] != asked:
        raise IdempotencyConflict(key)
    return _backfill(row)


def _backfill(row: Mapping[str, Any]) -> Backfill:
    listing = Listing(
        provider=row["provider"],
        market=row["market"],
        symbol=row["symbol"],
        adjustment=Adjustment(row["adjustment"]) if row["adjustment"] else None,
        feed=row["feed"] or None,
        dataset=row["dataset"],
    )
    return Backfill(
        id=UUID(int=row["id"].int),
        number=row["number"],
        listing=listing,
        timeframe=Timeframe.parse(row["timeframe"]),
        native=row["native"],
        window=Window(_ms(row["since"]), _ms(row["until"])),
        state=BackfillState(row["state"]),
        reason=row["reason"],
        message=row["message"],
        holes=row["holes"],
        done=row["done"],
        bars=row["bars"],
        created_at=_ms(row["created_at"]),
        started_at=_ms(row["started_at"]) if row["started_at"] else None,
        ended_at=_ms(row["ended_at"]) if row["ended_at"] else None,
        updated_at=_ms(row["updated_at"]),
        failing_since=_ms(row["failing_since"]) if row["failing_since"] else None,
    )


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
