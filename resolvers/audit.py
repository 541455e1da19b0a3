"""The audit log as people read it: their own lines, or for admins everybody's; and new lines."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from db.accounts.permissions import Permission
from db.accounts.repositories.audit import OK, Entry
from market.errors import BadInput
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.paging import checked_count, cursor_of, key_in

FIRST = 50
_LONGEST_ACTION = 60
_LARGEST_ID = 2**63 - 1
_LONGEST_ID = len(str(_LARGEST_ID))


@dataclass(frozen=True, slots=True)
class AuditWanted:
    """Whose lines: of *user_id*, of *everybody*, else one's own; *action* may narrow them."""

    everybody: bool = False
    user_id: UUID | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Lines, the newest first, each with its cursor."""

    entries: tuple[Entry, ...]
    cursors: tuple[str, ...]
    has_previous: bool
    has_next: bool


async def audit_page(
    identity: Identity,
    principal: Principal,
    *,
    wanted: AuditWanted,
    first: int | None = FIRST,
    after: str | None = None,
) -> AuditPage:
    """Return a page of the log.

    Raises `BadInput`, and `Forbidden` for others' lines without the permission to read all.
    """
    principal.check(Permission.ACCOUNT_READ)
    if wanted.everybody and wanted.user_id is not None:
        raise BadInput("Either everybody or a userId, not both.", field="filter")
    others = wanted.everybody or wanted.user_id not in (None, principal.user_id)
    if others:
        principal.check(Permission.AUDIT_READ_ALL)
    user_id = None if wanted.everybody else wanted.user_id or principal.user_id
    if wanted.action is not None and len(wanted.action) > _LONGEST_ACTION:
        raise BadInput(f"action has at most {_LONGEST_ACTION} characters.", field="filter")
    count = checked_count(FIRST if first is None else first, field="first")
    before = _line_at(after) if after is not None else None
    async with identity.accounts.transaction() as transaction:
        found = await transaction.audit.page(
            first=count + 1, before=before, user_id=user_id, action=wanted.action
        )
    shown = found[:count]
    return AuditPage(
        entries=tuple(shown),
        cursors=tuple(cursor_of((str(entry.id),)) for entry in shown),
        has_previous=False,
        has_next=len(found) > count,
    )


async def note(
    identity: Identity,
    principal: Principal,
    action: str,
    *,
    origin: Origin,
    target: str | None,
    result: str = OK,
) -> None:
    """Add a line that says what *principal* did to *target*. Raises `AccountsUnavailable`."""
    entry = identity.entry(
        action,
        origin,
        user_id=principal.user_id,
        actor_id=principal.user_id,
        target=target,
        result=result,
    )
    async with identity.accounts.transaction() as transaction:
        await transaction.audit.add(entry)


def _line_at(cursor: str) -> int:
    match key_in(cursor, field="after"):
        case (text,) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID:
            return min(int(text), _LARGEST_ID)
    raise BadInput("The cursor is not one that this server gave.", field="after")
