"""Ask somebody signed in for their password once more, before what cannot be undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.repositories.users import User
from db.encryption import Unopenable
from resolvers.identity.failures import Unauthenticated, WeakPassword, WrongCode, WrongPassword
from resolvers.identity.identity import Identity
from resolvers.identity.passwords import checked_length
from resolvers.identity.principal import Origin, Principal


async def prove_password(identity: Identity, principal: Principal, password: SecretStr) -> User:
    """Return the user as they are now. Raises `WrongPassword`, `Unauthenticated`, `TooBusy`."""
    try:
        checked_length(password, field="password")
    except WeakPassword:
        raise WrongPassword from None  # too long to be anybody's
    async with identity.accounts.transaction() as transaction:
        user = await transaction.users.find(principal.user_id)
    if user is None:
        raise Unauthenticated
    if not await identity.passwords.verify(user.password_hash, password):
        raise WrongPassword
    return user


async def locked_as_proved(transaction: Transaction, proved: User) -> User:
    """Return *proved* as they are now, until the transaction ends.

    Raises `WrongPassword` if the password was changed while it was checked, `Unauthenticated`.
    """
    user = await transaction.users.find(proved.id, lock=True)
    if user is None:
        raise Unauthenticated
    if user.password_hash != proved.password_hash:
        raise WrongPassword
    return user


@asynccontextmanager
async def guesses_noted(
    identity: Identity, principal: Principal, action: str, *, origin: Origin
) -> AsyncIterator[None]:
    """Keep a wrong password or code in the audit log, whatever else is undone by it.

    Somebody who holds a token of another may guess here. A code that nobody can check, because what
    is stored does not open, is kept as well.
    """
    try:
        yield
    except (WrongPassword, WrongCode, Unopenable) as wrong:
        async with identity.accounts.transaction() as transaction:
            await transaction.audit.add(
                identity.entry(action, origin, user_id=principal.user_id, result=wrong.code)
            )
        raise
