"""Personal tokens of programs: what each may do, until when, and when it was last used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import TooMany
from db.accounts.models.identity import ApiTokenRow as Row
from db.accounts.permissions import Scope

MOST_API_TOKENS = 50
"""Tokens of one user."""
_USE_SECONDS = 60
"""How exactly the last use is known."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as its owner sees it: all but the token. *prefix* is how it begins."""

    id: UUID
    user_id: UUID
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    token_hash: bytes = field(repr=False)


class ApiTokens:
    """The tokens, on one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, token: ApiToken) -> None:
        """Add a token; its user's row must be locked. Raises `TooMany`."""
        count = await self._connection.scalar(
            select(func.count()).select_from(Row).where(Row.user_id == token.user_id)
        )
        if (count or 0) >= MOST_API_TOKENS:
            raise TooMany("api token", most=MOST_API_TOKENS)
        values = {name: getattr(token, name) for name in ApiToken.__slots__}
        values["scopes"] = _scopes_text(token.scopes)
        await self._connection.execute(insert(Row).values(**values))

    async def beginning(self, prefix: str) -> ApiToken | None:
        """Return the token that begins with *prefix*."""
        asked = select(Row).where(Row.prefix == prefix)
        row = (await self._connection.execute(asked)).one_or_none()
        return None if row is None else _token(row)

    async def of(self, user_id: UUID) -> list[ApiToken]:
        """Return the tokens of a user, the newest first."""
        asked = select(Row).where(Row.user_id == user_id).order_by(Row.created_at.desc(), Row.id)
        return [_token(row) for row in await self._connection.execute(asked)]

    async def note_use(self, id: UUID, at: datetime) -> None:
        """Note that a token was used, unless that was noted within the last minute."""
        await self._connection.execute(
            update(Row)
            .where(Row.id == id)
            .where(
                Row.last_used_at.is_(None)
                | (Row.last_used_at <= at - timedelta(seconds=_USE_SECONDS))
            )
            .values(last_used_at=at)
        )

    async def delete(self, user_id: UUID, id: UUID) -> bool:
        """Remove a token of a user; return whether there was one."""
        removed: CursorResult[Any] = await self._connection.execute(
            delete(Row).where(Row.id == id, Row.user_id == user_id)
        )
        return removed.rowcount == 1

    async def delete_all(self, user_id: UUID) -> None:
        """Remove every token of a user."""
        await self._connection.execute(delete(Row).where(Row.user_id == user_id))

    async def prune(self, at: datetime) -> None:
        """Remove what expired before *at*."""
        await self._connection.execute(delete(Row).where(Row.expires_at < at))


def _scopes_text(scopes: Iterable[Scope]) -> str:
    return " ".join(sorted(scope.value for scope in scopes))


def _token(row: Any) -> ApiToken:
    values = {name: getattr(row, name) for name in ApiToken.__slots__}
    values["scopes"] = frozenset(Scope(scope) for scope in row.scopes.split())
    return ApiToken(**values)
