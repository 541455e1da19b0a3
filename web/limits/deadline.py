"""Give up blocks of code that take too long, all after the same time, for next to nothing each.

A timer for each request would cost more than some requests do. All have the same time, so they end
in the order in which they began: one timer waits for the oldest.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import ClassVar

from web.graphql_request import RequestRefused


class ExecutionTimedOut(RequestRefused):
    """An operation given up after *seconds*. What it was to change may be changed or not."""

    code = "EXECUTION_TIMEOUT"
    status: ClassVar[int] = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The operation took longer than {seconds:g} s and was given up.")


class Deadline:
    """Gives every block *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[_Timed, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> _Timed:
        """Return a context that raises `ExecutionTimedOut` in place of what takes too long."""
        return _Timed(self)

    def begin(self, timed: _Timed) -> None:
        loop = asyncio.get_running_loop()
        self._running[timed] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def end(self, timed: _Timed) -> None:
        del self._running[timed]

    def late(self) -> ExecutionTimedOut:
        return ExecutionTimedOut(self._seconds)

    def _look(self) -> None:
        """Cancel what is over its time, and come again for the oldest of the others."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for timed, until in self._running.items():
            if until > loop.time():
                self._timer = loop.call_at(until, self._look)
                return
            timed.give_up()


class _Timed:
    """One block of code of one task."""

    __slots__ = ("_cancelling", "_deadline", "_given_up", "_task")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._given_up = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._deadline.begin(self)

    def give_up(self) -> None:
        if not self._given_up:
            self._given_up = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._deadline.end(self)
        # Somebody else may have cancelled the task as well: then that is what happens.
        if (
            self._given_up
            and self._task.uncancel() <= self._cancelling
            and isinstance(failure, asyncio.CancelledError)
        ):
            raise self._deadline.late() from None
