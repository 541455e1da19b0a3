"""Indicator presets: parameters of an indicator under a name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import NameTaken, NotFound, TooMany, VersionConflict, violated
from db.accounts.models.saved import IndicatorPresetRow as Row
from db.accounts.sizes import check_together, checked_size

MOST_PRESETS = 500
"""Presets of one user."""
MOST_BYTES = 16_384
"""JSON of one preset."""
MOST_BYTES_TOGETHER = 1024 * 1024
"""JSON of all presets of one user."""


@dataclass(frozen=True, slots=True)
class IndicatorPreset:
    """Parameters of *indicator*; the name is unique among a user's presets of the indicator."""

    id: UUID
    user_id: UUID
    indicator: str
    name: str
    content: Any
    version: int
    created_at: datetime
    updated_at: datetime


class Presets:
    """The presets, on one transaction's connection; the user's row is locked for every change."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, user_id: UUID) -> list[IndicatorPreset]:
        """Return the presets of a user by indicator and name."""
        asked = select(Row).where(Row.user_id == user_id).order_by(Row.indicator, Row.name)
        return [_preset(row) for row in await self._connection.execute(asked)]

    async def find(self, user_id: UUID, id: UUID) -> IndicatorPreset:
        """Return a preset of a user. Raises `NotFound`, also if it is somebody else's."""
        asked = select(Row).where(Row.id == id, Row.user_id == user_id)
        row = (await self._connection.execute(asked)).one_or_none()
        if row is None:
            raise NotFound("indicator preset")
        return _preset(row)

    async def add(self, preset: IndicatorPreset) -> IndicatorPreset:
        """Add a preset. Raises `TooMany`, `TooLarge`, `NameTaken`."""
        await self._check_size(preset)
        count = await self._connection.scalar(
            select(func.count()).select_from(Row).where(Row.user_id == preset.user_id)
        )
        if (count or 0) >= MOST_PRESETS:
            raise TooMany("indicator preset", most=MOST_PRESETS)
        await self._written(insert(Row).values(**_values(preset)))
        return preset

    async def change(self, preset: IndicatorPreset, *, at: datetime) -> IndicatorPreset:
        """Write *preset* over the version it names.

        Raises `NotFound`, `VersionConflict`, `TooLarge`, `NameTaken`.
        """
        await self._check_size(preset)
        before = await self.find(preset.user_id, preset.id)
        if before.version != preset.version:
            raise VersionConflict("indicator preset", current=before.version)
        after = replace(
            preset, version=preset.version + 1, created_at=before.created_at, updated_at=at
        )
        await self._written(update(Row).where(Row.id == preset.id).values(**_values(after)))
        return after

    async def delete(self, user_id: UUID, id: UUID, *, version: int | None = None) -> None:
        """Remove a preset, whatever version it has unless *version* says which.

        Raises `NotFound`, `VersionConflict`.
        """
        before = await self.find(user_id, id)
        if version not in (None, before.version):
            raise VersionConflict("indicator preset", current=before.version)
        await self._connection.execute(delete(Row).where(Row.id == id))

    async def _check_size(self, preset: IndicatorPreset) -> None:
        """Raises `TooLarge`, and `TooLargeTogether` for what is with all others of its user."""
        size = checked_size(preset.content, most=MOST_BYTES, field="content")
        await check_together(
            self._connection,
            Row,
            user_id=preset.user_id,
            id=preset.id,
            size=size,
            most=MOST_BYTES_TOGETHER,
        )

    async def _written(self, statement: Any) -> None:
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError as error:
            if violated(error) == "uq_user_indicator_presets_user_id_indicator_name":
                raise NameTaken("indicator preset", field="name") from None
            raise


def _values(preset: IndicatorPreset) -> dict[str, Any]:
    return {name: getattr(preset, name) for name in IndicatorPreset.__slots__}


def _preset(row: Any) -> IndicatorPreset:
    return IndicatorPreset(**{name: getattr(row, name) for name in IndicatorPreset.__slots__})
