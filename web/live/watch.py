"""End subscriptions whose viewer may not have them any more.

Whoever asked proved who they are when the subscription began. Their token may be over since, or
they were demoted, disabled, deleted or signed out: every `SECONDS` they are checked again. Public
subscriptions are not looked at. Nobody waits for anybody else's check, and whoever cannot be
checked in time is sent away: a database that hangs must not keep those in who were shut out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence

from db.accounts.errors import AccountsUnavailable
from resolvers.identity.checking import CHECK_SECONDS
from web.live.execution import Operation
from web.live.receiver import Receiver

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds from the beginning of a round in which everybody has to be checked."""
_AT_ONCE = 8
"""Sessions that are asked about at a time, so that others find a connection as well."""


class Watch:
    """The private subscriptions of one process. Its task lasts while there are any."""

    def __init__(self, *, seconds: float = CHECK_SECONDS, patience: float = PATIENCE) -> None:
        self._seconds = seconds
        self._patience = patience
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
            await self._look_at_all()
            for receiver in [each for each in self._watched if each.over]:
                del self._watched[receiver]
        self._task = None

    async def _look_at_all(self) -> None:
        """Look once at every subscription, those of one session together."""
        deadline = asyncio.get_running_loop().time() + self._patience
        sessions: defaultdict[Hashable, list[Receiver]] = defaultdict(list)
        for receiver, operation in self._watched.items():
            sessions[_session_of(operation)].append(receiver)
        turns = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(
            *(self._look_at(receivers, turns, deadline) for receivers in sessions.values())
        )

    async def _look_at(
        self, receivers: Sequence[Receiver], turns: asyncio.Semaphore, deadline: float
    ) -> None:
        """Look at the subscriptions of one session; they share what the first one finds out."""
        try:
            async with asyncio.timeout_at(deadline), turns:
                for receiver in receivers:
                    await _look(receiver, self._watched[receiver])
        except TimeoutError:
            late = AccountsUnavailable("It could not be checked in time who may still have this.")
            for receiver in receivers:
                _expel(receiver, self._watched[receiver], late)


def _session_of(operation: Operation) -> Hashable:
    principal = operation.caller.principal
    return None if principal is None else principal.claims


async def _look(receiver: Receiver, operation: Operation) -> None:
    if receiver.over:
        return
    try:
        await operation.check_again()
    except Exception as failure:  # a bug of ours lets nobody stay either
        _expel(receiver, operation, failure)


def _expel(receiver: Receiver, operation: Operation, failure: Exception) -> None:
    if receiver.over:
        return
    try:
        receiver.expel(operation.executions.shown(failure))
    except Exception:
        log.exception("A private subscription could not be ended; it is tried again.")
