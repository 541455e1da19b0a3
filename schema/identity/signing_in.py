"""Signing in, staying signed in and signing out, as clients see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import strawberry
from pydantic import SecretStr

from market.errors import BadInput, BargraphError
from resolvers.identity.failures import LoginFailed, NoSession, Unauthenticated, WeakPassword
from resolvers.identity.principal import SignedIn
from resolvers.identity.profile import me
from resolvers.identity.signing_in import login, logout, logout_by_refresh_token, refresh
from schema.context import Context, Info
from schema.errors import failure_of
from schema.identity.account import UserType
from schema.identity.failures import (
    CodeNeededType,
    EmailNotVerifiedType,
    LoginFailedType,
    SessionOverType,
    TooManyCodesType,
    WrongCodeType,
)
from schema.scalars import date_time


@strawberry.input(description="Who signs in.")
class LoginInput:
    username: str = strawberry.field(description="The username, or the address.")
    password: SecretStr = strawberry.field(description="The password.")
    code: SecretStr | None = strawberry.field(
        default=None, description="A one-time code or a recovery code, where they are on."
    )
    cookie: bool | None = strawberry.field(
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
        principal = await identity.authenticate(self.access_token)
        return UserType.of(await me(identity, principal), principal)

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


LoginResult = Annotated[
    SignedInType
    | LoginFailedType
    | CodeNeededType
    | WrongCodeType
    | TooManyCodesType
    | EmailNotVerifiedType,
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


@strawberry.type
class SigningInMutations:
    @strawberry.mutation(
        description="Sign in. A wrong password and an unknown name get the same answer."
    )
    async def login(
        self, info: Info, input: Annotated[LoginInput, strawberry.argument(description="Who.")]
    ) -> LoginResult:
        context = info.context
        in_cookie = _takes_cookie(context, wanted=bool(input.cookie))
        await context.attempts.login(input.username)
        try:
            signed_in = await login(
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
        description="Go on with a session: each refresh token gives the next one, once, and within "
        "ten seconds the same again. Send no access token along that is over."
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
            signed_in = await refresh(context.shared.identity, token, origin=context.origin)
        except Unauthenticated:
            if input.refresh_token is None and context.cookie is not None:
                context.cookie.dropped = True
            return _session_over()
        return _signed_in(context, signed_in, in_cookie=input.refresh_token is None)

    @strawberry.mutation(
        description="End a session, and forget the cookie if there is one. An API token has no "
        "session, so the answer is `SessionOver`; `revokeApiToken` ends it."
    )
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
        if token is not None:
            await logout_by_refresh_token(identity, token, origin=context.origin)
        if principal is not None:
            try:
                await logout(identity, principal, origin=context.origin)
            except NoSession as failure:
                if token is None:
                    return SessionOverType(code=failure.code, message=str(failure))
        return LoggedOut(ended=True)


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
