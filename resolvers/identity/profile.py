"""What somebody tells of themselves, and the address their mail goes to."""

from __future__ import annotations

from typing import TypedDict, Unpack

from pydantic import SecretStr

from db.accounts.permissions import Permission
from db.accounts.repositories.sessions import Session
from db.accounts.repositories.users import User
from resolvers.identity import letters
from resolvers.identity.checked import checked_email, checked_text
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import prove_password
from resolvers.identity.tokens import digest_of, new_token

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


async def sessions(identity: Identity, principal: Principal) -> list[Session]:
    """Return where the principal is signed in, the session used last first. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.sessions.of(principal.user_id)


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


async def change_email(
    identity: Identity, principal: Principal, *, password: SecretStr, email: str, origin: Origin
) -> None:
    """Send a mail to another address, which is the account's once its link was followed.

    The same answer for an address that somebody has. Raises `WrongPassword`, `BadInput`,
    `Forbidden`, `TooBusy`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    checked_email(email)
    user = await prove_password(identity, principal, password)
    now, token = identity.now(), new_token()
    kept = False
    async with identity.accounts.transaction() as transaction:
        if await transaction.users.named(email) is None:
            await transaction.users.find(user.id, lock=True)
            kept = await transaction.one_time.keep_verification(
                user.id,
                digest_of(token.get_secret_value()),
                email=email,
                at=now,
                expires_at=now + identity.rules.verification,
            )
        await transaction.audit.add(identity.entry("change-email", origin, user_id=user.id))
    if kept:
        identity.mailer.post(letters.verification(email, identity.rules.public_url, token))
