"""Whether what somebody proved earlier still counts: asked again and again, one read each time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.models.identity import ApiTokenRow, RefreshSessionRow, UserRow
from db.accounts.permissions import Role, Scope


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user is at the moment. *scopes* are those of the API token asked about."""

    user_id: UUID
    username: str
    role: Role
    token_version: int
    scopes: frozenset[Scope] | None = None
    expires_at: datetime | None = None


async def standing_by_session(
    connection: AsyncConnection, user_id: UUID, session_id: UUID
) -> Standing | None:
    """Return what a user is, None if they are gone or disabled, or the session ended."""
    row = await _row(connection, user_id, RefreshSessionRow, session_id)
    return None if row is None else Standing(row.id, row.username, Role(row.role), row.version)


async def standing_by_token(
    connection: AsyncConnection, user_id: UUID, token_id: UUID
) -> Standing | None:
    """Return what a user is and what an API token may do, None if one of them is gone."""
    row = await _row(
        connection, user_id, ApiTokenRow, token_id, ApiTokenRow.scopes, ApiTokenRow.expires_at
    )
    if row is None:
        return None
    scopes = frozenset(Scope(scope) for scope in row.scopes.split())
    return Standing(row.id, row.username, Role(row.role), row.version, scopes, row.expires_at)


async def _row(
    connection: AsyncConnection,
    user_id: UUID,
    table: Any,
    id: UUID,
    *more: ColumnElement[Any] | Any,
) -> Row[Any] | None:
    asked = (
        select(
            UserRow.id,
            UserRow.username,
            UserRow.role,
            UserRow.token_version.label("version"),
            *more,
        )
        .join(table, table.user_id == UserRow.id)
        .where(UserRow.id == user_id, UserRow.disabled_at.is_(None), table.id == id)
    )
    return (await connection.execute(asked)).one_or_none()
