"""What somebody tells of themselves."""

from __future__ import annotations

from typing import TypedDict, Unpack

from db.accounts.permissions import Permission
from db.accounts.repositories.users import User
from resolvers.identity.checked import checked_text
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal

_LONGEST = {"nickname": 80, "location": 120, "bio": 2_000}


class ProfileChange(TypedDict, total=False):
    """What of a profile is to be another; None empties it, what is left out stays."""

    nickname: str | None
    location: str | None
    bio: str | None


async def me(identity: Identity, principal: Principal) -> User:
    """Return the principal's account. Raises `Unauthenticated`, `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        user = await transaction.users.find(principal.user_id)
    if user is None:
        raise Unauthenticated
    return user


async def update_profile(
    identity: Identity, principal: Principal, *, origin: Origin, **change: Unpack[ProfileChange]
) -> User:
    """Change the profile and return the account. Raises `BadInput`, `Forbidden`."""
    principal.check(Permission.ACCOUNT_CHANGE)
    for name, longest in _LONGEST.items():
        value = change.get(name)
        if isinstance(value, str):
            checked_text(value, longest=longest, field=name, lines=name == "bio")
    async with identity.accounts.transaction() as transaction:
        if change:
            await transaction.users.change(principal.user_id, **change)
            await transaction.audit.add(
                identity.entry("update-profile", origin, user_id=principal.user_id)
            )
    return await me(identity, principal)
