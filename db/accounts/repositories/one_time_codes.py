"""Second factors: the shared secret of one-time codes, encrypted, and codes for when it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr
from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.models.identity import RecoveryCodeRow, TotpRow
from db.encryption import KeyRing, Sealed, Wrapped

_FIELD = "totp"


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """What a user's authenticator was given, encrypted; it counts once *confirmed_at* is set."""

    user_id: UUID
    sealed: Sealed
    confirmed_at: datetime | None
    last_step: int


class OneTimeCodes:
    """The second factors, on one transaction's connection."""

    def __init__(self, connection: AsyncConnection, ring: KeyRing) -> None:
        self._connection = connection
        self._ring = ring

    async def put(self, user_id: UUID, secret: SecretStr, *, at: datetime) -> None:
        """Keep a secret that is still to be confirmed, in place of any other."""
        await self.delete(user_id)
        sealed = self._ring.seal({_FIELD: secret}, owner=user_id, row=user_id)
        await self._connection.execute(
            insert(TotpRow).values(
                user_id=user_id,
                secret_ciphertext=sealed.fields[_FIELD],
                data_key=sealed.wrapped.data_key,
                key_id=sealed.wrapped.key_id,
                created_at=at,
                confirmed_at=None,
                last_step=0,
            )
        )

    async def locked(self, user_id: UUID) -> SharedSecret | None:
        """Return a user's secret as it is kept; nobody else uses its codes until this is over."""
        asked = select(TotpRow).where(TotpRow.user_id == user_id).with_for_update()
        row = (await self._connection.execute(asked)).one_or_none()
        if row is None:
            return None
        sealed = Sealed(Wrapped(row.key_id, row.data_key), {_FIELD: row.secret_ciphertext})
        return SharedSecret(user_id, sealed, row.confirmed_at, row.last_step)

    def opened(self, shared: SharedSecret) -> SecretStr:
        """Return what codes are made of. Raises `SealBroken`, `UnknownEncryptionKey`."""
        return self._ring.open(shared.sealed, owner=shared.user_id, row=shared.user_id)[_FIELD]

    async def is_on(self, user_id: UUID) -> bool:
        """Return whether a user needs a code to log in."""
        asked = select(TotpRow.user_id).where(
            TotpRow.user_id == user_id, TotpRow.confirmed_at.is_not(None)
        )
        return await self._connection.scalar(asked) is not None

    async def note_step(
        self, user_id: UUID, step: int, *, confirmed_at: datetime | None = None
    ) -> None:
        """Note the step whose code was used, so that it does not count twice."""
        values: dict[str, Any] = {"last_step": step}
        if confirmed_at is not None:
            values["confirmed_at"] = confirmed_at
        await self._connection.execute(
            update(TotpRow).where(TotpRow.user_id == user_id).values(**values)
        )

    async def delete(self, user_id: UUID) -> None:
        """Forget a user's secret and recovery codes."""
        await self._connection.execute(
            delete(RecoveryCodeRow).where(RecoveryCodeRow.user_id == user_id)
        )
        await self._connection.execute(delete(TotpRow).where(TotpRow.user_id == user_id))

    async def put_recovery_codes(self, user_id: UUID, hashes: Sequence[bytes]) -> None:
        """Keep the hashes of new recovery codes in place of the old ones."""
        await self._connection.execute(
            delete(RecoveryCodeRow).where(RecoveryCodeRow.user_id == user_id)
        )
        await self._connection.execute(
            insert(RecoveryCodeRow),
            [{"id": uuid4(), "user_id": user_id, "code_hash": digest} for digest in hashes],
        )

    async def use_recovery_code(self, user_id: UUID, digest: bytes) -> bool:
        """Remove a recovery code; return whether it was one."""
        removed: CursorResult[Any] = await self._connection.execute(
            delete(RecoveryCodeRow).where(
                RecoveryCodeRow.user_id == user_id, RecoveryCodeRow.code_hash == digest
            )
        )
        return removed.rowcount == 1

    async def recovery_codes_left(self, user_id: UUID) -> int:
        """Return how many recovery codes a user has."""
        count = await self._connection.scalar(
            select(func.count())
            .select_from(RecoveryCodeRow)
            .where(RecoveryCodeRow.user_id == user_id)
        )
        return count or 0
