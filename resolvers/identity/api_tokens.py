"""Personal tokens for programs: made with scopes, shown once, revoked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from pydantic import SecretStr

from db.accounts.errors import NotFound
from db.accounts.permissions import PERMISSIONS, SCOPED, Permission, Scope
from db.accounts.repositories.api_tokens import ApiToken
from market.errors import BadInput
from resolvers.callers import Forbidden
from resolvers.identity.checked import checked_name
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.tokens import digest_of, new_api_token

DAYS = 90
MOST_DAYS = 366


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A token that was made just now; *text* is shown this one time."""

    token: ApiToken
    text: SecretStr


async def create_api_token(
    identity: Identity,
    principal: Principal,
    *,
    name: str,
    scopes: Collection[Scope],
    days: int | None = None,
    origin: Origin,
) -> NewApiToken:
    """Make a token that lasts *days* (90). Raises `BadInput`, `TooMany`, and `Forbidden` for a
    scope with nothing in it that the user may do.
    """
    principal.check(Permission.TOKENS_CHANGE)
    checked_name(name, longest=80, field="name")
    lasting = DAYS if days is None else days
    if not 1 <= lasting <= MOST_DAYS:
        raise BadInput(f"days must be from 1 to {MOST_DAYS}, not {lasting}.", field="days")
    if not scopes:
        raise BadInput("A token has one scope at least.", field="scopes")
    for scope in scopes:
        if not SCOPED[scope] <= PERMISSIONS[principal.role]:
            raise Forbidden(f"Your role does not have all that the scope {scope} stands for.")
    prefix, text = new_api_token()
    now = identity.now()
    token = ApiToken(
        id=uuid4(),
        user_id=principal.user_id,
        name=name,
        prefix=prefix,
        scopes=frozenset(scopes),
        created_at=now,
        expires_at=now + timedelta(days=lasting),
        last_used_at=None,
        token_hash=digest_of(text.get_secret_value()),
    )
    async with identity.accounts.transaction() as transaction:
        if await transaction.users.find(principal.user_id, lock=True) is None:
            raise Unauthenticated
        await transaction.api_tokens.add(token)
        await transaction.audit.add(
            identity.entry("create-api-token", origin, user_id=principal.user_id, target=prefix)
        )
    return NewApiToken(token, text)


async def api_tokens(identity: Identity, principal: Principal) -> list[ApiToken]:
    """Return the principal's tokens, the newest first. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.api_tokens.of(principal.user_id)


async def revoke_api_token(
    identity: Identity, principal: Principal, id: UUID, *, origin: Origin
) -> None:
    """End a token. Raises `NotFound`, also if it is somebody else's, and `Forbidden`."""
    principal.check(Permission.TOKENS_CHANGE)
    async with identity.accounts.transaction() as transaction:
        if not await transaction.api_tokens.delete(principal.user_id, id):
            raise NotFound("api token")
        await transaction.audit.add(
            identity.entry("revoke-api-token", origin, user_id=principal.user_id, target=str(id))
        )
    identity.checks.forget(principal.user_id)
