"""The fields about accounts: registering, signing in, one's profile, tokens and second factor."""

from __future__ import annotations

from typing import Annotated, Any, cast

import strawberry
from pydantic import SecretStr

from market.errors import BadInput, BargraphError
from resolvers.identity import api_tokens as tokens
from resolvers.identity import changing_passwords, registering, second_factor, signing_in
from resolvers.identity.failures import (
    LoginFailed,
    Unauthenticated,
    WeakPassword,
    WrongPassword,
)
from resolvers.identity.principal import Principal, SignedIn
from resolvers.identity.profile import ProfileChange, me, update_profile
from schema.context import Context, Info
from schema.errors import failure_of
from schema.failures import InvalidInput
from schema.identity import (
    ApiTokenCreated,
    ApiTokenRevoked,
    ApiTokenType,
    ChangePasswordInput,
    ChangePasswordResult,
    ConfirmSecondFactorInput,
    ConfirmSecondFactorResult,
    CreateApiTokenInput,
    CreateApiTokenResult,
    EmailVerified,
    EnrolSecondFactorInput,
    EnrolSecondFactorResult,
    LoggedOut,
    LoginInput,
    LoginResult,
    LogoutInput,
    LogoutResult,
    MailRequested,
    PasswordChanged,
    PasswordReset,
    ProfileUpdated,
    RefreshInput,
    RefreshResult,
    Registered,
    RegisterInput,
    RegisterResult,
    RequestPasswordResetInput,
    RequestPasswordResetResult,
    RequestVerificationInput,
    RequestVerificationResult,
    ResetPasswordInput,
    ResetPasswordResult,
    RevokeApiTokenInput,
    RevokeApiTokenResult,
    SecondFactorConfirmed,
    SecondFactorEnrolled,
    SecondFactorTurnedOff,
    SessionOverType,
    SignedInType,
    TurnOffSecondFactorInput,
    TurnOffSecondFactorResult,
    UpdateProfileInput,
    UpdateProfileResult,
    UserType,
    VerifyEmailInput,
    VerifyEmailResult,
)
from schema.node import NO_ID, Node, uuid_in
from schema.scalars import date_time


@strawberry.type
class IdentityQueries:
    @strawberry.field(description="The account that asks; an error where nobody is signed in.")
    async def me(self, info: Info) -> UserType | None:
        context = info.context
        return UserType.of(await me(context.shared.identity, context.principal))

    @strawberry.field(description="One's tokens for programs, the newest first.")
    async def api_tokens(self, info: Info) -> list[ApiTokenType]:
        context = info.context
        found = await tokens.api_tokens(context.shared.identity, context.principal)
        return [ApiTokenType.of(token) for token in found]


