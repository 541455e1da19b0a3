"""Users: added, found by what they type, changed, and forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from db.accounts.errors import NameTaken, violated
from db.accounts.models.identity import UserRow
from db.accounts.permissions import Role

MOST_PER_PAGE = 500


@dataclass(frozen=True, slots=True)
class User:
    """A person or program with an account. Times are UTC-aware."""

    id: UUID
    username: str
    email: str
    email_verified_at: datetime | None
    role: Role
    token_version: int
    nickname: str | None
    location: str | None
    bio: str | None
    last_login: datetime | None
    registered_at: datetime
    disabled_at: datetime | None
    password_hash: str = field(repr=False)


class UserChange(TypedDict, total=False):
    """Columns of a user that may be given another value."""

    email_verified_at: datetime | None
    password_hash: str
    role: Role
    nickname: str | None
    location: str | None
    bio: str | None
    last_login: datetime | None
    disabled_at: datetime | None


class Users:
    """The users, on one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, user: User) -> None:
        """Add *user*. Raises `NameTaken` for a username or an address that somebody has."""
        values = {name: getattr(user, name) for name in User.__slots__}
        values["role"] = user.role.value
        try:
            # A savepoint: after a refused row the transaction can go on.
            async with self._connection.begin_nested():
                await self._connection.execute(
                    insert(UserRow).values(
                        **values,
                        username_key=name_key(user.username),
                        email_key=name_key(user.email),
                    )
                )
        except IntegrityError as error:
            if "username" in violated(error):
                raise NameTaken("user", field="username") from None
            if "email" in violated(error):
                raise NameTaken("user", field="email") from None
            raise

    async def find(self, id: UUID, *, lock: bool = False) -> User | None:
        """Return a user. With *lock* nobody else changes it until the transaction ends."""
        asked = select(UserRow).where(UserRow.id == id)
        return await self._one(asked.with_for_update() if lock else asked)

    async def named(self, name: str) -> User | None:
        """Return whose username or address *name* is, in whatever case."""
        return await self._one(select(UserRow).where(_is_named(name)))

    async def id_named(self, name: str) -> UUID | None:
        """Return the id of whoever `named` would, and nothing else of them."""
        found: UUID | None = await self._connection.scalar(
            select(UserRow.id).where(_is_named(name))
        )
        return found

    async def page(self, *, first: int, after: str | None = None) -> list[User]:
        """Return at most *first* users by name, those after the username *after*."""
        asked = select(UserRow).order_by(UserRow.username_key).limit(min(first, MOST_PER_PAGE))
        if after is not None:
            asked = asked.where(UserRow.username_key > name_key(after))
        return [_user(row) for row in await self._connection.execute(asked)]

    async def change(self, id: UUID, **values: Unpack[UserChange]) -> None:
        """Give a user other values."""
        plain: dict[str, Any] = dict(values)
        if "role" in values:
            plain["role"] = values["role"].value
        await self._connection.execute(update(UserRow).where(UserRow.id == id).values(**plain))

    async def change_email(self, id: UUID, email: str, *, verified_at: datetime) -> None:
        """Give a user another address, which is theirs. Raises `NameTaken`."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(
                    update(UserRow)
                    .where(UserRow.id == id)
                    .values(email=email, email_key=name_key(email), email_verified_at=verified_at)
                )
        except IntegrityError as error:
            if "email" in violated(error):
                raise NameTaken("user", field="email") from None
            raise

    async def lock_admins(self) -> set[UUID]:
        """Return who can look after the server; they stay so until the transaction ends.

        An admin whose address is not proved cannot sign in, and is forgotten in the end: they do
        not count. The others are locked in one order, so that admins who change each other at once
        do not wait for each other for ever. Whoever locks one of them besides does so after this.
        """
        asked = (
            select(UserRow.id)
            .where(
                UserRow.role == Role.ADMIN.value,
                UserRow.disabled_at.is_(None),
                UserRow.email_verified_at.is_not(None),
            )
            .order_by(UserRow.id)
            .with_for_update()
        )
        return set((await self._connection.scalars(asked)).all())

    async def lock_unverified(self, registered_before: datetime, *, most: int) -> list[UUID]:
        """Return who registered before then and never verified their address, *most* of them."""
        asked = (
            select(UserRow.id)
            .where(UserRow.email_verified_at.is_(None), UserRow.registered_at < registered_before)
            .order_by(UserRow.id)
            .limit(most)
            .with_for_update()
        )
        return list((await self._connection.scalars(asked)).all())

    async def end_tokens(self, id: UUID) -> None:
        """Let no access token count that was issued to the user before."""
        await self._connection.execute(
            update(UserRow).where(UserRow.id == id).values(token_version=UserRow.token_version + 1)
        )

    async def delete(self, id: UUID) -> None:
        """Remove a user and everything that is theirs, but for the audit log."""
        await self._connection.execute(delete(UserRow).where(UserRow.id == id))

    async def _one(self, asked: Any) -> User | None:
        row = (await self._connection.execute(asked)).one_or_none()
        return None if row is None else _user(row)


def name_key(name: str) -> str:
    """Return what two spellings of one username or address have in common. Both are ASCII."""
    return name.lower()


def _is_named(name: str) -> ColumnElement[bool]:
    column = UserRow.email_key if "@" in name else UserRow.username_key
    return column == name_key(name)


def _user(row: Any) -> User:
    values = {name: getattr(row, name) for name in User.__slots__}
    values["role"] = Role(row.role)
    return User(**values)
