"""Remove what is over: expired sessions, tokens and mails, and who never proved their address."""

from __future__ import annotations

from datetime import timedelta

from resolvers.identity.identity import Identity

EVERY_SECONDS = 3_600.0
_UNVERIFIED = timedelta(days=7)
_BATCH = 100


async def prune(identity: Identity) -> None:
    """Remove all of it; harmless while others do the same. Raises `AccountsUnavailable`."""
    now = identity.now()
    async with identity.accounts.transaction() as transaction:
        await transaction.sessions.prune(now)
    async with identity.accounts.transaction() as transaction:
        await transaction.one_time.prune(now)
    async with identity.accounts.transaction() as transaction:
        await transaction.api_tokens.prune(now)
    more = True
    while more:
        async with identity.accounts.transaction() as transaction:
            never_proved = await transaction.users.lock_unverified(now - _UNVERIFIED, most=_BATCH)
            for user_id in never_proved:
                await transaction.audit.forget_person(user_id)
                await transaction.users.delete(user_id)
        more = len(never_proved) == _BATCH
