"""Leave for good, with all that is one's own."""

from __future__ import annotations

from pydantic import SecretStr

from db.accounts.permissions import Permission, Role
from resolvers.identity import letters
from resolvers.identity.administration import check_other_admin
from resolvers.identity.credentials import check_unused
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import guesses_noted, locked_as_proved, prove_password
from resolvers.identity.second_factor import check_code


async def delete_account(
    identity: Identity,
    principal: Principal,
    password: SecretStr,
    *,
    code: str | None,
    origin: Origin,
) -> None:
    """Remove the principal and all that is theirs. What the audit log keeps names no person.

    Sessions and API tokens end with it, and what was subscribed to by them. Raises `WrongPassword`,
    `CodeNeeded`, `WrongCode`, `CredentialInUse`, `LastAdmin`, `Forbidden`, `TooBusy`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    async with guesses_noted(identity, principal, "delete-account", origin=origin):
        proved = await prove_password(identity, principal, password)
        async with identity.accounts.transaction() as transaction:
            if proved.role is Role.ADMIN:
                await transaction.users.lock_admins()
            user = await locked_as_proved(transaction, proved)
            await check_code(transaction, user.id, code, at=identity.now())
            if user.role is Role.ADMIN:
                await check_other_admin(transaction, user)
            held = await transaction.credentials.of(user.id, lock=True)
            await check_unused(identity, transaction, held)
            await transaction.audit.add(identity.entry("delete-account", origin, user_id=user.id))
            await transaction.audit.forget_person(user.id)
            await transaction.users.delete(user.id)
    identity.checks.forget(user.id)
    identity.mailer.post(letters.account_deleted(user.email))
