"""Where somebody is signed in, and how they sign themselves out there."""

from __future__ import annotations

from uuid import UUID

from db.accounts.errors import NotFound
from db.accounts.permissions import Permission
from db.accounts.repositories.sessions import Session
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal


async def sessions(identity: Identity, principal: Principal) -> list[Session]:
    """Return where the principal is signed in, the session used last first. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        held = await transaction.sessions.of(principal.user_id)
    now = identity.now()
    return [session for session in held if session.ends_at > now]


async def end_session(
    identity: Identity, principal: Principal, id: UUID, *, origin: Origin
) -> None:
    """Sign the principal out somewhere. Raises `NotFound`, `Forbidden`."""
    principal.check(Permission.ACCOUNT_CHANGE)
    async with identity.accounts.transaction() as transaction:
        held = await transaction.sessions.of(principal.user_id)
        if id not in {session.id for session in held}:
            raise NotFound("session")
        await transaction.sessions.end(id)
        await transaction.audit.add(
            identity.entry("end-session", origin, user_id=principal.user_id, target=str(id))
        )
    identity.checks.forget(principal.user_id)


async def end_other_sessions(identity: Identity, principal: Principal, *, origin: Origin) -> int:
    """Sign the principal out everywhere but here, and return of how many sessions.

    Raises `Forbidden`, `Unauthenticated`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    here = principal.claims.session_id
    if here is None:
        raise Unauthenticated
    async with identity.accounts.transaction() as transaction:
        ended = await transaction.sessions.end_all(principal.user_id, but=here)
        await transaction.audit.add(
            identity.entry("end-other-sessions", origin, user_id=principal.user_id)
        )
    identity.checks.forget(principal.user_id)
    return ended
