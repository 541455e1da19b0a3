"""What one listener has not read yet, bounded, with every break in it told."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum


class Break(Enum):
    """What interrupts the messages of an inbox; each is told at its place among them."""

    AWAY = "away"
    """The connection is lost; nothing can arrive."""
    BACK = "back"
    """Messages arrive again; what was sent meanwhile is lost."""
    OVERFLOW = "overflow"
    """More came than was read, and what had not been read is dropped."""


class Inbox:
    """Messages of one channel for one listener, oldest first; ends when it is closed.

    Putting never waits, so a listener that does not read slows nobody: past *most* messages or
    *most_bytes* of them it finds `Break.OVERFLOW` instead, and what came after.
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._items: deque[bytes | Break] = deque()
        self._bytes = 0
        self._away = False
        self._closed = False
        self._filled = asyncio.Event()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> bytes | Break:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        item = self._items.popleft()
        if isinstance(item, bytes):
            self._bytes -= len(item)
        return item

    def put(self, message: bytes) -> None:
        """Add *message*, or drop all there is if it does not fit."""
        if len(self._items) >= self._most or self._bytes + len(message) > self._most_bytes:
            self._items.clear()
            self._bytes = 0
            self._items.append(Break.OVERFLOW)
            if len(message) > self._most_bytes:
                self._filled.set()
                return
        self._items.append(message)
        self._bytes += len(message)
        self._filled.set()

    def away(self) -> None:
        """Tell that nothing can arrive, unless that is the last that was told."""
        if self._away:
            return
        self._away = True
        # Breaks do not count against the bound, so a connection that comes and goes while nobody
        # reads leaves no more than one pair of them in a row.
        if len(self._items) > 1 and (self._items[-2], self._items[-1]) == (Break.AWAY, Break.BACK):
            self._items.pop()
        else:
            self._items.append(Break.AWAY)
        self._filled.set()

    def back(self) -> None:
        """Tell that messages arrive again, if it was told that they do not."""
        if not self._away:
            return
        self._away = False
        self._items.append(Break.BACK)
        self._filled.set()

    def close(self) -> None:
        """Drop what there is and end the iteration."""
        self._closed = True
        self._items.clear()
        self._bytes = 0
        self._filled.set()
