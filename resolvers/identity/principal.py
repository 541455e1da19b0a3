"""Who somebody proved to be, and what that lets them do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pydantic import SecretStr

from db.accounts.permissions import Permission, Role, Scope
from resolvers.callers import Forbidden


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, for the audit log: an address, our id for it, and its program."""

    address: str | None = None
    request_id: str | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token proved when it was read: by a session or by an API token, one of the two.

    *version* is the user's `token_version` when the access token was issued, *key_id* names the key
    that signed it; None for an API token. *expires_at* is in ms.
    """

    user_id: UUID
    expires_at: int
    session_id: UUID | None = None
    api_token_id: UUID | None = None
    version: int | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A user as of the last check, with what they may do by the token that they showed.

    *expires_at* is when that token stops to count, in ms. *scopes* are an API token's.
    """

    user_id: UUID
    username: str
    role: Role
    permissions: frozenset[Permission]
    claims: Claims
    expires_at: int
    scopes: frozenset[Scope] | None = None

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def check(self, permission: Permission) -> None:
        """Return if the principal has *permission*. Raises `Forbidden`."""
        if permission not in self.permissions:
            raise Forbidden(f"This needs the permission {permission.value}, which is not yours.")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token and until when it counts, in ms."""

    text: SecretStr
    expires_at: int


class AccessTokens(Protocol):
    """Signs and reads access tokens; what reads them needs no database."""

    def sign(self, *, user_id: UUID, session_id: UUID, version: int) -> AccessToken: ...

    def read(self, text: str) -> Claims:
        """Return what a token says. Raises `Unauthenticated` for one that does not count."""
        ...

    def trusts(self, key_id: str) -> bool:
        """Whether tokens that this key signed count. It may be taken out at any time."""
        ...


@dataclass(frozen=True, slots=True)
class Mail:
    """A letter in plain text. Its text holds a secret; it shows only where it goes."""

    to: str
    subject: str
    text: SecretStr


class Mailer(Protocol):
    """Sends mail in its own time, so that nobody can tell from waiting whether one was sent."""

    def post(self, mail: Mail) -> None: ...


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a login or a refresh gives. *refresh_expires_at* is when it must have been used."""

    user_id: UUID
    session_id: UUID
    access: AccessToken
    refresh: SecretStr
    refresh_expires_at: datetime
