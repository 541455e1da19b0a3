"""What admins do about others: invite, give roles, shut out, let in again, turn codes off.

*actor* None stands for whoever is at the server's machine and runs a command.
"""

from __future__ import annotations

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.errors import NotFound
from db.accounts.permissions import Permission, Role
from db.accounts.repositories.one_time import Invitation
from db.accounts.repositories.users import User, name_key
from resolvers.identity import letters
from resolvers.identity.checked import checked_email
from resolvers.identity.failures import LastAdmin, SecondFactorOff
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.tokens import digest_of, new_token


async def invite(
    identity: Identity,
    actor: Principal | None,
    *,
    role: Role,
    email: str | None,
    origin: Origin,
) -> SecretStr:
    """Make an invitation, mail it if it is for an address, and return its token.

    Raises `TooMany`, `BadInput`, `Forbidden`.
    """
    _check(actor)
    if email is not None:
        checked_email(email)
    now, token = identity.now(), new_token()
    invited_by = None if actor is None else actor.user_id
    invitation = Invitation(
        role,
        None if email is None else name_key(email),
        invited_by,
        now + identity.rules.invitation,
    )
    async with identity.accounts.transaction() as transaction:
        await transaction.one_time.keep_invitation(
            digest_of(token.get_secret_value()), invitation, at=now
        )
        await transaction.audit.add(
            identity.entry("invite", origin, user_id=None, actor_id=invited_by, target=role.value)
        )
    if email is not None:
        identity.mailer.post(letters.invitation(email, identity.rules.public_url, token))
    return token


async def users(
    identity: Identity, actor: Principal | None, *, first: int, after: str | None = None
) -> list[User]:
    """Return at most *first* users by name, those after the username *after*."""
    _check(actor)
    async with identity.accounts.transaction() as transaction:
        return await transaction.users.page(first=first, after=after)


async def set_role(
    identity: Identity, actor: Principal | None, username: str, role: Role, *, origin: Origin
) -> User:
    """Give a user another role, which counts at their next check.

    Raises `NotFound`, `LastAdmin`, `Forbidden`.
    """
    _check(actor)
    async with identity.accounts.transaction() as transaction:
        user = await _locked(transaction, username)
        if user.role is Role.ADMIN and role is not Role.ADMIN:
            await check_other_admin(transaction, user)
        await transaction.users.change(user.id, role=role)
        await transaction.audit.add(
            identity.entry(
                "set-role",
                origin,
                user_id=user.id,
                actor_id=None if actor is None else actor.user_id,
                target=role.value,
            )
        )
    identity.checks.forget(user.id)
    return user


async def set_disabled(
    identity: Identity,
    actor: Principal | None,
    username: str,
    disabled: bool,
    *,
    origin: Origin,
) -> User:
    """Shut a user out, everywhere and at once, or let them in again.

    Raises `NotFound`, `LastAdmin`, `Forbidden`.
    """
    _check(actor)
    async with identity.accounts.transaction() as transaction:
        user = await _locked(transaction, username)
        if disabled and user.role is Role.ADMIN:
            await check_other_admin(transaction, user)
        await transaction.users.change(user.id, disabled_at=identity.now() if disabled else None)
        if disabled:
            await transaction.sessions.end_all(user.id)
        await transaction.audit.add(
            identity.entry(
                "disable" if disabled else "enable",
                origin,
                user_id=user.id,
                actor_id=None if actor is None else actor.user_id,
            )
        )
    identity.checks.forget(user.id)
    return user


async def turn_off_codes(
    identity: Identity, actor: Principal | None, username: str, *, origin: Origin
) -> User:
    """Let a user sign in by the password alone, who lost their phone and all recovery codes.

    Their sessions end, and they are told by mail: whoever asked for it may not have been they.
    Raises `NotFound`, `SecondFactorOff`, `Forbidden`.
    """
    _check(actor)
    async with identity.accounts.transaction() as transaction:
        user = await _locked(transaction, username)
        if not await transaction.one_time_codes.is_on(user.id):
            raise SecondFactorOff
        await transaction.one_time_codes.delete(user.id)
        await transaction.sessions.end_all(user.id)
        await transaction.audit.add(
            identity.entry(
                "second-factor.off",
                origin,
                user_id=user.id,
                actor_id=None if actor is None else actor.user_id,
            )
        )
    identity.checks.forget(user.id)
    identity.mailer.post(letters.codes_turned_off(user.email, identity.rules.public_url))
    return user


def _check(actor: Principal | None) -> None:
    if actor is not None:
        actor.check(Permission.USERS_CHANGE)


async def _locked(transaction: Transaction, username: str) -> User:
    """Return a user as they are until the transaction ends. Raises `NotFound`."""
    named = await transaction.users.named(username)
    if named is not None and named.role is Role.ADMIN:
        await transaction.users.lock_admins()
    user = None if named is None else await transaction.users.find(named.id, lock=True)
    if user is None:
        raise NotFound("user")
    return user


async def check_other_admin(transaction: Transaction, user: User) -> None:
    """Return if somebody else can look after the server. Raises `LastAdmin`."""
    if await transaction.users.lock_admins() <= {user.id}:
        raise LastAdmin
