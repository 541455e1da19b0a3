"""General preferences: one JSON object a user, changed by merge patches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import VersionConflict
from db.accounts.models.saved import PreferencesRow as Row
from db.accounts.sizes import checked_size

MOST_BYTES = 32_768
"""JSON of one user's preferences."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user prefers; *version* is 0 and *updated_at* None while nothing was saved."""

    content: dict[str, Any]
    version: int
    updated_at: datetime | None


class PreferenceBook:
    """The preferences, on one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, user_id: UUID) -> Preferences:
        """Return what a user prefers."""
        asked = select(Row).where(Row.user_id == user_id)
        row = (await self._connection.execute(asked)).one_or_none()
        if row is None:
            return Preferences({}, 0, None)
        return Preferences(row.content, row.version, row.updated_at)

    async def patch(
        self, user_id: UUID, patch: dict[str, Any], *, at: datetime, version: int | None = None
    ) -> Preferences:
        """Apply a merge patch (RFC 7396) and return what came of it; the user's row is locked.

        A patch made to a certain *version* is refused if there is another one now. Raises
        `VersionConflict`, `TooLarge`.
        """
        checked_size(patch, most=MOST_BYTES, field="patch")  # its depth, before it is walked down
        before = await self.of(user_id)
        if version is not None and version != before.version:
            raise VersionConflict("preferences", current=before.version)
        content = merged(before.content, patch)
        checked_size(content, most=MOST_BYTES, field="patch")
        after = Preferences(content, before.version + 1, at)
        values = {"content": content, "version": after.version, "updated_at": at}
        if before.version == 0:
            await self._connection.execute(insert(Row).values(user_id=user_id, **values))
        else:
            await self._connection.execute(
                update(Row).where(Row.user_id == user_id).values(**values)
            )
        return after


def merged(target: Any, patch: Any) -> Any:
    """Return *target* changed as *patch* says, by RFC 7396; neither is changed itself."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
