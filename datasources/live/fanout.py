"""Give each event to all who read here, without waiting for any of them.

Of events that make each other obsolete a slow reader finds the newest; of others it misses none,
or is told that it did.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_UNREAD = 256


class Overflowed(Exception):
    """More came than was read; what had not been read is gone."""


class Reader(Generic[T]):
    """Events for one reader, oldest first. Iterating raises `Overflowed` once after a loss."""

    def __init__(self) -> None:
        self._events: OrderedDict[Hashable, T] = OrderedDict()
        self._count = 0
        self._overflowed = False
        self._ended = False
        self._filled = asyncio.Event()

    def __aiter__(self) -> Reader[T]:
        return self

    async def __anext__(self) -> T:
        await self._filled.wait()
        if self._overflowed:
            self._overflowed = False
            if not self._events:
                self._filled.clear()
            raise Overflowed
        if not self._events:
            raise StopAsyncIteration
        _, event = self._events.popitem(last=False)
        if not self._events and not self._ended:
            self._filled.clear()
        return event

    def put(self, event: T, passing: Hashable | None) -> None:
        """Add *event*; if it is *passing*, instead of an unread one with the same key."""
        self._count += 1
        key: Hashable = ("kept", self._count) if passing is None else ("passing", passing)
        self._events.pop(key, None)
        if len(self._events) >= _MOST_UNREAD:
            self._events.clear()
            self._overflowed = True
        self._events[key] = event
        self._filled.set()

    def end(self) -> None:
        self._ended = True
        self._filled.set()


class Fanout(Generic[T]):
    """The readers of one source of events."""

    def __init__(self) -> None:
        self._readers: set[Reader[T]] = set()

    def __len__(self) -> int:
        return len(self._readers)

    @contextmanager
    def reading(self) -> Iterator[Reader[T]]:
        """Yield a reader that gets every event put from now on."""
        reader: Reader[T] = Reader()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def put(self, event: T, passing: Hashable | None = None) -> None:
        for reader in self._readers:
            reader.put(event, passing)

    def end(self) -> None:
        """Let every reader end after what it has not read yet."""
        for reader in self._readers:
            reader.end()
