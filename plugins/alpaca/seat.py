"""One listener's place at a line: what it wants, and what came for it and was not read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from market.errors import BargraphError, ProviderUnavailable

T = TypeVar("T")

QUEUED = 1_000
"""Batches that may wait for a slow reader; one more, and its stream fails."""

Key = tuple[str, str]
"""A channel, and a symbol on it."""


class Seat(Generic[T]):
    """Batches in order, the first of them *confirmation*, and a failure after the last."""

    def __init__(
        self,
        provider: str,
        keys: frozenset[Key],
        *,
        confirmation: T,
        translate: Callable[[Sequence[Any]], Sequence[T]],
    ) -> None:
        """*translate* makes batches of what came at once, none of what tells nothing."""
        self.keys = keys
        self.left = False
        self.released = asyncio.Event()
        """Set once nothing is sent to this seat any more."""
        self._provider = provider
        self._confirmation = confirmation
        self._translate = translate
        self._batches: deque[T] = deque()
        self._failure: BargraphError | None = None
        self._news = asyncio.Event()

    def confirm(self) -> None:
        self._put([self._confirmation])

    def take(self, messages: Sequence[Any]) -> None:
        """Take in what came. Raises what *translate* raises."""
        self._put(self._translate(messages))

    def fail(self, failure: BargraphError) -> None:
        """End after what came before; only the first failure counts."""
        self._failure = self._failure or failure
        self._news.set()

    async def next(self) -> T:
        """Return the next batch.

        Raises the failure once all before it are read, and `StopAsyncIteration` once left.
        """
        while not self._batches:
            if self.left:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            await self._news.wait()
        return self._batches.popleft()

    def leave(self) -> None:
        self.left = True
        self._batches.clear()
        self._news.set()

    def _put(self, batches: Sequence[T]) -> None:
        if self.left or self._failure is not None or not batches:
            return
        self._batches.extend(batches)
        if len(self._batches) > QUEUED:
            # What is left out must not be followed by anything.
            self._batches.clear()
            self.fail(ProviderUnavailable(self._provider, "its stream was not read fast enough"))
        self._news.set()
