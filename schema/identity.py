"""Users and their tokens as clients see them, with what can come of signing in and the like."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from pydantic import SecretStr

from db.accounts.permissions import Role, Scope
from db.accounts.repositories.api_tokens import ApiToken
from db.accounts.repositories.users import User
from resolvers.identity.passwords import SHORTEST
from resolvers.identity.principal import SignedIn
from resolvers.identity.profile import me
from schema.context import Info
from schema.failures import Failure, InvalidInput, NameTakenType, NotFoundType, TooManyType
from schema.node import Node, global_id
from schema.scalars import date_time

_PASSWORD = f"At least {SHORTEST} characters, and not the name."


@strawberry.type(name="User", description="An account. Everybody sees their own only.")
class UserType(Node):
    username: str = strawberry.field(description="The name to sign in with.")
    email: str = strawberry.field(description="The address that mail goes to.")
    email_verified: bool = strawberry.field(description="Whether the address was proved.")
    role: Role = strawberry.field(description="What they are to this server.")
    nickname: str | None = strawberry.field(description="What they want to be called.")
    location: str | None = strawberry.field(description="Where they say they are.")
    bio: str | None = strawberry.field(description="What they tell of themselves.")
    registered_at: datetime = strawberry.field(description="When the account was made.")
    last_login: datetime | None = strawberry.field(description="When they signed in last.")

    @classmethod
    def of(cls, user: User) -> UserType:
        return cls(
            id=global_id("User", user.id.hex),
            username=user.username,
            email=user.email,
            email_verified=user.email_verified_at is not None,
            role=user.role,
            nickname=user.nickname,
            location=user.location,
            bio=user.bio,
            registered_at=user.registered_at,
            last_login=user.last_login,
        )


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


@strawberry.input(description="An account that is wanted.")
class RegisterInput:
    username: str = strawberry.field(
        description="From 3 to 32 letters, digits, `.`, `-`, `_`; large and small are the same."
    )
    email: str = strawberry.field(description="Where a link is sent that proves the address.")
    password: SecretStr = strawberry.field(description=_PASSWORD)
    invitation: SecretStr | None = strawberry.field(
        default=None, description="The token of an invitation, where one is needed."
    )


@strawberry.input(description="The token out of a mail.")
class VerifyEmailInput:
    token: SecretStr = strawberry.field(description="What follows `#token=` in the link.")


@strawberry.input(description="Where to send the link of a registration once more.")
class RequestVerificationInput:
    email: str = strawberry.field(description="The address of the account.")


@strawberry.input(description="Whose password was forgotten.")
class RequestPasswordResetInput:
    email: str = strawberry.field(description="The address of the account.")


@strawberry.input(description="Who signs in.")
class LoginInput:
    username: str = strawberry.field(description="The username, or the address.")
    password: SecretStr = strawberry.field(description="The password.")
    code: SecretStr | None = strawberry.field(
        default=None, description="A one-time code or a recovery code, where they are on."
    )
    cookie: bool = strawberry.field(
        default=False,
        description="Whether the refresh token is kept in a cookie that no script can read, for "
        "browsers, and not told.",
    )


@strawberry.input(description="The session that goes on.")
class RefreshInput:
    refresh_token: SecretStr | None = strawberry.field(
        default=None,
        description="The newest refresh token. Null: the one in the cookie, for which the request "
        "must have the header `X-Requested-With`.",
    )


@strawberry.input(description="The session that ends: that of the access token, and of this.")
class LogoutInput:
    refresh_token: SecretStr | None = strawberry.field(
        default=None, description="A refresh token; null: the one in the cookie, as in `refresh`."
    )


@strawberry.input(description="What of the profile is to be another; what is left out stays.")
class UpdateProfileInput:
    nickname: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 80 characters; null: none."
    )
    location: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 120 characters; null: none."
    )
    bio: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 2,000 characters; null: none."
    )


@strawberry.input(description="The password as it is, and as it shall be.")
class ChangePasswordInput:
    password: SecretStr = strawberry.field(description="The password as it is.")
    new_password: SecretStr = strawberry.field(description=_PASSWORD)


@strawberry.input(description="Another password for whoever got the mail.")
class ResetPasswordInput:
    token: SecretStr = strawberry.field(description="What follows `#token=` in the link.")
    new_password: SecretStr = strawberry.field(description=_PASSWORD)


@strawberry.input(description="A token for a program.")
class CreateApiTokenInput:
    name: str = strawberry.field(description="What to call it: up to 80 characters.")
    scopes: list[Scope] = strawberry.field(description="What it is for: one at least.")
    days: int | None = strawberry.field(
        default=90, description="How long it lasts: 366 days at most."
    )


@strawberry.input(description="Which token to end.")
class RevokeApiTokenInput:
    id: strawberry.ID = strawberry.field(description="Its id.")


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


@strawberry.type(
    description="The account waits for its address to be proved. The answer is the same where the "
    "address has an account already, which its owner is told by mail."
)
class Registered:
    email: str = strawberry.field(description="Where the mail went.")


@strawberry.type(description="The address is proved.")
class EmailVerified:
    verified: bool = strawberry.field(description="True.")


@strawberry.type(description="If the address has an account, a mail is on its way.")
class MailRequested:
    email: str = strawberry.field(description="The address.")


@strawberry.type(
    name="SignedIn", description="A session, and what proves it: send `Authorization: Bearer`."
)
class SignedInType:
    access_token: str = strawberry.field(description="Proves who asks, for ten minutes.")
    expires_at: datetime = strawberry.field(description="When the access token is over.")
    refresh_token: str | None = strawberry.field(
        description="Gives the next pair of tokens, once; null where a cookie keeps it."
    )
    refresh_expires_at: datetime = strawberry.field(
        description="When the session is over unless it is refreshed before."
    )

    @strawberry.field(description="Who is signed in.")
    async def user(self, info: Info) -> UserType:
        identity = info.context.shared.identity
        return UserType.of(await me(identity, await identity.authenticate(self.access_token)))

    @classmethod
    def of(cls, signed_in: SignedIn, *, in_cookie: bool) -> SignedInType:
        return cls(
            access_token=signed_in.access.text.get_secret_value(),
            expires_at=date_time(signed_in.access.expires_at),
            refresh_token=None if in_cookie else signed_in.refresh.get_secret_value(),
            refresh_expires_at=signed_in.refresh_expires_at,
        )


@strawberry.type(description="The session is over.")
class LoggedOut:
    ended: bool = strawberry.field(description="True.")


@strawberry.type(description="The account with its new profile.")
class ProfileUpdated:
    user: UserType = strawberry.field(description="The account.")


@strawberry.type(description="The password is another. All other sessions ended.")
class PasswordChanged:
    access_token: str = strawberry.field(description="In place of the one that was shown.")
    expires_at: datetime = strawberry.field(description="When it is over.")


@strawberry.type(description="The password is another. All sessions and API tokens ended.")
class PasswordReset:
    changed: bool = strawberry.field(description="True.")


@strawberry.type(description="A token that was made just now.")
class ApiTokenCreated:
    token: str = strawberry.field(description="The token. It is not shown again.")
    api_token: ApiTokenType = strawberry.field(description="What is known of it later.")


@strawberry.type(description="The token does not count any more.")
class ApiTokenRevoked:
    id: strawberry.ID = strawberry.field(description="The id it had.")


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
    name="SessionOver", description="There is no session that goes on: somebody has to sign in."
)
class SessionOverType(Failure):
    pass


@strawberry.type(name="SecondFactorOn", description="One-time codes are on already.")
class SecondFactorOnType(Failure):
    pass


RegisterResult = Annotated[
    Registered
    | RegistrationClosedType
    | InvitationInvalidType
    | NameTakenType
    | WeakPasswordType
    | InvalidInput,
    strawberry.union("RegisterResult", description="What comes of registering."),
]
VerifyEmailResult = Annotated[
    EmailVerified | TokenInvalidType | NameTakenType,
    strawberry.union("VerifyEmailResult", description="What comes of following the link."),
]
RequestVerificationResult = Annotated[
    MailRequested | InvalidInput,
    strawberry.union("RequestVerificationResult", description="The same for every address."),
]
LoginResult = Annotated[
    SignedInType | LoginFailedType | CodeNeededType | WrongCodeType | EmailNotVerifiedType,
    strawberry.union("LoginResult", description="What comes of signing in."),
]
RefreshResult = Annotated[
    SignedInType | SessionOverType,
    strawberry.union("RefreshResult", description="What comes of refreshing."),
]
LogoutResult = Annotated[
    LoggedOut | SessionOverType,
    strawberry.union("LogoutResult", description="What comes of signing out."),
]
UpdateProfileResult = Annotated[
    ProfileUpdated | InvalidInput,
    strawberry.union("UpdateProfileResult", description="What comes of changing a profile."),
]
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
CreateApiTokenResult = Annotated[
    ApiTokenCreated | TooManyType | InvalidInput,
    strawberry.union("CreateApiTokenResult", description="What comes of making a token."),
]
RevokeApiTokenResult = Annotated[
    ApiTokenRevoked | NotFoundType,
    strawberry.union("RevokeApiTokenResult", description="What comes of ending a token."),
]
EnrolSecondFactorResult = Annotated[
    SecondFactorEnrolled | SecondFactorOnType | WrongPasswordType,
    strawberry.union("EnrolSecondFactorResult", description="What comes of setting codes up."),
]
ConfirmSecondFactorResult = Annotated[
    SecondFactorConfirmed | WrongCodeType | SecondFactorOnType,
    strawberry.union("ConfirmSecondFactorResult", description="What comes of the first code."),
]
TurnOffSecondFactorResult = Annotated[
    SecondFactorTurnedOff | WrongCodeType | WrongPasswordType,
    strawberry.union("TurnOffSecondFactorResult", description="What comes of turning codes off."),
]
