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
        self.seconds = seconds
        self.running: dict[_Timed, float] = {}
        """The blocks that run and until when, by the event loop's clock, the oldest first."""
        self.timer: asyncio.TimerHandle | None = None

    def __call__(self) -> _Timed:
        """Return a context that raises `ExecutionTimedOut` in place of what takes too long."""
        return _Timed(self)

    def look(self) -> None:
        """Cancel what is over its time, and come again for the oldest of the others."""
        loop = asyncio.get_running_loop()
        self.timer = None
        for timed, until in self.running.items():
            if until > loop.time():
                self.timer = loop.call_at(until, self.look)
                return
            timed.give_up()


class _Timed:
    """One block of code of one task."""

    __slots__ = ("_cancelling", "_deadline", "_given_up", "_task")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._given_up = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        # Every request passes here: a call less is felt.
        deadline = self._deadline
        loop = asyncio.get_running_loop()
        deadline.running[self] = loop.time() + deadline.seconds
        if deadline.timer is None:
            deadline.timer = loop.call_later(deadline.seconds, deadline.look)

    def give_up(self) -> None:
        if not self._given_up:
            self._given_up = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._deadline.running[self]
        # Somebody else may have cancelled the task as well: then that is what happens.
        if (
            self._given_up
            and self._task.uncancel() <= self._cancelling
            and isinstance(failure, asyncio.CancelledError)
        ):
            raise ExecutionTimedOut(self._deadline.seconds) from None
