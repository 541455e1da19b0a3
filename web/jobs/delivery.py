"""A job that was delivered to this process, and what becomes of it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

from web.jobs.stream import Taken


@dataclass(slots=True)
class Delivery:
    """One try of the job *id*. *key* is where its idempotency key is noted, if it has one.

    *done* and *failure* say how the work ended; neither does if it was interrupted. *told* says
    that we interrupted it, *ending* that what became of it is being written down.
    """

    taken: Taken
    job: str
    task: str
    key: str | None
    attempt: asyncio.Task[None] | None = None
    done: bool = False
    failure: Exception | None = None
    told: bool = False
    ending: bool = False

    def interrupt(self) -> None:
        """Cancel the work, if it is not over."""
        if self.attempt is not None and not self.ending:
            self.told = True
            self.attempt.cancel()


current: ContextVar[Delivery] = ContextVar("delivery")
"""The delivery whose work runs in this task."""
