"""Making an account, as clients see it."""

from __future__ import annotations

from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from market.errors import BargraphError
from resolvers.identity.registering import Wanted, register
from schema.context import Info
from schema.errors import refusal_of
from schema.failures import InvalidInput, NameTakenType
from schema.identity.failures import (
    InvitationInvalidType,
    RegistrationClosedType,
    WeakPasswordType,
)
from schema.identity.passwords import PASSWORD_RULE


@strawberry.input(description="An account that is wanted.")
class RegisterInput:
    username: str = strawberry.field(
        description="From 3 to 32 letters, digits, `.`, `-`, `_`; large and small are the same."
    )
    email: str = strawberry.field(description="Where a link is sent that proves the address.")
    password: SecretStr = strawberry.field(description=PASSWORD_RULE)
    invitation: SecretStr | None = strawberry.field(
        default=None, description="The token of an invitation, where one is needed."
    )


@strawberry.type(
    description="The account waits for its address to be proved. The answer is the same where the "
    "address has an account already, which its owner is told by mail."
)
class Registered:
    email: str = strawberry.field(description="Where the mail went.")


RegisterResult = Annotated[
    Registered
    | RegistrationClosedType
    | InvitationInvalidType
    | NameTakenType
    | WeakPasswordType
    | InvalidInput,
    strawberry.union("RegisterResult", description="What comes of registering."),
]


@strawberry.type
class RegisteringMutations:
    @strawberry.mutation(
        description="Make an account. A mail goes to its address; whether that has an account "
        "already is not told."
    )
    async def register(
        self,
        info: Info,
        input: Annotated[RegisterInput, strawberry.argument(description="The account.")],
    ) -> RegisterResult:
        context = info.context
        wanted = Wanted(
            input.username,
            input.email,
            input.password,
            input.invitation,
        )
        try:
            await register(context.shared.identity, wanted, origin=context.origin)
        except BargraphError as failure:
            return cast(RegisterResult, refusal_of(failure))
        return Registered(email=input.email)
