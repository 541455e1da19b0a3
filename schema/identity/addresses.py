"""Proving an address and changing to another one, as clients see it."""

from __future__ import annotations

from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from market.errors import BargraphError
from resolvers.identity.addresses import change_email, request_verification, verify_email
from schema.context import Info
from schema.errors import failure_of, refusal_of
from schema.failures import InvalidInput, NameTakenType
from schema.identity.failures import TokenInvalidType, TooSoonType, WrongPasswordType
from schema.identity.guesses import guessing


@strawberry.input(description="The token out of a mail.")
class VerifyEmailInput:
    token: SecretStr = strawberry.field(description="What follows `#token=` in the link.")


@strawberry.input(description="Where to send the link of a registration once more.")
class RequestVerificationInput:
    email: str = strawberry.field(description="The address of the account.")


@strawberry.input(description="Another address for the account.")
class ChangeEmailInput:
    password: SecretStr = strawberry.field(description="The password.")
    email: str = strawberry.field(description="The address, to which a link is sent.")


@strawberry.type(description="The address is proved.")
class EmailVerified:
    verified: bool = strawberry.field(description="True.")


@strawberry.type(description="If the address has an account, a mail is on its way.")
class MailRequested:
    email: str = strawberry.field(description="The address.")


@strawberry.type(
    description="A link went to the address, which is the account's once it was followed; the "
    "present one is told. The answer is the same where the address has an account already."
)
class EmailChangeRequested:
    email: str = strawberry.field(description="Where the link went.")


VerifyEmailResult = Annotated[
    EmailVerified | TokenInvalidType | NameTakenType,
    strawberry.union("VerifyEmailResult", description="What comes of following the link."),
]
RequestVerificationResult = Annotated[
    MailRequested | InvalidInput,
    strawberry.union("RequestVerificationResult", description="The same for every address."),
]
ChangeEmailResult = Annotated[
    EmailChangeRequested | WrongPasswordType | TooSoonType | InvalidInput,
    strawberry.union("ChangeEmailResult", description="What comes of changing the address."),
]


@strawberry.type
class AddressMutations:
    @strawberry.mutation(description="Prove an address by the link that was mailed to it.")
    async def verify_email(
        self,
        info: Info,
        input: Annotated[VerifyEmailInput, strawberry.argument(description="The token.")],
    ) -> VerifyEmailResult:
        context = info.context
        try:
            await verify_email(context.shared.identity, input.token, origin=context.origin)
        except BargraphError as failure:
            return cast(VerifyEmailResult, failure_of(failure))
        return EmailVerified(verified=True)

    @strawberry.mutation(description="Send the link of a registration once more.")
    async def request_verification(
        self,
        info: Info,
        input: Annotated[RequestVerificationInput, strawberry.argument(description="Where to.")],
    ) -> RequestVerificationResult:
        context = info.context
        try:
            await request_verification(context.shared.identity, input.email, origin=context.origin)
        except BargraphError as failure:
            return cast(RequestVerificationResult, refusal_of(failure))
        return MailRequested(email=input.email)

    @strawberry.mutation(
        description="Ask for another address. Until its link is followed, within two days, the "
        "present one stays. A password that is changed or reset meanwhile ends it."
    )
    async def change_email(
        self,
        info: Info,
        input: Annotated[ChangeEmailInput, strawberry.argument(description="Which address.")],
    ) -> ChangeEmailResult:
        context = info.context
        principal = await guessing(context)
        await context.attempts.mail_elsewhere(input.email)
        try:
            await change_email(
                context.shared.identity,
                principal,
                password=input.password,
                email=input.email,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(ChangeEmailResult, refusal_of(failure))
        return EmailChangeRequested(email=input.email)
