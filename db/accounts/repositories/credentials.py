"""Keys at venues: kept encrypted, listed by their last four characters, opened for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import NameTaken, NotFound, TooMany, VersionConflict, violated
from db.accounts.models.credentials import CredentialRow as Row
from db.encryption import KeyRing, Sealed, Wrapped

MOST_CREDENTIALS = 50
"""Credentials of one user."""
KEY, SECRET, AUX = "key", "secret", "aux"
_HINT = 4
_SHORTEST_WITH_HINT = 12
"""Of a shorter key four characters would tell too much."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user's key at a venue as its owner sees it: nothing of it but *key_hint*, its end."""

    id: UUID
    user_id: UUID
    service: str
    name: str
    testnet: bool
    notes: str | None
    key_hint: str
    created_at: datetime
    updated_at: datetime
    last_checked_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True)
class CredentialSecrets:
    """What opens a venue: key, secret, and what else it wants (a passphrase); never shown."""

    key: SecretStr
    secret: SecretStr
    aux: SecretStr | None = None

    def fields(self) -> dict[str, SecretStr]:
        found = {KEY: self.key, SECRET: self.secret}
        return found if self.aux is None else {**found, AUX: self.aux}

    @property
    def hint(self) -> str:
        """The last four characters of the key, none of a short one."""
        key = self.key.get_secret_value()
        return key[-_HINT:] if len(key) >= _SHORTEST_WITH_HINT else ""


class Credentials:
    """The credentials, on one transaction's connection, opened by *ring*."""

    def __init__(self, connection: AsyncConnection, ring: KeyRing) -> None:
        self._connection = connection
        self._ring = ring

    async def add(self, credential: Credential, secrets: CredentialSecrets) -> None:
        """Add a credential; its user's row must be locked. Raises `NameTaken`, `TooMany`."""
        count = await self._connection.scalar(
            select(func.count()).select_from(Row).where(Row.user_id == credential.user_id)
        )
        if (count or 0) >= MOST_CREDENTIALS:
            raise TooMany("credential", most=MOST_CREDENTIALS)
        values = {name: getattr(credential, name) for name in Credential.__slots__}
        values |= self._sealed(credential.user_id, credential.id, secrets)
        await self._written(insert(Row).values(**values))

    async def find(self, user_id: UUID, id: UUID, *, lock: bool = False) -> Credential:
        """Return a credential of a user. Raises `NotFound`, also if it is somebody else's.

        With *lock* it stays as it is until the transaction ends.
        """
        return _credential(await self._row(user_id, id, lock=lock))

    async def of(self, user_id: UUID, *, lock: bool = False) -> list[Credential]:
        """Return the credentials of a user by service and name."""
        asked = select(Row).where(Row.user_id == user_id).order_by(Row.service, Row.name)
        if lock:
            asked = asked.with_for_update()
        return [_credential(row) for row in await self._connection.execute(asked)]

    async def opened(self, user_id: UUID, id: UUID) -> tuple[Credential, CredentialSecrets]:
        """Return a credential with its keys, for use at its venue.

        Both are of one reading: keys of one version with the testnet flag of another would be shown
        to the wrong world. Raises `NotFound`, `SealBroken`, `UnknownEncryptionKey`.
        """
        row = await self._row(user_id, id)
        fields = {KEY: row.key_ciphertext, SECRET: row.secret_ciphertext, AUX: row.aux_ciphertext}
        sealed = Sealed(
            Wrapped(row.key_id, row.data_key),
            {name: value for name, value in fields.items() if value is not None},
        )
        keys = self._ring.open(sealed, owner=user_id, row=id)
        return _credential(row), CredentialSecrets(keys[KEY], keys[SECRET], keys.get(AUX))

    async def change(
        self,
        user_id: UUID,
        id: UUID,
        *,
        version: int,
        at: datetime,
        values: Mapping[str, Any],
        secrets: CredentialSecrets | None,
    ) -> Credential:
        """Give a credential other *values* (name, testnet, notes) and, if given, other keys.

        Raises `NotFound`, `VersionConflict`, `NameTaken`.
        """
        row = await self._row(user_id, id, lock=True)
        if row.version != version:
            raise VersionConflict("credential", current=row.version)
        written = {**values, "version": version + 1, "updated_at": at}
        if secrets is not None:
            written |= self._sealed(user_id, id, secrets) | {"key_hint": secrets.hint}
        if secrets is not None or values.get("testnet", row.testnet) != row.testnet:
            # Other keys, or another world: that the venue took the last ones says nothing of it.
            written["last_checked_at"] = None
        await self._written(update(Row).where(Row.id == id).values(**written))
        return await self.find(user_id, id)

    async def note_check(self, user_id: UUID, id: UUID, *, version: int, at: datetime) -> None:
        """Note that the venue took the keys of this *version*."""
        await self._connection.execute(
            update(Row)
            .where(Row.id == id, Row.user_id == user_id, Row.version == version)
            .values(last_checked_at=at)
        )

    async def delete(self, user_id: UUID, id: UUID) -> None:
        """Remove a credential, whose row must be locked."""
        await self._connection.execute(delete(Row).where(Row.id == id, Row.user_id == user_id))

    def _sealed(self, user_id: UUID, id: UUID, secrets: CredentialSecrets) -> dict[str, Any]:
        sealed = self._ring.seal(secrets.fields(), owner=user_id, row=id)
        return {
            "key_ciphertext": sealed.fields[KEY],
            "secret_ciphertext": sealed.fields[SECRET],
            "aux_ciphertext": sealed.fields.get(AUX),
            "data_key": sealed.wrapped.data_key,
            "key_id": sealed.wrapped.key_id,
        }

    async def _row(self, user_id: UUID, id: UUID, *, lock: bool = False) -> Any:
        asked = select(Row).where(Row.id == id, Row.user_id == user_id)
        if lock:
            asked = asked.with_for_update()
        row = (await self._connection.execute(asked)).one_or_none()
        if row is None:
            raise NotFound("credential")
        return row

    async def _written(self, statement: Any) -> None:
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(statement)
        except IntegrityError as error:
            if violated(error) == "uq_user_api_credentials_user_id_service_name":
                raise NameTaken("credential", field="name") from None
            raise


def _credential(row: Any) -> Credential:
    return Credential(**{name: getattr(row, name) for name in Credential.__slots__})
