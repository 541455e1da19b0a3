"""Find out who asks: by the header of a request, or by what a socket says when it connects.

A token that does not count is refused, never passed over: whoever shows one means to be somebody.
While the accounts are away public fields go on and private ones fail. A token in a URL is not
looked at, since URLs end up in logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import format_datetime
from typing import Any, ClassVar, Protocol

from pydantic import SecretStr
from starlette.requests import HTTPConnection

from db.accounts.errors import AccountsUnavailable
from resolvers.callers import Caller
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.principal import Claims, Principal
from schema.context import RefreshCookie
from web.callers import with_agent
from web.graphql_request import RequestRefused
from web.limits.gate import Gate
from web.limits.rates import Group
from web.request_ids import current_request_id

COOKIE = "bargraph_refresh"
_NAME = "authorization"
_PATH = "/graphql"


class TokenRefused(RequestRefused):
    """A token that does not count, or a header that holds none."""

    code = "UNAUTHENTICATED"
    status: ClassVar[int] = 401

    def __init__(self) -> None:
        super().__init__(str(Unauthenticated()))

    @property
    def headers(self) -> Mapping[str, str]:
        return {"www-authenticate": 'Bearer error="invalid_token"'}


class Authenticates(Protocol):
    """Knows tokens, and whether they still count; to ask may raise `AccountsUnavailable`."""

    def lately(self, bearer: str) -> Principal | None:
        """Return who shows a token, if that was found out a moment ago."""
        ...

    def is_read(self, bearer: str) -> bool:
        """Whether a token was read before."""
        ...

    async def authenticate(self, bearer: str) -> Principal:
        """Return who shows a token. Raises `Unauthenticated`."""
        ...

    async def check(self, claims: Claims) -> Principal:
        """Return what a token read earlier amounts to now. Raises `Unauthenticated`."""
        ...


class Door:
    """Tells who asks. *gate* counts tokens that are new to us, each by the address it came from.

    Cookies are for TLS only if *secure*.
    """

    def __init__(self, identity: Authenticates, gate: Gate, *, secure: bool = False) -> None:
        self._identity = identity
        self._gate = gate
        self._secure = secure

    async def of_request(self, asked: HTTPConnection, caller: Caller) -> Caller:
        """Return *caller* as whom its headers prove. Raises `TokenRefused`, `RateLimited`."""
        shown = [value for name, value in asked.scope["headers"] if name == b"authorization"]
        if not shown:
            return caller
        if len(shown) > 1:
            raise TokenRefused
        if not shown[0]:
            return caller
        header = shown[0].decode("latin-1")
        try:
            # Most requests end here, so it is the short way that is written out.
            principal = self._identity.lately(header[7:]) if header[:7] == "Bearer " else None
            principal = principal or await self._proved(header, caller)
        except AccountsUnavailable as away:
            return caller._replace(doubt=away)
        return Caller(caller.local, caller.address, caller.agent, caller.request_id, principal)

    def along(self, asked: HTTPConnection, caller: Caller) -> tuple[Caller, RefreshCookie]:
        """Return *caller* with what else its headers say of it, and the cookie that came along.

        Market data is answered without.
        """
        cookie = RefreshCookie()
        if "x-requested-with" in asked.headers:
            # No form and no image of another site can send that header; browsers ask us first.
            text = asked.cookies.get(COOKIE)
            cookie.sent = SecretStr(text) if text else None
        return with_agent(caller, asked)._replace(request_id=current_request_id()), cookie

    async def of_payload(self, caller: Caller, payload: dict[str, Any] | None) -> Caller:
        """Return *caller* as whom the payload of its `connection_init` proves.

        While nobody can say, it stays open who that is (see `again`). Raises `TokenRefused`,
        `RateLimited`.
        """
        shown = [value for name, value in (payload or {}).items() if name.lower() == _NAME]
        shown = [value for value in shown if value not in (None, "")]
        if not shown:
            return caller
        if len(shown) > 1 or not isinstance(shown[0], str):
            raise TokenRefused
        return await self._perhaps_proved(SecretStr(shown[0]), caller)

    async def again(self, caller: Caller) -> Caller:
        """Return what *caller* is now, some time after it came in.

        Raises `TokenRefused`, `RateLimited` for one of whom that was in doubt.
        """
        if caller.shown is not None and caller.principal is None:
            return await self._perhaps_proved(caller.shown, caller)
        if caller.principal is None:
            return caller
        try:
            principal = await self._identity.check(caller.principal.claims)
        except Unauthenticated:
            return caller._replace(principal=None)
        except AccountsUnavailable as away:
            return caller._replace(principal=None, doubt=away)
        return caller._replace(principal=principal)

    async def _perhaps_proved(self, header: SecretStr, caller: Caller) -> Caller:
        """Return *caller* as whom *header* proves, or in doubt. Raises `TokenRefused`,
        `RateLimited`.
        """
        try:
            principal = await self._proved(header.get_secret_value(), caller)
        except AccountsUnavailable as away:
            return caller._replace(doubt=away, shown=header)
        return caller._replace(principal=principal, doubt=None, shown=None)

    async def _proved(self, header: str, caller: Caller) -> Principal:
        """Raises `TokenRefused`, `RateLimited`, `AccountsUnavailable`."""
        scheme, _, bearer = header.partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise TokenRefused
        try:
            if not self._identity.is_read(bearer):
                # A signature or a database is asked for it: as often as anybody may ask anything.
                await self._gate.stranger(caller)
            return await self._identity.authenticate(bearer)
        except Unauthenticated:
            raise TokenRefused from None

    def cookie_header(self, cookie: RefreshCookie) -> str | None:
        """Return the `Set-Cookie` that keeps or ends a refresh token, None to leave it as it is."""
        if cookie.kept is not None:
            token, ends = cookie.kept
            expires = format_datetime(ends.astimezone(UTC), usegmt=True)
            text = f"{COOKIE}={token.get_secret_value()}; Expires={expires}"
        elif cookie.dropped:
            text = f"{COOKIE}=; Max-Age=0"
        else:
            return None
        secure = "; Secure" if self._secure else ""
        return f"{text}; Path={_PATH}; HttpOnly; SameSite=Strict{secure}"


class AccountAttempts:
    """`Attempts` that *gate* counts, by the name that was typed, whether anybody has it or not.

    An account has two names, and each has half of what the account may be tried. Were they counted
    as one, whoever uses up one of them would learn which other is of the same account.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def login(self, name: str) -> None:
        await self._gate.guesses(Group.LOGIN, name)

    async def mail_elsewhere(self, address: str) -> None:
        await self._gate.guesses(Group.PASSWORD_RESET, address)
