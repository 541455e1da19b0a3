"""What is sent to somebody and works once: password resets, verifications, invitations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import TooMany
from db.accounts.models.identity import EmailVerificationRow, InvitationRow, PasswordResetRow
from db.accounts.permissions import Role

SOONEST_AGAIN = timedelta(minutes=1)
"""How long after one mail the next of the same kind may go to the same user."""
MOST_INVITATIONS = 1_000
"""Invitations that wait to be used, of all together."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Leave to register, with the role that comes with it."""

    role: Role
    email_key: str | None
    invited_by: UUID | None
    expires_at: datetime


class OneTime:
    """Tokens that work once, on one transaction's connection. Each is known by its SHA-256."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep_reset(
        self, user_id: UUID, token_hash: bytes, *, at: datetime, expires_at: datetime
    ) -> bool:
        """Keep a password reset in place of an earlier one; False if that is too young.

        The user's row must be locked.
        """
        if await self._is_young(PasswordResetRow, user_id, at):
            return False
        await self.drop_resets(user_id)
        await self._connection.execute(
            insert(PasswordResetRow).values(
                id=uuid4(),
                user_id=user_id,
                token_hash=token_hash,
                created_at=at,
                expires_at=expires_at,
            )
        )
        return True

    async def use_reset(self, token_hash: bytes, *, at: datetime) -> bool:
        """Remove a reset, and return whether it counted. Its user's row must be locked."""
        row = await self._taken(PasswordResetRow, token_hash)
        return row is not None and row.expires_at > at

    async def reset_of(self, token_hash: bytes, *, at: datetime) -> UUID | None:
        """Return whose reset this is, None for one that does not count, and leave it."""
        return await self._owner(PasswordResetRow, token_hash, at)

    async def drop_resets(self, user_id: UUID) -> None:
        """Let no reset of a user work any more."""
        await self._connection.execute(
            delete(PasswordResetRow).where(PasswordResetRow.user_id == user_id)
        )

    async def keep_verification(
        self, user_id: UUID, token_hash: bytes, *, email: str, at: datetime, expires_at: datetime
    ) -> bool:
        """Keep the verification of an address in place of an earlier one, as with a reset."""
        if await self._is_young(EmailVerificationRow, user_id, at):
            return False
        await self.drop_verifications(user_id)
        await self._connection.execute(
            insert(EmailVerificationRow).values(
                id=uuid4(),
                user_id=user_id,
                token_hash=token_hash,
                email=email,
                created_at=at,
                expires_at=expires_at,
            )
        )
        return True

    async def verification_of(self, token_hash: bytes, *, at: datetime) -> UUID | None:
        """Return whose verification this is, None for one that does not count, and leave it."""
        return await self._owner(EmailVerificationRow, token_hash, at)

    async def use_verification(self, token_hash: bytes) -> str | None:
        """Return the address that a verification is of and remove it, None if it is gone.

        Its user's row must be locked.
        """
        row = await self._taken(EmailVerificationRow, token_hash)
        return None if row is None else row.email

    async def address_to_verify(self, user_id: UUID, *, at: datetime) -> str | None:
        """Return the address that a user may still prove to be theirs, None if there is none."""
        asked = select(EmailVerificationRow.email).where(
            EmailVerificationRow.user_id == user_id, EmailVerificationRow.expires_at > at
        )
        found: str | None = await self._connection.scalar(asked)
        return found

    async def drop_verifications(self, user_id: UUID) -> None:
        """Let no verification of a user work any more."""
        await self._connection.execute(
            delete(EmailVerificationRow).where(EmailVerificationRow.user_id == user_id)
        )

    async def invitations_by(self, user_id: UUID) -> list[Invitation]:
        """Return what a user gave others leave to, and was not used yet."""
        asked = (
            select(InvitationRow)
            .where(InvitationRow.invited_by == user_id)
            .order_by(InvitationRow.created_at, InvitationRow.id)
        )
        return [_invitation(row) for row in await self._connection.execute(asked)]

    async def keep_invitation(
        self, token_hash: bytes, invitation: Invitation, *, at: datetime
    ) -> None:
        """Keep an invitation. Raises `TooMany`."""
        await self._connection.execute(delete(InvitationRow).where(InvitationRow.expires_at <= at))
        waiting = await self._connection.scalar(select(func.count()).select_from(InvitationRow))
        if (waiting or 0) >= MOST_INVITATIONS:
            raise TooMany("invitation", most=MOST_INVITATIONS)
        await self._connection.execute(
            insert(InvitationRow).values(
                id=uuid4(),
                token_hash=token_hash,
                role=invitation.role.value,
                email_key=invitation.email_key,
                invited_by=invitation.invited_by,
                created_at=at,
                expires_at=invitation.expires_at,
            )
        )

    async def has_invitation(self, token_hash: bytes, *, at: datetime) -> bool:
        """Return whether an invitation counts, and leave it."""
        asked = select(InvitationRow.id).where(
            InvitationRow.token_hash == token_hash, InvitationRow.expires_at > at
        )
        return await self._connection.scalar(asked) is not None

    async def use_invitation(self, token_hash: bytes, *, at: datetime) -> Invitation | None:
        """Return an invitation and remove it; None for one that is unknown or too old."""
        row = await self._taken(InvitationRow, token_hash)
        if row is None or row.expires_at <= at:
            return None
        return _invitation(row)

    async def prune(self, at: datetime) -> None:
        """Remove what expired before *at*."""
        for table in (PasswordResetRow, EmailVerificationRow, InvitationRow):
            await self._connection.execute(delete(table).where(table.expires_at < at))

    async def _owner(self, table: Any, token_hash: bytes, at: datetime) -> UUID | None:
        asked = select(table.user_id).where(table.token_hash == token_hash, table.expires_at > at)
        found: UUID | None = await self._connection.scalar(asked)
        return found

    async def _is_young(self, table: Any, user_id: UUID, at: datetime) -> bool:
        asked = select(table.id).where(
            table.user_id == user_id, table.created_at > at - SOONEST_AGAIN
        )
        return await self._connection.scalar(asked) is not None

    async def _taken(self, table: Any, token_hash: bytes) -> Any:
        """Return a row and remove it; of several who try at once, one gets it."""
        asked = select(table).where(table.token_hash == token_hash).with_for_update()
        row = (await self._connection.execute(asked)).one_or_none()
        if row is None:
            return None
        removed: CursorResult[Any] = await self._connection.execute(
            delete(table).where(table.id == row.id)
        )
        return row if removed.rowcount == 1 else None


def _invitation(row: Any) -> Invitation:
    return Invitation(Role(row.role), row.email_key, row.invited_by, row.expires_at)
