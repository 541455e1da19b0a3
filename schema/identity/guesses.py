"""Count tries at what only its owner should know, by whoever is signed in."""

from __future__ import annotations

from resolvers.identity.principal import Principal
from schema.context import Context


async def guessing(context: Context) -> Principal:
    """Return who asks, once a try at their password or code is counted like one to sign in.

    Raises `Unauthenticated`, `RateLimited`.
    """
    principal = context.principal
    await context.attempts.login(principal.username)
    return principal
