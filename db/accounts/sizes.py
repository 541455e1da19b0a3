"""How large what people save may be."""

from __future__ import annotations

from typing import Any

import orjson

from db.accounts.columns import document_text
from db.accounts.errors import TooLarge
from market.errors import BadInput

_DEEPEST = 32


def checked_size(content: Any, *, most: int, field: str) -> None:
    """Return if *content* is JSON of at most *most* bytes, 32 levels deep at most.

    Raises `TooLarge`, and `BadInput` for what is no JSON or too deep.
    """
    if _depth(content) > _DEEPEST:
        raise BadInput(f"{field} is more than {_DEEPEST} levels deep.", field=field)
    try:
        size = len(document_text(content))
        # What is answered is written by orjson, which knows no larger integers and no half
        # characters.
        orjson.dumps(content)
    except (TypeError, ValueError):
        raise BadInput(f"{field} is not JSON.", field=field) from None
    if size > most:
        raise TooLarge(size, most=most, field=field)


def _depth(content: Any) -> int:
    """Return how deep *content* is, without a call for each level."""
    deepest, level = 0, [content]
    while level and deepest <= _DEEPEST:
        deepest += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return deepest
