"""What people save of their work: preferences, chart layouts, indicator presets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from db.accounts.accounts import Transaction
from db.accounts.permissions import Permission
from db.accounts.repositories.layouts import ChartLayout
from db.accounts.repositories.preferences import Preferences
from db.accounts.repositories.presets import IndicatorPreset
from resolvers.identity.checked import checked_name
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class LayoutToSave:
    """A new layout, or another state of the one *id* names, made to its *version*."""

    name: str
    content: Any
    instrument: str | None = None
    is_default: bool = False
    id: UUID | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class PresetToSave:
    """A new preset, or another state of the one *id* names, made to its *version*."""

    indicator: str
    name: str
    content: Any
    id: UUID | None = None
    version: int = 0


async def preferences(identity: Identity, principal: Principal) -> Preferences:
    """Return what the principal prefers. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.preferences.of(principal.user_id)


async def save_preferences(
    identity: Identity,
    principal: Principal,
    patch: dict[str, Any],
    *,
    version: int | None = None,
) -> Preferences:
    """Apply a merge patch (RFC 7396). Raises `VersionConflict`, `TooLarge`, `Forbidden`."""
    async with _changing(identity, principal) as transaction:
        return await transaction.preferences.patch(
            principal.user_id, patch, at=identity.now(), version=version
        )


async def chart_layouts(identity: Identity, principal: Principal) -> list[ChartLayout]:
    """Return the principal's layouts by name. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.layouts.of(principal.user_id)


async def save_chart_layout(
    identity: Identity, principal: Principal, wanted: LayoutToSave
) -> ChartLayout:
    """Save a layout; as the default it takes the place of the one that was.

    Raises `NotFound`, `VersionConflict`, `TooMany`, `TooLarge`, `BadInput`, `Forbidden`.
    """
    checked_name(wanted.name, longest=80, field="name")
    if wanted.instrument is not None:
        checked_name(wanted.instrument, longest=200, field="instrument")
    now = identity.now()
    layout = ChartLayout(
        id=wanted.id or uuid4(),
        user_id=principal.user_id,
        name=wanted.name,
        instrument=wanted.instrument,
        is_default=wanted.is_default,
        content=wanted.content,
        version=wanted.version,
        created_at=now,
        updated_at=now,
    )
    async with _changing(identity, principal) as transaction:
        if wanted.id is not None:
            return await transaction.layouts.change(layout, at=now)
        return await transaction.layouts.add(replace(layout, version=1))


async def delete_chart_layout(
    identity: Identity, principal: Principal, id: UUID, *, version: int | None = None
) -> None:
    """Remove a layout, whatever version it has unless *version* says which.

    Raises `NotFound`, `VersionConflict`, `Forbidden`.
    """
    async with _changing(identity, principal) as transaction:
        await transaction.layouts.delete(principal.user_id, id, version=version)


async def indicator_presets(identity: Identity, principal: Principal) -> list[IndicatorPreset]:
    """Return the principal's presets by indicator and name. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.presets.of(principal.user_id)


async def save_indicator_preset(
    identity: Identity, principal: Principal, wanted: PresetToSave
) -> IndicatorPreset:
    """Save a preset. Raises `NotFound`, `VersionConflict`, `TooMany`, `TooLarge`, `NameTaken`,
    `BadInput`, `Forbidden`.
    """
    checked_name(wanted.indicator, longest=60, field="indicator")
    checked_name(wanted.name, longest=80, field="name")
    now = identity.now()
    preset = IndicatorPreset(
        id=wanted.id or uuid4(),
        user_id=principal.user_id,
        indicator=wanted.indicator,
        name=wanted.name,
        content=wanted.content,
        version=wanted.version,
        created_at=now,
        updated_at=now,
    )
    async with _changing(identity, principal) as transaction:
        if wanted.id is not None:
            return await transaction.presets.change(preset, at=now)
        return await transaction.presets.add(replace(preset, version=1))


async def delete_indicator_preset(
    identity: Identity, principal: Principal, id: UUID, *, version: int | None = None
) -> None:
    """Remove a preset, whatever version it has unless *version* says which.

    Raises `NotFound`, `VersionConflict`, `Forbidden`.
    """
    async with _changing(identity, principal) as transaction:
        await transaction.presets.delete(principal.user_id, id, version=version)


@asynccontextmanager
async def _changing(identity: Identity, principal: Principal) -> AsyncIterator[Transaction]:
    """Yield a transaction in which nobody else changes what the principal saved."""
    principal.check(Permission.SAVED_WORK_CHANGE)
    async with identity.accounts.transaction() as transaction:
        if await transaction.users.find(principal.user_id, lock=True) is None:
            raise Unauthenticated
        yield transaction


async def chart_layout(identity: Identity, principal: Principal, id: UUID) -> ChartLayout:
    """Return one of the principal's layouts. Raises `NotFound`, `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.layouts.find(principal.user_id, id)


async def indicator_preset(identity: Identity, principal: Principal, id: UUID) -> IndicatorPreset:
    """Return one of the principal's presets. Raises `NotFound`, `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.presets.find(principal.user_id, id)
