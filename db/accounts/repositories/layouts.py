"""Chart layouts: what somebody sees of an instrument, and which of theirs it opens with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import NotFound, TooMany, VersionConflict
from db.accounts.models.saved import ChartLayoutRow as Row
from db.accounts.sizes import check_together, checked_size

MOST_LAYOUTS = 100
"""Layouts of one user."""
MOST_BYTES = 131_072
"""JSON of one layout."""
MOST_BYTES_TOGETHER = 4 * 1024 * 1024
"""JSON of all layouts of one user."""
ANY_INSTRUMENT = ""


@dataclass(frozen=True, slots=True)
class ChartLayout:
    """A layout for one *instrument*, named as the caller names instruments, or for any (None).

    At most one of a user's layouts *is_default* for each instrument, and one for any.
    """

    id: UUID
    user_id: UUID
    name: str
    instrument: str | None
    is_default: bool
    content: Any
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def default_for(self) -> str | None:
        if not self.is_default:
            return None
        return ANY_INSTRUMENT if self.instrument is None else self.instrument


class Layouts:
    """The layouts, on one transaction's connection; the user's row is locked for every change."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, user_id: UUID) -> list[ChartLayout]:
        """Return the layouts of a user by name."""
        asked = select(Row).where(Row.user_id == user_id).order_by(Row.name, Row.id)
        return [_layout(row) for row in await self._connection.execute(asked)]

    async def find(self, user_id: UUID, id: UUID) -> ChartLayout:
        """Return a layout of a user. Raises `NotFound`, also if it is somebody else's."""
        asked = select(Row).where(Row.id == id, Row.user_id == user_id)
        row = (await self._connection.execute(asked)).one_or_none()
        if row is None:
            raise NotFound("chart layout")
        return _layout(row)

    async def add(self, layout: ChartLayout) -> ChartLayout:
        """Add a layout. Raises `TooMany`, `TooLarge`."""
        await self._check_size(layout)
        count = await self._connection.scalar(
            select(func.count()).select_from(Row).where(Row.user_id == layout.user_id)
        )
        if (count or 0) >= MOST_LAYOUTS:
            raise TooMany("chart layout", most=MOST_LAYOUTS)
        await self._give_up_default(layout)
        await self._connection.execute(insert(Row).values(**_values(layout)))
        return layout

    async def change(self, layout: ChartLayout, *, at: datetime) -> ChartLayout:
        """Write *layout* over the version it names. Raises `NotFound`, `VersionConflict`,
        `TooLarge`.
        """
        await self._check_size(layout)
        before = await self.find(layout.user_id, layout.id)
        if before.version != layout.version:
            raise VersionConflict("chart layout", current=before.version)
        after = replace(
            layout, version=layout.version + 1, created_at=before.created_at, updated_at=at
        )
        await self._give_up_default(after)
        await self._connection.execute(
            update(Row).where(Row.id == layout.id).values(**_values(after))
        )
        return after

    async def delete(self, user_id: UUID, id: UUID, *, version: int | None = None) -> None:
        """Remove a layout, whatever version it has unless *version* says which.

        Raises `NotFound`, `VersionConflict`.
        """
        before = await self.find(user_id, id)
        if version not in (None, before.version):
            raise VersionConflict("chart layout", current=before.version)
        await self._connection.execute(delete(Row).where(Row.id == id))

    async def _check_size(self, layout: ChartLayout) -> None:
        """Raises `TooLarge`, and `TooLargeTogether` for what is with all others of its user."""
        size = checked_size(layout.content, most=MOST_BYTES, field="content")
        await check_together(
            self._connection,
            Row,
            user_id=layout.user_id,
            id=layout.id,
            size=size,
            most=MOST_BYTES_TOGETHER,
        )

    async def _give_up_default(self, layout: ChartLayout) -> None:
        """Let the layout that was the default before be an ordinary one, which changes it too."""
        if layout.default_for is None:
            return
        await self._connection.execute(
            update(Row)
            .where(
                Row.user_id == layout.user_id,
                Row.default_for == layout.default_for,
                Row.id != layout.id,
            )
            .values(default_for=None, version=Row.version + 1, updated_at=layout.updated_at)
        )


def _values(layout: ChartLayout) -> dict[str, Any]:
    values = {name: getattr(layout, name) for name in ChartLayout.__slots__}
    del values["is_default"]
    return {**values, "default_for": layout.default_for}


def _layout(row: Any) -> ChartLayout:
    names = set(ChartLayout.__slots__) - {"is_default"}
    return ChartLayout(
        **{name: getattr(row, name) for name in names}, is_default=row.default_for is not None
    )
