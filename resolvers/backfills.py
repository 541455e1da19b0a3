"""Start, cancel, find and watch backfills by the words of those who ask for them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, cast
from uuid import UUID

from datasources.backfill.service import UNTIL_NOW, BackfillService
from db.backfills import Backfill, BackfillState
from market.errors import BadInput, BargraphError
from market.window import Window
from resolvers.candles import EARLIEST, LATEST, Asked, series_of
from resolvers.directory import Directory
from resolvers.live import Shown
from resolvers.paging import checked_count, cursor_of, key_in

FIRST = 50
"""Backfills of a page for which nobody said how many."""
_SPEED_MS = 60_000
"""How far back the speed of a backfill is measured."""
_MOST_SEEN = 128


async def start_backfill(
    directory: Directory,
    service: BackfillService,
    asked: Asked,
    *,
    since: int,
    until: int | None,
    idempotency_key: str,
) -> Backfill:
    """Start to fill the holes of a series in a window; *until* None is the provider's now.

    Raises what `series_of` and `BackfillService.start` raise.
    """
    for name, value in (("since", since), ("until", until)):
        if value is not None and not EARLIEST <= value <= LATEST:
            raise BadInput(f"{name} must lie in the years 1 to 9999, not {value}.", field=name)
    series, instrument = await series_of(directory, asked)
    window = Window(since, UNTIL_NOW if until is None else until)
    return await service.start(instrument, series, window, idempotency_key=idempotency_key)


class NoSuchBackfill(BargraphError):
    """There never was a backfill with this id, or it is forgotten."""

    code: ClassVar[str] = "BACKFILL_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("There is no backfill with this id.")


class BackfillOver(BargraphError):
    """It ended by itself, as *ended* tells, before anybody cancelled it."""

    code: ClassVar[str] = "BACKFILL_OVER"

    def __init__(self, ended: Backfill) -> None:
        super().__init__(f"The backfill is over already: {ended.state}.")
        self.ended = ended


async def cancel_backfill(service: BackfillService, id: UUID | None) -> Backfill:
    """End a backfill and return it, also one that was cancelled before.

    Raises `NoSuchBackfill`, `BackfillOver`.
    """
    found = None if id is None else await service.cancel(id)
    if found is None:
        raise NoSuchBackfill
    if found.state in (BackfillState.DONE, BackfillState.FAILED):
        raise BackfillOver(found)
    return found


@dataclass(frozen=True, slots=True)
class BackfillPage:
    """Backfills with their cursors, the newest first, and whether there are more on either side."""

    nodes: tuple[Backfill, ...]
    cursors: tuple[str, ...]
    has_previous: bool
    has_next: bool


async def backfill_page(
    service: BackfillService, *, first: int | None, after: str | None
) -> BackfillPage:
    """Return the newest *first* of the backfills that are older than *after*. Raises `BadInput`."""
    size = checked_count(FIRST if first is None else first, field="first")
    number = None if after is None else _number_in(after)
    found = await service.page(first=size + 1, after=number)
    nodes = tuple(found[:size])
    return BackfillPage(
        nodes=nodes,
        cursors=tuple(cursor_of((_CURSOR, str(node.number))) for node in nodes),
        # Old ones are pruned, never new ones: what a cursor names, or a newer one, is there.
        has_previous=number is not None,
        has_next=len(found) > size,
    )


_CURSOR = "backfill"


def _number_in(cursor: str) -> int:
    match key_in(cursor, field="after"):
        case ("backfill", number) if number.isdecimal() and number.isascii() and len(number) < 19:
            return int(number)
    raise BadInput("The cursor is not one that this server gave.", field="after")


def percent_of(backfill: Backfill) -> float:
    """Return how much of the missing time is told, 0 to 100, rounded down to hundredths."""
    if backfill.state is BackfillState.DONE:
        return 100.0
    if backfill.holes <= 0:
        return 0.0
    return max(0, min(10_000, backfill.done * 10_000 // backfill.holes)) / 100


def rate_of(backfill: Backfill) -> float | None:
    """Return bars a second since it first ran, None if it never did."""
    if backfill.started_at is None:
        return None
    return _per_second(backfill.bars, backfill.updated_at - backfill.started_at)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is. *rate* is bars a second, *time_left* seconds; None where unknown."""

    backfill: Backfill
    rate: float | None
    time_left: float | None