@strawberry.type
class IdentityMutations:
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
        wanted = registering.Wanted(
            input.username,
            input.email,
            input.password,
            input.invitation,
        )
        try:
            await registering.register(context.shared.identity, wanted, origin=context.origin)
        except BargraphError as failure:
            return cast(RegisterResult, _refusal(failure))
        return Registered(email=input.email)

    @strawberry.mutation(description="Prove an address by the link that was mailed to it.")
    async def verify_email(
        self,
        info: Info,
        input: Annotated[VerifyEmailInput, strawberry.argument(description="The token.")],
    ) -> VerifyEmailResult:
        context = info.context
        try:
            await registering.verify_email(
                context.shared.identity, input.token, origin=context.origin
            )
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
        await context.attempts.password_reset(input.email)
        try:
            await registering.request_verification(
                context.shared.identity, input.email, origin=context.origin
            )
        except BargraphError as failure:
            return cast(RequestVerificationResult, _refusal(failure))
        return MailRequested(email=input.email)

    @strawberry.mutation(
        description="Sign in. A wrong password and an unknown name get the same answer."
    )
    async def login(
        self, info: Info, input: Annotated[LoginInput, strawberry.argument(description="Who.")]
    ) -> LoginResult:
        context = info.context
        in_cookie = _takes_cookie(context, wanted=input.cookie)
        await context.attempts.login(input.username)
        try:
            signed_in = await signing_in.login(
                context.shared.identity,
                input.username,
                input.password,
                code=None if input.code is None else input.code.get_secret_value(),
                origin=context.origin,
            )
        except WeakPassword:  # too long to be anybody's
            return cast(LoginResult, failure_of(LoginFailed()))
        except BargraphError as failure:
            return cast(LoginResult, failure_of(failure))
        return _signed_in(context, signed_in, in_cookie=in_cookie)

    @strawberry.mutation(
        description="Go on with a session: each refresh token gives the next one, once. Send no "
        "access token along that is over."
    )
    async def refresh(
        self,
        info: Info,
        input: Annotated[RefreshInput, strawberry.argument(description="Which session.")],
    ) -> RefreshResult:
        context = info.context
        token = _refresh_token(context, input.refresh_token)
        if token is None:
            return _session_over()
        try:
            signed_in = await signing_in.refresh(
                context.shared.identity, token, origin=context.origin
            )
        except Unauthenticated:
            if input.refresh_token is None and context.cookie is not None:
                context.cookie.dropped = True
            return _session_over()
        return _signed_in(context, signed_in, in_cookie=input.refresh_token is None)

    @strawberry.mutation(description="End a session, and forget the cookie if there is one.")
    async def logout(
        self,
        info: Info,
        input: Annotated[LogoutInput, strawberry.argument(description="Which session.")],
    ) -> LogoutResult:
        context = info.context
        identity, principal = context.shared.identity, context.caller.principal
        token = _refresh_token(context, input.refresh_token)
        if context.cookie is not None:
            context.cookie.dropped = True
        if principal is None and token is None:
            return _session_over()
        if principal is not None:
            await signing_in.logout(identity, principal, origin=context.origin)
        if token is not None:
            await signing_in.logout_by_refresh_token(identity, token, origin=context.origin)
        return LoggedOut(ended=True)

    @strawberry.mutation(description="Change what one tells of oneself.")
    async def update_profile(
        self,
        info: Info,
        input: Annotated[UpdateProfileInput, strawberry.argument(description="What changes.")],
    ) -> UpdateProfileResult:
        context = info.context
        change = ProfileChange()
        if input.nickname is not strawberry.UNSET:
            change["nickname"] = input.nickname
        if input.location is not strawberry.UNSET:
            change["location"] = input.location
        if input.bio is not strawberry.UNSET:
            change["bio"] = input.bio
        try:
            user = await update_profile(
                context.shared.identity, context.principal, origin=context.origin, **change
            )
        except BargraphError as failure:
            return cast(UpdateProfileResult, _refusal(failure))
        return ProfileUpdated(user=UserType.of(user))

    @strawberry.mutation(description="Set another password, and end all other sessions.")
    async def change_password(
        self,
        info: Info,
        input: Annotated[ChangePasswordInput, strawberry.argument(description="Both passwords.")],
    ) -> ChangePasswordResult:
        context = info.context
        principal = await _guessing(context)
        try:
            access = await changing_passwords.change_password(
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
        await context.attempts.password_reset(input.email)
        try:
            await changing_passwords.request_password_reset(
                context.shared.identity, input.email, origin=context.origin
            )
        except BargraphError as failure:
            return cast(RequestPasswordResetResult, _refusal(failure))
        return MailRequested(email=input.email)

    @strawberry.mutation(description="Set a password by the mail that was asked for.")
    async def reset_password(
        self,
        info: Info,
        input: Annotated[ResetPasswordInput, strawberry.argument(description="The password.")],
    ) -> ResetPasswordResult:
        context = info.context
        try:
            await changing_passwords.reset_password(
                context.shared.identity,
                input.token,
                input.new_password,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(ResetPasswordResult, failure_of(failure))
        return PasswordReset(changed=True)

    @strawberry.mutation(description="Make a token for a program. It is shown this one time.")
    async def create_api_token(
        self,
        info: Info,
        input: Annotated[CreateApiTokenInput, strawberry.argument(description="What for.")],
    ) -> CreateApiTokenResult:
        context = info.context
        try:
            made = await tokens.create_api_token(
                context.shared.identity,
                context.principal,
                name=input.name,
                scopes=input.scopes,
                days=input.days,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(CreateApiTokenResult, _refusal(failure))
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
            await tokens.revoke_api_token(
                context.shared.identity,
                context.principal,
                uuid_in(input.id, "ApiToken") or NO_ID,
                origin=context.origin,
            )
        except BargraphError as failure:
            return cast(RevokeApiTokenResult, failure_of(failure))
        return ApiTokenRevoked(id=input.id)

    @strawberry.mutation(description="Begin to set up one-time codes.")
    async def enrol_second_factor(
        self,
        info: Info,
        input: Annotated[EnrolSecondFactorInput, strawberry.argument(description="Proof.")],
    ) -> EnrolSecondFactorResult:
        context = info.context
        principal = await _guessing(context)
        try:
            enrolment = await second_factor.enrol(
                context.shared.identity,
                principal,
                input.password,
                origin=context.origin,
            )
        except WeakPassword:
            return cast(EnrolSecondFactorResult, failure_of(WrongPassword()))
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
        principal = await _guessing(context)
        try:
            codes = await second_factor.confirm(
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
        principal = await _guessing(context)
        try:
            await second_factor.turn_off(
                context.shared.identity,
                principal,
                input.password,
                input.code.get_secret_value(),
                origin=context.origin,
            )
        except WeakPassword:
            return cast(TurnOffSecondFactorResult, failure_of(WrongPassword()))
        except BargraphError as failure:
            return cast(TurnOffSecondFactorResult, failure_of(failure))
        return SecondFactorTurnedOff(off=True)


async def own_node(context: Context, id: strawberry.ID) -> Node | None:
    """Return the user or the API token that a global id names, if it is the caller's own."""
    identity, principal = context.shared.identity, context.principal
    if uuid_in(id, "User") == principal.user_id:
        return UserType.of(await me(identity, principal))
    token_id = uuid_in(id, "ApiToken")
    if token_id is None:
        return None
    for token in await tokens.api_tokens(identity, principal):
        if token.id == token_id:
            return ApiTokenType.of(token)
    return None


async def _guessing(context: Context) -> Principal:
    """Return who asks, once a try at their password or code is counted like one to sign in."""
    principal = context.principal
    await context.attempts.login(principal.username)
    return principal


def _takes_cookie(context: Context, *, wanted: bool) -> bool:
    if wanted and context.cookie is None:
        raise BadInput("A cookie can be set over HTTP only, not over this.", field="cookie")
    return wanted


def _refresh_token(context: Context, given: SecretStr | None) -> SecretStr | None:
    if given is not None:
        return given
    return None if context.cookie is None else context.cookie.sent


def _signed_in(context: Context, signed_in: SignedIn, *, in_cookie: bool) -> SignedInType:
    if in_cookie and context.cookie is not None:
        context.cookie.kept = (signed_in.refresh, signed_in.refresh_expires_at)
    return SignedInType.of(signed_in, in_cookie=in_cookie)


def _session_over() -> SessionOverType:
    over = Unauthenticated()
    return SessionOverType(code=over.code, message=str(over))


def _refusal(failure: BargraphError) -> Any:
    """Return what a mutation answers for *failure*; a field that cannot be kept is named."""
    if type(failure) is BadInput:
        return InvalidInput(code=failure.code, message=str(failure), field=failure.field)
    return failure_of(failure)
