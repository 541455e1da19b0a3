"""A stream of what is known already and told when its time has come: by `sim` and by `replay`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from market.clock import Pace

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Script(Protocol[T_co]):
    """What there is to tell from an instant on, in order."""

    @property
    def due(self) -> int | None:
        """When there may be more than the last look found, in ms; None if there never will be."""
        ...

    async def look(self, now: int) -> T_co | None:
        """Return what has come up to *now* since the last look, None where nothing has.

        *now* never goes back. A long time may be told in parts, as long as `due` is over.
        """
        ...


class PacedStream(Generic[T]):
    """A `Stream` that confirms itself by *empty*, and then tells a script at the pace of a clock.

    The script begins at the time of the first batch. Where nothing is due it sleeps.
    """

    def __init__(self, pace: Pace, empty: T, begin: Callable[[int], Script[T]]) -> None:
        self._pace = pace
        self._empty = empty
        self._begin = begin
        self._script: Script[T] | None = None
        self._now = 0
        self._alarm: asyncio.Future[None] | None = None
        self._closed = False

    def __aiter__(self) -> PacedStream[T]:
        return self

    async def __anext__(self) -> T:
        if self._script is None:
            if self._closed:
                raise StopAsyncIteration
            self._now = self._pace.now()
            self._script = self._begin(self._now)
            return self._empty
        # Whoever is told a long past shares the loop with others.
        await asyncio.sleep(0)
        while True:
            # Of a clock that was set back nothing is told twice.
            self._now = max(self._now, self._pace.now())
            batch = await self._script.look(self._now)
            if self._closed:
                raise StopAsyncIteration
            if batch is not None:
                return batch
            due = self._script.due
            if due is None or due > self._now:
                self._alarm = self._pace.alarm(due)
                await self._alarm

    async def aclose(self) -> None:
        """End it at once, also for a task that waits for its next batch."""
        self._closed = True
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)
