"""Tasks that run for as long as the server does; one that fails ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


class Background:
    """Owns tasks and sees them fail."""

    def __init__(self) -> None:
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def running(self, work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
        """Run *work* inside the block; at its end it is cancelled and waited for."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def watch(self) -> None:
        """Wait until a task fails, and raise what it raised."""
        await asyncio.shield(self._failed)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed.done():
            return
        failure = task.exception() or RuntimeError(f"{task.get_name()} ended by itself")
        self._failed.set_exception(failure)
        self._failed.exception()  # it may happen while nobody watches any more
