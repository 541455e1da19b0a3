"""What time it is, asked of whoever is asked about, and waiting until it is a certain time.

A provider's now is not the machine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

LOOK_SECONDS = 0.25
"""How often a waiting `Pace` looks at a clock at least: it may have jumped."""
_CLOSEST_SECONDS = 0.01
"""How soon it looks again at the earliest, so that no clock is too fast for it."""


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> int:
        """Return milliseconds since the epoch, UTC."""
        ...


@runtime_checkable
class Watchable(Protocol):
    """A clock that somebody moves, and that tells of it."""

    def watch(self, moved: Callable[[], None]) -> None:
        """Call *moved* after each move, in the thread that made it."""
        ...


class FixedClock:
    """A clock that stands at *at* until it is set."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._watching: list[Callable[[], None]] = []

    @property
    def at(self) -> int:
        return self._at

    @at.setter
    def at(self, at: int) -> None:
        self._at = at
        for moved in self._watching:
            moved()

    def now(self) -> int:
        return self._at

    def watch(self, moved: Callable[[], None]) -> None:
        self._watching.append(moved)


class Pace:
    """Waiting for times of one clock, with one timer however many wait.

    *speed* says how fast the clock runs beside real time, and 0 that it never moves, so that no
    timer is needed. All who wait are tasks of one event loop. A jump of the clock is noticed
    within `LOOK_SECONDS`, that of a `Watchable` one at once.
    """

    def __init__(self, clock: Clock, *, speed: float = 1.0) -> None:
        self._clock = clock
        self._speed = speed
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        if isinstance(clock, Watchable):
            clock.watch(self._ring)

    def now(self) -> int:
        """Return what the clock reads."""
        return self._clock.now()

    def alarm(self, at: int | None) -> asyncio.Future[None]:
        """Return what is done soon after the clock reads *at*; never by itself where that is None.

        Whoever waits for it may end it sooner, by a result or by cancelling.
        """
        alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if at is not None:
            self._waiting[alarm] = at
            alarm.add_done_callback(self._waiting.pop)
            self._set_timer(at)
        return alarm

    def _set_timer(self, at: int) -> None:
        if self._speed == 0:
            return
        left = (at - self._clock.now()) / (1000 * self._speed)
        loop = asyncio.get_running_loop()
        due = loop.time() + min(max(left, _CLOSEST_SECONDS), LOOK_SECONDS)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        self._ring()
        left = [at for alarm, at in self._waiting.items() if not alarm.done()]
        if left:
            self._set_timer(min(left))

    def _ring(self) -> None:
        now = self._clock.now()
        for alarm, at in self._waiting.items():
            if at <= now and not alarm.done():
                alarm.set_result(None)
