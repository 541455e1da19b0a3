"""What waits for one client to read: bounded, in order, and without what has become obsolete."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar


class OutboxFull(Exception):
    """A letter found no room, and none of those waiting may be dropped for it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message in three parts: *body* is shared by all who get it, *head* and *tail* are not.

    *sender* is whose message it is.
    """

    sender: object
    head: bytes
    body: bytes
    tail: bytes

    def __len__(self) -> int:
        return len(self.head) + len(self.body) + len(self.tail)


L = TypeVar("L", bound=Letter)


class Outbox(Generic[L]):
    """At most *max_count* letters of *max_bytes* together; one alone may be larger.

    A letter that is passing takes the place of an earlier one of the same sender and passing key.
    It goes to the end: what was queued between them must still come before it.
    """

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._letters: OrderedDict[Hashable, L] = OrderedDict()
        self._serial = count()
        self._max_count = max_count
        self._max_bytes = max_bytes
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: L, passing: Hashable | None = None) -> bool:
        """Queue *letter* and return whether it made another obsolete. Raises `OutboxFull`."""
        key = next(self._serial) if passing is None else (id(letter.sender), passing)
        obsolete = self._letters.pop(key, None)
        if obsolete is not None:
            self.bytes -= len(obsolete)
        full = len(self._letters) >= self._max_count
        if self._letters and (full or self.bytes + len(letter) > self._max_bytes):
            raise OutboxFull
        self._letters[key] = letter
        self.bytes += len(letter)
        return obsolete is not None

    def first(self) -> L:
        """Return the letter that is next, without taking it."""
        return next(iter(self._letters.values()))

    def take(self) -> L:
        """Take the letter that is next."""
        _, letter = self._letters.popitem(last=False)
        self.bytes -= len(letter)
        return letter

    def forget(self, sender: object) -> None:
        """Drop all letters of *sender*."""
        for key, letter in list(self._letters.items()):
            if letter.sender is sender:
                del self._letters[key]
                self.bytes -= len(letter)
