"""One-time codes, as clients see them."""

from __future__ import annotations

from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from market.errors import BargraphError
from resolvers.identity.second_factor import confirm, enrol, turn_off
from schema.context import Info
from schema.errors import failure_of
from schema.identity.failures import (
    SecondFactorOnType,
    TooManyCodesType,
    WrongCodeType,
    WrongPasswordType,
)
from schema.identity.guesses import guessing


@strawberry.input(description="The password once more.")
class EnrolSecondFactorInput:
    password: SecretStr = strawberry.field(description="The password.")


@strawberry.input(description="A code of the authenticator.")
class ConfirmSecondFactorInput:
    code: SecretStr = strawberry.field(description="Six digits.")


@strawberry.input(description="The password and a code, to do without codes from now on.")
class TurnOffSecondFactorInput:
    password: SecretStr = strawberry.field(description="The password.")
    code: SecretStr = strawberry.field(description="A one-time code, or a recovery code.")


@strawberry.type(description="What to give an authenticator. It counts once a code confirmed it.")
class SecondFactorEnrolled:
    secret: str = strawberry.field(description="The shared secret, in Base32.")
    uri: str = strawberry.field(description="The same for a QR code.")


@strawberry.type(description="One-time codes are on.")
class SecondFactorConfirmed:
    recovery_codes: list[str] = strawberry.field(
        description="Each is good once in place of a code. They are not shown again."
    )


@strawberry.type(description="One-time codes are off.")
class SecondFactorTurnedOff:
    off: bool = strawberry.field(description="True.")


EnrolSecondFactorResult = Annotated[
    SecondFactorEnrolled | SecondFactorOnType | WrongPasswordType,
    strawberry.union("EnrolSecondFactorResult", description="What comes of setting codes up."),
]
ConfirmSecondFactorResult = Annotated[
    SecondFactorConfirmed | WrongCodeType | SecondFactorOnType,
    strawberry.union("ConfirmSecondFactorResult", description="What comes of the first code."),
]
TurnOffSecondFactorResult = Annotated[
    SecondFactorTurnedOff | WrongCodeType | TooManyCodesType | WrongPasswordType,
    strawberry.union("TurnOffSecondFactorResult", description="What comes of turning codes off."),
]


@strawberry.type
class SecondFactorMutations:
    @strawberry.mutation(description="Begin to set up one-time codes.")
    async def enrol_second_factor(
        self,
        info: Info,
        input: Annotated[EnrolSecondFactorInput, strawberry.argument(description="Proof.")],
    ) -> EnrolSecondFactorResult:
        context = info.context
        principal = await guessing(context)
        try:
            enrolment = await enrol(
                context.shared.identity,
                principal,
                input.password,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(EnrolSecondFactorResult, failure_of(failure))
        return SecondFactorEnrolled(
            secret=enrolment.secret.get_secret_value(), uri=enrolment.uri.get_secret_value()
        )

    @strawberry.mutation(description="Turn one-time codes on by the first of them.")
    async def confirm_second_factor(
        self,
        info: Info,
        input: Annotated[ConfirmSecondFactorInput, strawberry.argument(description="The code.")],
    ) -> ConfirmSecondFactorResult:
        context = info.context
        principal = await guessing(context)
        try:
            codes = await confirm(
                context.shared.identity,
                principal,
                input.code.get_secret_value(),
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(ConfirmSecondFactorResult, failure_of(failure))
        return SecondFactorConfirmed(recovery_codes=[code.get_secret_value() for code in codes])

    @strawberry.mutation(description="Turn one-time codes off.")
    async def turn_off_second_factor(
        self,
        info: Info,
        input: Annotated[TurnOffSecondFactorInput, strawberry.argument(description="Proof.")],
    ) -> TurnOffSecondFactorResult:
        context = info.context
        principal = await guessing(context)
        try:
            await turn_off(
                context.shared.identity,
                principal,
                input.password,
                input.code.get_secret_value(),
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(TurnOffSecondFactorResult, failure_of(failure))
        return SecondFactorTurnedOff(off=True)
