"""Ask somebody signed in for their password once more, before what cannot be undone."""

from __future__ import annotations

from pydantic import SecretStr

from db.accounts.repositories.users import User
from resolvers.identity.failures import Unauthenticated, WrongPassword
from resolvers.identity.identity import Identity
from resolvers.identity.passwords import checked_length
from resolvers.identity.principal import Principal


async def prove_password(identity: Identity, principal: Principal, password: SecretStr) -> User:
    """Return the user as they are now. Raises `WrongPassword`, `Unauthenticated`, `TooBusy`."""
    checked_length(password, field="password")
    async with identity.accounts.transaction() as transaction:
        user = await transaction.users.find(principal.user_id)
    if user is None:
        raise Unauthenticated
    if not await identity.passwords.verify(user.password_hash, password):
        raise WrongPassword
    return user
