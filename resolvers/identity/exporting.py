"""Take everything that is kept about one along, without what is secret."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.permissions import Permission
from db.accounts.repositories.users import User
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import guesses_noted, locked_as_proved, prove_password
from resolvers.identity.second_factor import state_in

MOST_LINES = 10_000
"""Lines of the audit log in one export, the newest."""
_PAGE = 500
_STATES = ("version", "created_at", "updated_at")
# Everything a row has but what proves or opens something.
_USER = (
    *("id", "username", "email", "email_verified_at", "role", "nickname", "location", "bio"),
    *("last_login", "registered_at"),
)
_SECOND_FACTOR = ("is_on", "recovery_codes_left")
_INVITATION = ("role", "email_key", "expires_at")
_SESSION = ("id", "created_at", "rotated_at", "expires_at", "idle_expires_at", "address", "agent")
_API_TOKEN = ("id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at")
_CREDENTIAL = (
    *("id", "service", "name", "testnet", "notes", "key_hint", "last_checked_at"),
    *_STATES,
)
_PREFERENCES = ("content", "version", "updated_at")
_LAYOUT = ("id", "name", "instrument", "is_default", "content", *_STATES)
_PRESET = ("id", "indicator", "name", "content", *_STATES)
_LINE = ("at", "action", "target", "result", "address", "request_id")


async def export_account(
    identity: Identity, principal: Principal, password: SecretStr, *, origin: Origin
) -> dict[str, Any]:
    """Return all that is kept about the principal as JSON values, without anything secret.

    Times are ISO 8601; names are those of the API where it has the same. How much it is, is bounded
    by what anybody may save and by `MOST_LINES`. Raises `WrongPassword`, `Forbidden`, `TooBusy`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    async with guesses_noted(identity, principal, "export-account", origin=origin):
        proved = await prove_password(identity, principal, password)
        async with identity.accounts.transaction() as transaction:
            user = await locked_as_proved(transaction, proved)
            await transaction.audit.add(identity.entry("export-account", origin, user_id=user.id))
            return {
                **await _of_account(transaction, user, at=identity.now()),
                **await _of_saved_work(transaction, user.id),
                "auditLog": await _lines(transaction, user.id),
            }


async def _of_account(transaction: Transaction, user: User, *, at: datetime) -> dict[str, Any]:
    one_time = transaction.one_time
    return {
        "user": _plain(user, _USER),
        "emailToVerify": await one_time.address_to_verify(user.id, at=at),
        "secondFactor": _plain(await state_in(transaction, user.id), _SECOND_FACTOR),
        "invitations": _all(await one_time.invitations_by(user.id), _INVITATION),
        "sessions": _all(await transaction.sessions.of(user.id), _SESSION),
        "apiTokens": _all(await transaction.api_tokens.of(user.id), _API_TOKEN),
        "credentials": _all(await transaction.credentials.of(user.id), _CREDENTIAL),
    }


async def _of_saved_work(transaction: Transaction, user_id: UUID) -> dict[str, Any]:
    return {
        "preferences": _plain(await transaction.preferences.of(user_id), _PREFERENCES),
        "chartLayouts": _all(await transaction.layouts.of(user_id), _LAYOUT),
        "indicatorPresets": _all(await transaction.presets.of(user_id), _PRESET),
    }


async def _lines(transaction: Transaction, user_id: UUID) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    before = None
    while len(lines) < MOST_LINES:
        page = await transaction.audit.page_of_person(user_id, first=_PAGE, before=before)
        lines += _all(page, _LINE)
        if len(page) < _PAGE:
            break
        before = page[-1].id
    return lines


def _all(rows: Iterable[object], names: Iterable[str]) -> list[dict[str, Any]]:
    return [_plain(row, names) for row in rows]


def _plain(row: object, names: Iterable[str]) -> dict[str, Any]:
    return {_camel(name): _json(getattr(row, name)) for name in names}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


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
