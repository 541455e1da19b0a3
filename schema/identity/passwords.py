"""Changing a password one knows, and one that was forgotten, as clients see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from market.errors import BargraphError
from resolvers.identity.changing_passwords import (
    change_password,
    request_password_reset,
    reset_password,
)
from resolvers.identity.passwords import SHORTEST
from schema.context import Info
from schema.errors import failure_of, refusal_of
from schema.failures import InvalidInput
from schema.identity.addresses import MailRequested
from schema.identity.failures import TokenInvalidType, WeakPasswordType, WrongPasswordType
from schema.identity.guesses import guessing
from schema.scalars import date_time

PASSWORD_RULE = f"At least {SHORTEST} characters, and not the name."


@strawberry.input(description="The password as it is, and as it shall be.")
class ChangePasswordInput:
    password: SecretStr = strawberry.field(description="The password as it is.")
    new_password: SecretStr = strawberry.field(description=PASSWORD_RULE)


@strawberry.input(description="Whose password was forgotten.")
class RequestPasswordResetInput:
    email: str = strawberry.field(description="The address of the account.")


@strawberry.input(description="Another password for whoever got the mail.")
class ResetPasswordInput:
    token: SecretStr = strawberry.field(description="What follows `#token=` in the link.")
    new_password: SecretStr = strawberry.field(description=PASSWORD_RULE)


@strawberry.type(description="The password is another. All other sessions ended.")
class PasswordChanged:
    access_token: str = strawberry.field(description="In place of the one that was shown.")
    expires_at: datetime = strawberry.field(description="When it is over.")


@strawberry.type(description="The password is another. All sessions and API tokens ended.")
class PasswordReset:
    changed: bool = strawberry.field(description="True.")


ChangePasswordResult = Annotated[
    PasswordChanged | WrongPasswordType | WeakPasswordType,
    strawberry.union("ChangePasswordResult", description="What comes of changing a password."),
]
RequestPasswordResetResult = Annotated[
    MailRequested | InvalidInput,
    strawberry.union("RequestPasswordResetResult", description="The same for every address."),
]
ResetPasswordResult = Annotated[
    PasswordReset | TokenInvalidType | WeakPasswordType,
    strawberry.union("ResetPasswordResult", description="What comes of resetting a password."),
]


@strawberry.type
class PasswordMutations:
    @strawberry.mutation(description="Set another password, and end all other sessions.")
    async def change_password(
        self,
        info: Info,
        input: Annotated[ChangePasswordInput, strawberry.argument(description="Both passwords.")],
    ) -> ChangePasswordResult:
        context = info.context
        principal = await guessing(context)
        try:
            access = await change_password(
                context.shared.identity,
                principal,
                old=input.password,
                new=input.new_password,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(ChangePasswordResult, failure_of(failure))
        return PasswordChanged(
            access_token=access.text.get_secret_value(), expires_at=date_time(access.expires_at)
        )

    @strawberry.mutation(
        description="Ask for a mail that lets its reader set a password. The same answer for every "
        "address."
    )
    async def request_password_reset(
        self,
        info: Info,
        input: Annotated[RequestPasswordResetInput, strawberry.argument(description="Whose.")],
    ) -> RequestPasswordResetResult:
        context = info.context
        try:
            await request_password_reset(
                context.shared.identity, input.email, origin=context.origin
            )
        except BargraphError as failure:
            return cast(RequestPasswordResetResult, refusal_of(failure))
        return MailRequested(email=input.email)

    @strawberry.mutation(description="Set a password by the mail that was asked for.")
    async def reset_password(
        self,
        info: Info,
        input: Annotated[ResetPasswordInput, strawberry.argument(description="The password.")],
    ) -> ResetPasswordResult:
        context = info.context
        try:
            await reset_password(
                context.shared.identity,
                input.token,
                input.new_password,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(ResetPasswordResult, failure_of(failure))
        return PasswordReset(changed=True)
