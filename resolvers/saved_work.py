"""One piece of what people saved of their work, by its id."""

from __future__ import annotations

from uuid import UUID

from db.accounts.permissions import Permission
from db.accounts.repositories.layouts import ChartLayout
from db.accounts.repositories.presets import IndicatorPreset
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Principal


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
