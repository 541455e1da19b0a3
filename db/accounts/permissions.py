"""What each role may do: the one place that says so.

The tables `roles`, `permissions` and `role_permissions` repeat it, for whoever reads the database.
A migration seeds them; a start is refused while they differ from what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What somebody is to this server."""

    ADMIN = "admin"
    USER = "user"
    READ_ONLY = "read-only"


class Permission(StrEnum):
    """One thing that not everybody may do. All but the last three concern one's own only."""

    ACCOUNT_READ = "account.read"
    ACCOUNT_CHANGE = "account.change"
    """Profile, password, e-mail, sessions, second factor, deletion."""
    TOKENS_CHANGE = "tokens.change"
    SAVED_WORK_CHANGE = "saved-work.change"
    CREDENTIALS_READ = "credentials.read"
    CREDENTIALS_CHANGE = "credentials.change"
    ORDERS_READ = "orders.read"
    ORDERS_PLACE = "orders.place"
    BOTS_READ = "bots.read"
    BOTS_CHANGE = "bots.change"
    BACKFILLS_RUN = "backfills.run"
    AUDIT_READ_ALL = "audit.read-all"
    USERS_CHANGE = "users.change"


_READING = frozenset(
    {
        Permission.ACCOUNT_READ,
        Permission.CREDENTIALS_READ,
        Permission.ORDERS_READ,
        Permission.BOTS_READ,
    }
)
_ADMINS_ONLY = frozenset(
    {Permission.BACKFILLS_RUN, Permission.AUDIT_READ_ALL, Permission.USERS_CHANGE}
)

PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.USER: frozenset(Permission) - _ADMINS_ONLY,
    # They look after their own password and their own charts, and touch nothing that trades.
    Role.READ_ONLY: _READING | {Permission.ACCOUNT_CHANGE, Permission.SAVED_WORK_CHANGE},
}


class Scope(StrEnum):
    """What an API token was made for."""

    READ = "read"
    TRADE = "trade"
    BOTS = "bots"


SCOPED: Mapping[Scope, frozenset[Permission]] = {
    Scope.READ: _READING,
    Scope.TRADE: frozenset({Permission.ORDERS_READ, Permission.ORDERS_PLACE}),
    Scope.BOTS: frozenset({Permission.BOTS_READ, Permission.BOTS_CHANGE}),
}
"""No scope lets a token change the account, its keys or its tokens."""
