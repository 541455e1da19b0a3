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
from resolvers.identity import letters
from resolvers.identity.checked import checked_name
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import guesses_noted, locked_as_proved, prove_password
from resolvers.identity.second_factor import check_code
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
    password: SecretStr,
    code: str | None = None,
    origin: Origin,
) -> NewApiToken:
    """Make a token that lasts *days* (90), and tell its owner by mail.

    It outlasts what proved who asks, so it takes the password, and a one-time code where they are
    on. Raises `BadInput`, `TooMany`, `WrongPassword`, `CodeNeeded`, `WrongCode`, `TooManyCodes`,
    `TooBusy`, and `Forbidden` for a scope with nothing in it that the user may do.
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
    action = "create-api-token"
    async with guesses_noted(identity, principal, action, origin=origin):
        proved = await prove_password(identity, principal, password)
        async with identity.accounts.transaction() as transaction:
            user = await locked_as_proved(transaction, proved)
            await check_code(transaction, user.id, code, at=now)
            await transaction.api_tokens.add(token)
            await transaction.audit.add(
                identity.entry(action, origin, user_id=user.id, target=prefix)
            )
    identity.mailer.post(letters.api_token_created(user.email, name))
    return NewApiToken(token, text)


async def api_tokens(identity: Identity, principal: Principal) -> list[ApiToken]:
    """Return the principal's tokens, the newest first. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.api_tokens.of(principal.user_id)


async def revoke_api_token(
    identity: Identity, principal: Principal, id: UUID, *, origin: Origin
) -> None:
    """End a token. Raises `NotFound`, also if it is somebody else's, and `Forbidden`.

    Whoever may make none any more may end those they have.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    async with identity.accounts.transaction() as transaction:
        held = {token.id: token for token in await transaction.api_tokens.of(principal.user_id)}
        if id not in held or not await transaction.api_tokens.delete(principal.user_id, id):
            raise NotFound("api token")
        target = held[id].prefix
        await transaction.audit.add(
            identity.entry("revoke-api-token", origin, user_id=principal.user_id, target=target)
        )
    identity.checks.forget(principal.user_id)
