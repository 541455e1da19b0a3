"""Sessions: one row for a family of refresh tokens, which follow one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.models.identity import RefreshSessionRow as Row

MOST_SESSIONS = 20
"""Sessions of one user; a further one ends the one that was used longest ago."""


@dataclass(frozen=True, slots=True)
class Session:
    """A family of refresh tokens. The hashes are SHA-256 of what each token holds."""

    id: UUID
    user_id: UUID
    lookup: bytes = field(repr=False)
    token_hash: bytes = field(repr=False)
    previous_hash: bytes | None = field(repr=False)
    salt: bytes | None = field(repr=False)
    created_at: datetime
    rotated_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    address: str | None
    agent: str | None

    @property
    def ends_at(self) -> datetime:
        """When it is over unless it is refreshed before."""
        return min(self.expires_at, self.idle_expires_at)


class Sessions:
    """The sessions, on one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, session: Session) -> None:
        """Add a session, at the cost of the least recently used ones of its user.

        The user's row must be locked, so that two logins at once do not exceed the number.
        """
        kept = await self._connection.scalars(
            select(Row.id)
            .where(Row.user_id == session.user_id)
            .order_by(Row.rotated_at.desc(), Row.id)
            .limit(1000)
        )
        surplus = kept.all()[MOST_SESSIONS - 1 :]
        if surplus:
            await self._connection.execute(delete(Row).where(Row.id.in_(surplus)))
        values = {name: getattr(session, name) for name in Session.__slots__}
        await self._connection.execute(insert(Row).values(**values))

    async def locked(self, lookup: bytes) -> Session | None:
        """Return the session with this *lookup*; nobody else changes it until this is over."""
        asked = select(Row).where(Row.lookup == lookup).with_for_update()
        row = (await self._connection.execute(asked)).one_or_none()
        return None if row is None else _session(row)

    async def of(self, user_id: UUID) -> list[Session]:
        """Return the sessions of a user, the one used last first."""
        asked = select(Row).where(Row.user_id == user_id).order_by(Row.rotated_at.desc(), Row.id)
        return [_session(row) for row in await self._connection.execute(asked)]

    async def rotate(
        self,
        id: UUID,
        *,
        token_hash: bytes,
        previous_hash: bytes,
        salt: bytes,
        at: datetime,
        idle_expires_at: datetime,
    ) -> None:
        """Let another token count from *at* on."""
        await self._connection.execute(
            update(Row)
            .where(Row.id == id)
            .values(
                token_hash=token_hash,
                previous_hash=previous_hash,
                salt=salt,
                rotated_at=at,
                idle_expires_at=idle_expires_at,
            )
        )

    async def end(self, id: UUID) -> None:
        """End one session."""
        await self._connection.execute(delete(Row).where(Row.id == id))

    async def end_all(self, user_id: UUID, *, but: UUID | None = None) -> int:
        """End the sessions of a user, all or all *but* one, and return how many there were."""
        asked = delete(Row).where(Row.user_id == user_id)
        ended: CursorResult[Any] = await self._connection.execute(
            asked if but is None else asked.where(Row.id != but)
        )
        return ended.rowcount

    async def prune(self, at: datetime) -> None:
        """Remove what expired before *at*."""
        await self._connection.execute(
            delete(Row).where((Row.expires_at < at) | (Row.idle_expires_at < at))
        )


def _session(row: Any) -> Session:
    return Session(**{name: getattr(row, name) for name in Session.__slots__})
