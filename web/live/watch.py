"""End subscriptions whose viewer may not have them any more.

Whoever asked proved who they are when the subscription began. Their token may be over since, or
they were demoted, disabled, deleted or signed out: every `SECONDS` they are checked again. Public
subscriptions are not looked at.
"""

from __future__ import annotations

import asyncio
import logging

from resolvers.identity.checking import CHECK_SECONDS
from web.live.execution import Operation
from web.live.receiver import Receiver

log = logging.getLogger(__name__)


class Watch:
    """The private subscriptions of one process. Its task lasts while there are any."""

    def __init__(self, *, seconds: float = CHECK_SECONDS) -> None:
        self._seconds = seconds
        self._watched: dict[Receiver, Operation] = {}
        self._task: asyncio.Task[None] | None = None

    def over(self, operation: Operation, receiver: Receiver) -> None:
        """End *operation* at *receiver* once its caller may not have it any more."""
        self._watched[receiver] = operation
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="watch over private subscriptions")

    async def aclose(self) -> None:
        """Look no more; whoever is connected is sent away besides."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(self._seconds)
            for receiver, operation in list(self._watched.items()):
                try:
                    await _look(receiver, operation)
                except Exception:
                    log.exception("A private subscription could not be ended; it is tried again.")
                if receiver.over:
                    self._watched.pop(receiver, None)
        self._task = None


async def _look(receiver: Receiver, operation: Operation) -> None:
    if receiver.over:
        return
    try:
        await operation.check_again()
    except Exception as failure:  # a bug of ours lets nobody stay either
        receiver.expel(operation.executions.shown(failure))
