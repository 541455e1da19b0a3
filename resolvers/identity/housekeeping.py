"""Remove what is over: expired sessions, tokens and mails, and who never proved their address."""

from __future__ import annotations

from datetime import timedelta

from resolvers.identity.identity import Identity

EVERY_SECONDS = 3_600.0
_UNVERIFIED = timedelta(days=7)


async def prune(identity: Identity) -> None:
    """Remove all of it; harmless while others do the same. Raises `AccountsUnavailable`."""
    now = identity.now()
    async with identity.accounts.transaction() as transaction:
        await transaction.sessions.prune(now)
    async with identity.accounts.transaction() as transaction:
        await transaction.one_time.prune(now)
    async with identity.accounts.transaction() as transaction:
        await transaction.api_tokens.prune(now)
    async with identity.accounts.transaction() as transaction:
        await transaction.users.prune_unverified(now - _UNVERIFIED)
