"""Take everything that is one's own along, and leave."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from db.accounts.permissions import Permission, Role
from resolvers.identity.failures import (
    CodeNeeded,
    CredentialInUse,
    LastAdmin,
    Unauthenticated,
    WrongCode,
)
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import prove_password
from resolvers.identity.second_factor import code_counts

_PAGE = 500
_MOST_ENTRIES = 10_000
"""Lines of the audit log in one export, the newest."""
# Everything a row has but what proves or opens something.
_USER = [
    "id",
    "username",
    "email",
    "email_verified_at",
    "role",
    "nickname",
    "location",
    "bio",
    "last_login",
    "registered_at",
]
_SESSION = ["id", "created_at", "rotated_at", "expires_at", "idle_expires_at", "address", "agent"]
_API_TOKEN = ["id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at"]
_CREDENTIAL = [
    "id",
    "service",
    "name",
    "testnet",
    "notes",
    "key_hint",
    "created_at",
    "updated_at",
    "last_checked_at",
]
_LAYOUT = [
    "id",
    "name",
    "instrument",
    "is_default",
    "content",
    "version",
    "created_at",
    "updated_at",
]
_PRESET = ["id", "indicator", "name", "content", "version", "created_at", "updated_at"]
_ENTRY = ["at", "action", "target", "result", "address", "request_id"]


async def export_account(
    identity: Identity, principal: Principal, *, origin: Origin
) -> dict[str, Any]:
    """Return all that is kept about the principal as JSON values, without anything secret.

    Times are ISO 8601. Raises `Unauthenticated`, `Forbidden`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    user_id = principal.user_id
    async with identity.accounts.transaction() as transaction:
        user = await transaction.users.find(user_id)
        if user is None:
            raise Unauthenticated
        preferences = await transaction.preferences.of(user_id)
        exported = {
            "user": _plain(user, _USER),
            "secondFactor": await transaction.one_time_codes.is_on(user_id),
            "sessions": _all(await transaction.sessions.of(user_id), _SESSION),
            "apiTokens": _all(await transaction.api_tokens.of(user_id), _API_TOKEN),
            "credentials": _all(await transaction.credentials.of(user_id), _CREDENTIAL),
            "preferences": preferences.content,
            "chartLayouts": _all(await transaction.layouts.of(user_id), _LAYOUT),
            "indicatorPresets": _all(await transaction.presets.of(user_id), _PRESET),
        }
        entries: list[dict[str, Any]] = []
        before = None
        while len(entries) < _MOST_ENTRIES:
            page = await transaction.audit.page(first=_PAGE, before=before, user_id=user_id)
            entries += _all(page, _ENTRY)
            if len(page) < _PAGE:
                break
            before = page[-1].id
        await transaction.audit.add(identity.entry("export-account", origin, user_id=user_id))
    return {**exported, "auditLog": entries}


async def delete_account(
    identity: Identity,
    principal: Principal,
    password: SecretStr,
    *,
    code: str | None,
    origin: Origin,
) -> None:
    """Remove the principal and all that is theirs. What the audit log keeps names no person.

    Raises `WrongPassword`, `CodeNeeded`, `WrongCode`, `CredentialInUse`, `LastAdmin`, `Forbidden`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    user = await prove_password(identity, principal, password)
    async with identity.accounts.transaction() as transaction:
        held = await transaction.credentials.of(user.id)
    using = [
        name
        for credential in held
        for known in identity.credential_users
        for name in await known.users_of(user.id, credential.id)
    ]
    if using:
        raise CredentialInUse(using)
    async with identity.accounts.transaction() as transaction:
        now = await transaction.users.find(user.id, lock=True)
        if now is None:
            raise Unauthenticated
        if await transaction.one_time_codes.is_on(user.id):
            if code is None:
                raise CodeNeeded
            if not await code_counts(transaction, user.id, code, at=identity.now()):
                raise WrongCode
        if now.role is Role.ADMIN and not await transaction.users.other_admins(user.id):
            raise LastAdmin
        await transaction.audit.add(identity.entry("delete-account", origin, user_id=user.id))
        await transaction.audit.forget_person(user.id)
        await transaction.users.delete(user.id)
    identity.checks.forget(user.id)


def _all(rows: Iterable[object], names: list[str]) -> list[dict[str, Any]]:
    return [_plain(row, names) for row in rows]


def _plain(row: object, names: list[str]) -> dict[str, Any]:
    return {name: _json(getattr(row, name)) for name in names}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(value)
    return value
