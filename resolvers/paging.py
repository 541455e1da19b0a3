"""Cut one page out of a sorted list by the rules of Relay connections."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from market.errors import BadInput

T = TypeVar("T")
Key = tuple[str, ...]

MOST_PER_PAGE = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Nodes with their cursors, and whether there are more on either side."""

    nodes: tuple[T, ...]
    cursors: tuple[str, ...]
    has_previous: bool
    has_next: bool
    total: int


def paged(
    nodes: Sequence[T],
    key: Callable[[T], Key],
    *,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    before: str | None = None,
) -> Page[T]:
    """Return the page of *nodes*, sorted by *key* without two alike, that the arguments select.

    A cursor names a key, not a place: it stays good while others come and go, and one whose node
    is gone still says where it stood. `first` counts from the start of what lies between the
    cursors, `last` from its end. Raises `BadInput`.
    """
    keys = [key(node) for node in nodes]
    low = bisect_right(keys, key_in(after, field="after")) if after is not None else 0
    high = bisect_left(keys, key_in(before, field="before")) if before is not None else len(keys)
    high = max(low, high)
    start, end = low, high
    if first is not None:
        end = min(end, start + checked_count(first, field="first"))
    if last is not None:
        start = max(start, end - checked_count(last, field="last"))
    return Page(
        nodes=tuple(nodes[start:end]),
        cursors=tuple(cursor_of(k) for k in keys[start:end]),
        has_previous=start > 0,
        has_next=end < len(keys),
        total=len(keys),
    )


def cursor_of(key: Key) -> str:
    """Return the opaque cursor of *key*."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def key_in(cursor: str, *, field: str) -> Key:
    """Return the key a cursor was made of. Raises `BadInput` for a string that is no cursor."""
    try:
        decoded = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        decoded = None
    if not isinstance(decoded, list) or not all(isinstance(part, str) for part in decoded):
        raise BadInput("The cursor is not one that this server gave.", field=field)
    return tuple(decoded)


def checked_count(count: int, *, field: str) -> int:
    """Return *count* if a page may have so many nodes. Raises `BadInput`."""
    if not 0 <= count <= MOST_PER_PAGE:
        raise BadInput(f"{field} must be from 0 to {MOST_PER_PAGE}, not {count}.", field=field)
    return count
