"""What can be refused about identity, as clients see it."""

from __future__ import annotations

import strawberry

from schema.failures import Failure


@strawberry.type(name="RegistrationClosed", description="Nobody may register by themselves.")
class RegistrationClosedType(Failure):
    pass


@strawberry.type(name="InvitationInvalid", description="An invitation is needed, and this is none.")
class InvitationInvalidType(Failure):
    pass


@strawberry.type(name="WeakPassword", description="A password that cannot be one.")
class WeakPasswordType(Failure):
    field: str = strawberry.field(description="The field that holds it.")


@strawberry.type(
    name="LoginFailed",
    description="An unknown name, a wrong password, or an account that is disabled.",
)
class LoginFailedType(Failure):
    pass


@strawberry.type(name="CodeNeeded", description="Sign in again, with a one-time code besides.")
class CodeNeededType(Failure):
    pass


@strawberry.type(name="WrongCode", description="A code that is wrong, too old, or was used.")
class WrongCodeType(Failure):
    pass


@strawberry.type(
    name="TooManyCodes",
    description="Wrong codes came so often that none but recovery codes count for a while.",
)
class TooManyCodesType(Failure):
    retry_after: float = strawberry.field(description="Seconds until codes count again.")


@strawberry.type(name="EmailNotVerified", description="The address has to be proved first.")
class EmailNotVerifiedType(Failure):
    pass


@strawberry.type(name="WrongPassword", description="The password is not that of the account.")
class WrongPasswordType(Failure):
    pass


@strawberry.type(name="TokenInvalid", description="The link is too old or was used before.")
class TokenInvalidType(Failure):
    pass


@strawberry.type(
    name="TooSoon", description="A mail of the same kind went out a moment ago. Nothing was done."
)
class TooSoonType(Failure):
    retry_after: float = strawberry.field(description="Seconds until the next one may be sent.")


@strawberry.type(
    name="SessionOver", description="There is no session that goes on: somebody has to sign in."
)
class SessionOverType(Failure):
    pass


@strawberry.type(name="SecondFactorOn", description="One-time codes are on already.")
class SecondFactorOnType(Failure):
    pass


@strawberry.type(
    name="LastAdmin", description="Without this account nobody could look after the server."
)
class LastAdminType(Failure):
    pass


@strawberry.type(
    name="CredentialInUse",
    description="Orders or bots need the credential as it is. Nothing was done.",
)
class CredentialInUseType(Failure):
    users: list[str] = strawberry.field(description="What needs it, at most ten of them.")
