"""Work that is done behind an answer, so that nobody can tell from waiting what there was to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from db.accounts.errors import AccountsUnavailable

log = logging.getLogger(__name__)

_MOST_WAITING = 1_000

Errand = Callable[[], Awaitable[None]]


class Errands:
    """Errands on their way, one at a time. What waits is lost with the process."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Errand] = asyncio.Queue(_MOST_WAITING)

    def add(self, errand: Errand) -> None:
        """Run *errand* soon. With too many on their way it is dropped, which the log tells."""
        try:
            self._waiting.put_nowait(errand)
        except asyncio.QueueFull:
            log.error("What was asked for was dropped: %d errands wait", _MOST_WAITING)

    async def run(self) -> None:
        """Run errands for ever. One that fails ends no other, and not the server."""
        while True:
            errand = await self._waiting.get()
            try:
                await errand()
            except AccountsUnavailable as error:
                log.error("What was asked for was not done: %s", error)
            except Exception:
                log.exception("What was asked for was not done")
            finally:
                self._waiting.task_done()

    async def done(self) -> None:
        """Return when none is left."""
        await self._waiting.join()

    async def drain(self, seconds: float) -> None:
        """Return when none is left, or after *seconds*."""
        try:
            await asyncio.wait_for(self.done(), seconds)
        except TimeoutError:
            log.error("Not all that was asked for was done before the end")
