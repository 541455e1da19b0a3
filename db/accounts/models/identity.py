"""Tables of who may do what, and of how they prove who they are.

What is secret in these tables is a hash: passwords by Argon2id, random tokens by SHA-256.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.accounts.columns import Exact, Id, Instant, Octets
from db.accounts.models.base import MARIADB_OPTIONS, Table

Key = Annotated[UUID, mapped_column(Id, primary_key=True)]
OwnerId = Annotated[UUID, mapped_column(Id, ForeignKey("users.id", ondelete="CASCADE"), index=True)]
OwnerKey = Annotated[
    UUID, mapped_column(Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
]
Time = Annotated[datetime, mapped_column(Instant)]
MaybeTime = Annotated[datetime | None, mapped_column(Instant)]
TokenHash = Annotated[bytes, mapped_column(Octets(32), unique=True)]


class RoleRow(Table):
    __tablename__ = "roles"
    name: Mapped[str] = mapped_column(Exact(40), primary_key=True)


class PermissionRow(Table):
    __tablename__ = "permissions"
    name: Mapped[str] = mapped_column(Exact(60), primary_key=True)


class RolePermissionRow(Table):
    __tablename__ = "role_permissions"
    role: Mapped[str] = mapped_column(Exact(40), ForeignKey("roles.name"), primary_key=True)
    permission: Mapped[str] = mapped_column(
        Exact(60), ForeignKey("permissions.name"), primary_key=True
    )


class UserRow(Table):
    """*username_key* and *email_key* are lower case and unique; the others are as typed.

    *token_version* grows when everything issued before must stop to count.
    """

    __tablename__ = "users"
    id: Mapped[Key]
    username: Mapped[str] = mapped_column(Exact(32))
    username_key: Mapped[str] = mapped_column(Exact(32), unique=True)
    email: Mapped[str] = mapped_column(Exact(254))
    email_key: Mapped[str] = mapped_column(Exact(254), unique=True)
    email_verified_at: Mapped[MaybeTime]
    password_hash: Mapped[str] = mapped_column(Exact(255))
    role: Mapped[str] = mapped_column(Exact(40), ForeignKey("roles.name"))
    token_version: Mapped[int] = mapped_column(Integer)
    nickname: Mapped[str | None] = mapped_column(Exact(80))
    location: Mapped[str | None] = mapped_column(Exact(120))
    bio: Mapped[str | None] = mapped_column(Exact(2000))
    last_login: Mapped[MaybeTime]
    registered_at: Mapped[Time]
    disabled_at: Mapped[MaybeTime]


class PasswordResetRow(Table):
    __tablename__ = "password_resets"
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    token_hash: Mapped[TokenHash]
    created_at: Mapped[Time]
    expires_at: Mapped[Time]


class EmailVerificationRow(Table):
    __tablename__ = "email_verifications"
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    token_hash: Mapped[TokenHash]
    email: Mapped[str] = mapped_column(Exact(254))
    created_at: Mapped[Time]
    expires_at: Mapped[Time]


class InvitationRow(Table):
    """An invitation that was not used yet; one that was is deleted."""

    __tablename__ = "invitations"
    id: Mapped[Key]
    token_hash: Mapped[TokenHash]
    role: Mapped[str] = mapped_column(Exact(40), ForeignKey("roles.name"))
    email_key: Mapped[str | None] = mapped_column(Exact(254))
    invited_by: Mapped[UUID | None] = mapped_column(Id, ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[Time]
    expires_at: Mapped[Time]


class RefreshSessionRow(Table):
    """One family of refresh tokens: the token that counts and the one before it.

    *lookup* is in every token of the family and nowhere else. *salt* made the current token out of
    the previous one.
    """

    __tablename__ = "refresh_sessions"
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    lookup: Mapped[bytes] = mapped_column(Octets(16), unique=True)
    token_hash: Mapped[bytes] = mapped_column(Octets(32))
    previous_hash: Mapped[bytes | None] = mapped_column(Octets(32))
    salt: Mapped[bytes | None] = mapped_column(Octets(32))
    created_at: Mapped[Time]
    rotated_at: Mapped[Time]
    expires_at: Mapped[Time]
    idle_expires_at: Mapped[Time]
    address: Mapped[str | None] = mapped_column(Exact(64))
    agent: Mapped[str | None] = mapped_column(Exact(200))


class ApiTokenRow(Table):
    __tablename__ = "api_tokens"
    id: Mapped[Key]
    user_id: Mapped[OwnerId]
    name: Mapped[str] = mapped_column(Exact(80))
    prefix: Mapped[str] = mapped_column(Exact(16), unique=True)
    token_hash: Mapped[bytes] = mapped_column(Octets(32))
    scopes: Mapped[str] = mapped_column(Exact(100))
    created_at: Mapped[Time]
    expires_at: Mapped[Time]
    last_used_at: Mapped[MaybeTime]


class TotpRow(Table):
    """The shared secret of one-time codes. *last_step* is the newest 30 s step that was used."""

    __tablename__ = "user_totp"
    user_id: Mapped[OwnerKey]
    secret_ciphertext: Mapped[bytes] = mapped_column(Octets(255))
    data_key: Mapped[bytes] = mapped_column(Octets(100))
    key_id: Mapped[str] = mapped_column(Exact(16), index=True)
    created_at: Mapped[Time]
    confirmed_at: Mapped[MaybeTime]
    last_step: Mapped[int] = mapped_column(BigInteger)


class RecoveryCodeRow(Table):
    """A code that stands in for a one-time code once; deleted when it is used."""

    __tablename__ = "recovery_codes"
    __table_args__ = (UniqueConstraint("user_id", "code_hash"), MARIADB_OPTIONS)
    id: Mapped[Key]
    user_id: Mapped[UUID] = mapped_column(Id, ForeignKey("users.id", ondelete="CASCADE"))
    code_hash: Mapped[bytes] = mapped_column(Octets(32))


class AuditRow(Table):
    """What somebody did. It outlives the account it tells of, so it refers to no other table."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "user_id", "id"),
        Index(None, "actor_id", "id"),
        MARIADB_OPTIONS,
    )
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    at: Mapped[Time]
    user_id: Mapped[UUID | None] = mapped_column(Id)
    actor_id: Mapped[UUID | None] = mapped_column(Id)
    action: Mapped[str] = mapped_column(Exact(60))
    target: Mapped[str | None] = mapped_column(Exact(120))
    result: Mapped[str] = mapped_column(Exact(60))
    address: Mapped[str | None] = mapped_column(Exact(64))
    request_id: Mapped[str | None] = mapped_column(Exact(64))
