"""The audit log as people read it, their own lines or for admins everybody's; how it changes."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from db.accounts.errors import AccountsUnavailable
from db.accounts.permissions import Permission
from db.accounts.repositories.audit import Entry
from market.errors import BadInput
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.paging import checked_count, cursor_of, key_in

log = logging.getLogger(__name__)

FIRST = 50
FORGOTTEN = "audit-retention"
"""What the log calls the removal of its own old lines."""
_BATCH, _MOST_BATCHES = 1_000, 200
"""Lines that are removed in one transaction, and how often in one round."""
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
    action = wanted.action or ""
    if len(action) > _LONGEST_ACTION or not action.isprintable():
        raise BadInput(
            f"action has at most {_LONGEST_ACTION} characters, and none that cannot be shown.",
            field="filter",
        )
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
) -> None:
    """Add a line that says what *principal* did to *target*. Raises `AccountsUnavailable`."""
    async with identity.accounts.transaction() as transaction:
        await transaction.audit.add(
            identity.entry(action, origin, user_id=principal.user_id, target=target)
        )


async def note_refusal(
    identity: Identity,
    principal: Principal | None,
    action: str,
    *,
    origin: Origin,
    target: str | None,
    result: str,
) -> None:
    """Add a line that says what was refused to whom, *principal* None for somebody unknown.

    Nothing was done that needs a line, and the refusal stands whether there is one or not. So what
    keeps the line from being written is told in the log alone.
    """
    who = None if principal is None else principal.user_id
    entry = identity.entry(action, origin, user_id=who, actor_id=who, target=target, result=result)
    try:
        async with identity.accounts.transaction() as transaction:
            await transaction.audit.add(entry)
    except AccountsUnavailable:
        log.warning("%s was refused (%s), and the audit log cannot say so", action, result)
    except Exception:
        # A bug of ours, which must not turn the refusal into an error of another kind.
        error_id = secrets.token_hex(8)
        log.exception(
            "error %s: %s was refused (%s), and the audit log does not say so",
            error_id,
            action,
            result,
        )


async def forget_old(identity: Identity, keep: timedelta) -> int:
    """Remove the lines of days that were over before *keep*, and return how many those were.

    Each batch is removed together with a new line that says how many, so that the log tells of
    everything that was ever taken out of it. Harmless while others do the same. Raises
    `AccountsUnavailable`.
    """
    day = (identity.now() - keep).replace(hour=0, minute=0, second=0, microsecond=0)
    gone = 0
    for _ in range(_MOST_BATCHES):
        async with identity.accounts.transaction() as transaction:
            removed = await transaction.audit.remove_oldest(day, most=_BATCH)
            if not removed:
                break
            target = f"{removed} lines from before {day:%Y-%m-%d}"
            await transaction.audit.add(
                identity.entry(FORGOTTEN, Origin(), user_id=None, target=target)
            )
        gone += removed
    return gone


def _line_at(cursor: str) -> int:
    match key_in(cursor, field="after"):
        case (text,) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID:
            return min(int(text), _LARGEST_ID)
    raise BadInput("The cursor is not one that this server gave.", field="after")