class Speed:
    """Measures one backfill as it goes on, by the last minute of what was seen of it.

    A backfill that was interrupted is as fast as it is now, not as it was on average.
    """

    def __init__(self) -> None:
        self._seen: deque[Backfill] = deque(maxlen=_MOST_SEEN)

    def progress(self, backfill: Backfill) -> Progress:
        """Return the progress of *backfill*, the newest state of it that was seen."""
        seen = self._seen
        if seen and backfill.done < seen[-1].done:
            seen.clear()
        seen.append(backfill)
        # The older one of two is needed to measure by.
        while len(seen) > 2 and seen[1].updated_at < backfill.updated_at - _SPEED_MS:
            seen.popleft()
        if backfill.state is not BackfillState.RUNNING:
            left = 0.0 if backfill.state is BackfillState.DONE else None
            return Progress(backfill, rate_of(backfill), left)
        first = seen[0]
        elapsed = backfill.updated_at - first.updated_at
        if elapsed <= 0 or first.state is not BackfillState.RUNNING:
            elapsed = backfill.updated_at - (backfill.started_at or backfill.updated_at)
            return _measured(backfill, backfill.bars, backfill.done, elapsed)
        return _measured(backfill, backfill.bars - first.bars, backfill.done - first.done, elapsed)


def _measured(backfill: Backfill, bars: int, done: int, elapsed: int) -> Progress:
    speed = _per_second(done, elapsed)
    left = (backfill.holes - backfill.done) / speed if speed else None
    return Progress(backfill, _per_second(bars, elapsed), left)


def _per_second(count: int, elapsed: int) -> float | None:
    return count * 1000 / elapsed if elapsed > 0 else None


async def live_progress(service: BackfillService, id: UUID | None) -> LiveProgress:
    """Return the progress of a backfill as it is now, then after each change, until it is over.

    Raises `BadInput` where there is no such backfill.
    """
    if id is None or await service.get(id) is None:
        raise BadInput("There is no backfill with this id.", field="id")
    return LiveProgress(service, id)


@dataclass(slots=True)
class LiveProgress:
    """What one viewer sees of a backfill; a `LiveEvents`."""

    service: BackfillService
    id: UUID
    speed: Speed = field(default_factory=Speed)
    caught_up: Backfill | None = None

    @property
    def key(self) -> Hashable:
        return ("backfill", self.id)

    async def __aiter__(self) -> AsyncGenerator[Progress]:
        async with aclosing(cast("AsyncGenerator[Backfill]", self.service.watch(self.id))) as seen:
            async for backfill in seen:
                yield self.speed.progress(backfill)

    async def catch_up(self) -> AsyncIterator[Progress]:
        backfill = await self.service.get(self.id)
        if backfill is not None:
            # Told by the tail, too, once it changes.
            self.caught_up = backfill
            yield Speed().progress(backfill)

    def told(self, place: object) -> bool:
        assert isinstance(place, Backfill)
        return self.caught_up is not None and _stage(place) <= _stage(self.caught_up)

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[Progress]]]:
        async with aclosing(self._shown()) as shown:
            yield shown

    async def _shown(self) -> AsyncGenerator[Shown[Progress]]:
        async with aclosing(aiter(self)) as seen:
            async for progress in seen:
                backfill = progress.backfill
                passing = None if backfill.state.over else self.key
                yield Shown(progress, passing, place=backfill)


def _stage(backfill: Backfill) -> tuple[bool, int, int, int]:
    """Return what grows as a backfill goes on."""
    return (backfill.state.over, backfill.updated_at, backfill.done, backfill.bars)
