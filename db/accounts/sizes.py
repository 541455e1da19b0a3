"""How large what people save may be."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.columns import document_text
from db.accounts.errors import TooLarge
from db.accounts.models.saved import ChartLayoutRow, IndicatorPresetRow
from market.errors import BadInput

_DEEPEST = 32


class TooLargeTogether(TooLarge):
    """What one user saves of a kind would take *size* bytes of JSON, and *most* are kept."""

    def __init__(self, size: int, *, most: int) -> None:
        BadInput.__init__(
            self, f"All would take {size} bytes; at most {most} are kept.", field="content"
        )
        self.size = size
        self.most = most


def checked_size(content: Any, *, most: int, field: str) -> int:
    """Return how many bytes *content* takes, JSON of at most *most*, 32 levels deep at most.

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
    return size


async def check_together(
    connection: AsyncConnection,
    row: type[ChartLayoutRow | IndicatorPresetRow],
    *,
    user_id: UUID,
    id: UUID,
    size: int,
    most: int,
) -> None:
    """Return if a user's rows have at most *most* bytes of JSON with *size* of the one *id*.

    The user's row is locked. Raises `TooLargeTogether`.
    """
    others = await connection.scalar(
        select(func.coalesce(func.sum(func.octet_length(row.content)), 0)).where(
            row.user_id == user_id, row.id != id
        )
    )
    if (total := int(others or 0) + size) > most:
        raise TooLargeTogether(total, most=most)


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
