"""Write what many feeds close at the same moment in few transactions.

Whatever comes while one transaction runs goes into the next: a lone bar is written at once, and a
thousand that close on the minute take a handful of commits.
"""

from __future__ import annotations

import asyncio
from collections import deque

from db.candles import CandleStore
from db.stored import Write, Written
from market.errors import StoreUnavailable

_AT_ONCE = 200
"""Writes in one transaction at the most; it holds a lock on each of their series."""


class BatchWriter:
    """Joins writes. One writer serves any number of feeds; each waits for its own."""

    def __init__(self, store: CandleStore) -> None:
        self._store = store
        self._waiting: deque[tuple[Write, asyncio.Future[Written]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def write(self, write: Write) -> Written:
        """Return what *write* led to, once it is committed.

        Its bars must have been `checked`. Raises `StoreUnavailable`, `InvalidBars`.
        """
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._drain(), name="live bars writer")
        return await done

    async def aclose(self) -> None:
        """Stop; whoever still waits is told that the store is unavailable."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        while self._waiting:
            _, done = self._waiting.popleft()
            if not done.done():
                done.set_exception(StoreUnavailable("the writer was closed"))

    async def _drain(self) -> None:
        while self._waiting:
            turn = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            # Who was cancelled meanwhile wrote nothing; another feed reads the bar again.
            turn = [(write, done) for write, done in turn if not done.done()]
            try:
                await self._commit(turn)
            except asyncio.CancelledError:
                for _, done in turn:
                    done.cancel()
                raise

    async def _commit(self, turn: list[tuple[Write, asyncio.Future[Written]]]) -> None:
        try:
            written = await self._store.write([write for write, _ in turn])
        except Exception as failure:
            if len(turn) > 1 and not isinstance(failure, StoreUnavailable):
                # One of them is wrong: the others must not fail with it.
                for one in turn:
                    await self._commit([one])
                return
            for _, done in turn:
                if not done.done():
                    done.set_exception(failure)
            return
        for (_, done), one_written in zip(turn, written, strict=True):
            if not done.done():
                done.set_result(one_written)
