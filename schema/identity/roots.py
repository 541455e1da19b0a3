"""The fields about identity, of all subjects together."""

from __future__ import annotations

import strawberry

from resolvers.identity.api_tokens import api_tokens
from resolvers.identity.profile import me
from resolvers.identity.sessions import sessions
from schema.context import Context
from schema.identity.account import AccountMutations, AccountQueries, UserType
from schema.identity.addresses import AddressMutations
from schema.identity.api_tokens import ApiTokenMutations, ApiTokenQueries, ApiTokenType
from schema.identity.passwords import PasswordMutations
from schema.identity.registering import RegisteringMutations
from schema.identity.second_factor import SecondFactorMutations
from schema.identity.sessions import SessionMutations, SessionQueries, SessionType
from schema.identity.signing_in import SigningInMutations
from schema.node import Node, parts_in, uuid_in

IDENTITY_TYPES = (UserType, SessionType, ApiTokenType)


@strawberry.type
class IdentityQueries(AccountQueries, SessionQueries, ApiTokenQueries):
    """What can be read."""


@strawberry.type
class IdentityMutations(
    RegisteringMutations,
    SigningInMutations,
    AddressMutations,
    PasswordMutations,
    AccountMutations,
    SessionMutations,
    ApiTokenMutations,
    SecondFactorMutations,
):
    """What can be changed."""


async def own_node(context: Context, id: strawberry.ID) -> Node | None:
    """Return the user, session or API token that a global id names, if it is the caller's own."""
    identity, principal = context.shared.identity, context.principal
    match parts_in(id):
        case ("User", _) if uuid_in(id, "User") == principal.user_id:
            return UserType.of(await me(identity, principal), principal)
        case ("UserSession", _):
            session_id = uuid_in(id, "UserSession")
            for session in await sessions(identity, principal):
                if session.id == session_id:
                    return SessionType.of(session, principal)
        case ("ApiToken", _):
            token_id = uuid_in(id, "ApiToken")
            for token in await api_tokens(identity, principal):
                if token.id == token_id:
                    return ApiTokenType.of(token)
    return None
