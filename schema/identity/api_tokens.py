"""Tokens for programs, as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from db.accounts.permissions import Scope
from db.accounts.repositories.api_tokens import ApiToken
from market.errors import BargraphError
from resolvers.identity.api_tokens import api_tokens, create_api_token, revoke_api_token
from schema.context import Info
from schema.errors import failure_of, refusal_of
from schema.failures import InvalidInput, NotFoundType, TooManyType
from schema.identity.failures import (
    CodeNeededType,
    TooManyCodesType,
    WrongCodeType,
    WrongPasswordType,
)
from schema.identity.guesses import guessing
from schema.node import NO_ID, Node, global_id, uuid_in


@strawberry.type(
    name="ApiToken", description="A personal token for a program. The token itself is shown once."
)
class ApiTokenType(Node):
    name: str = strawberry.field(description="What its owner calls it.")
    prefix: str = strawberry.field(description="How it goes on after `bgt_`, to tell it by.")
    scopes: list[Scope] = strawberry.field(description="What it was made for.")
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime = strawberry.field(description="When it stops to count.")
    last_used_at: datetime | None = strawberry.field(
        description="When it was used last, to a minute; null: never."
    )

    @classmethod
    def of(cls, token: ApiToken) -> ApiTokenType:
        return cls(
            id=global_id("ApiToken", token.id.hex),
            name=token.name,
            prefix=token.prefix,
            scopes=sorted(token.scopes),
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )


@strawberry.input(description="A token for a program.")
class CreateApiTokenInput:
    name: str = strawberry.field(description="What to call it: up to 80 characters.")
    scopes: list[Scope] = strawberry.field(description="What it is for: one at least.")
    password: SecretStr = strawberry.field(description="The password once more.")
    code: SecretStr | None = strawberry.field(
        default=None, description="A one-time code or a recovery code, where they are on."
    )
    days: int | None = strawberry.field(
        default=90, description="How long it lasts: 366 days at most."
    )


@strawberry.input(description="Which token to end.")
class RevokeApiTokenInput:
    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type(description="A token that was made just now.")
class ApiTokenCreated:
    token: str = strawberry.field(description="The token. It is not shown again.")
    api_token: ApiTokenType = strawberry.field(description="What is known of it later.")


@strawberry.type(description="The token does not count any more.")
class ApiTokenRevoked:
    id: strawberry.ID = strawberry.field(description="The id it had.")


CreateApiTokenResult = Annotated[
    ApiTokenCreated
    | WrongPasswordType
    | CodeNeededType
    | WrongCodeType
    | TooManyCodesType
    | TooManyType
    | InvalidInput,
    strawberry.union("CreateApiTokenResult", description="What comes of making a token."),
]
RevokeApiTokenResult = Annotated[
    ApiTokenRevoked | NotFoundType,
    strawberry.union("RevokeApiTokenResult", description="What comes of ending a token."),
]


@strawberry.type
class ApiTokenQueries:
    @strawberry.field(description="One's tokens for programs, the newest first.")
    async def api_tokens(self, info: Info) -> list[ApiTokenType]:
        context = info.context
        found = await api_tokens(context.shared.identity, context.principal)
        return [ApiTokenType.of(token) for token in found]


@strawberry.type
class ApiTokenMutations:
    @strawberry.mutation(description="Make a token for a program. It is shown this one time.")
    async def create_api_token(
        self,
        info: Info,
        input: Annotated[CreateApiTokenInput, strawberry.argument(description="What for.")],
    ) -> CreateApiTokenResult:
        context = info.context
        principal = await guessing(context)
        try:
            made = await create_api_token(
                context.shared.identity,
                principal,
                name=input.name,
                scopes=input.scopes,
                days=input.days,
                password=input.password,
                code=None if input.code is None else input.code.get_secret_value(),
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(CreateApiTokenResult, refusal_of(failure))
        return ApiTokenCreated(
            token=made.text.get_secret_value(), api_token=ApiTokenType.of(made.token)
        )

    @strawberry.mutation(description="End a token for a program, at once.")
    async def revoke_api_token(
        self,
        info: Info,
        input: Annotated[RevokeApiTokenInput, strawberry.argument(description="Which one.")],
    ) -> RevokeApiTokenResult:
        context = info.context
        try:
            await revoke_api_token(
                context.shared.identity,
                context.principal,
                uuid_in(input.id, "ApiToken") or NO_ID,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(RevokeApiTokenResult, failure_of(failure))
        return ApiTokenRevoked(id=input.id)
