"""Find out who asks: by the header of a request, or by what a socket says when it connects.

A token that does not count is refused, never passed over: whoever shows one means to be somebody.
While the accounts are away public fields go on and private ones fail. A token in a URL is not
looked at, since URLs end up in logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from email.utils import format_datetime
from hashlib import sha256
from typing import Any, ClassVar, Protocol

from pydantic import SecretStr
from starlette.requests import HTTPConnection

from db.accounts.errors import AccountsUnavailable
from market.lru import LRU
from resolvers.callers import Caller
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.principal import Claims, Principal
from schema.context import RefreshCookie
from web.graphql_request import RequestRefused
from web.limits.gate import Gate
from web.limits.rates import Group

COOKIE = "bargraph_refresh"
_NAME = "authorization"
_PATH = "/graphql"
_MOST_KNOWN = 20_000
_LONGEST_AGENT = 200
_LONGEST_ID = 64


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
    """Knows tokens, and whether they still count; both may raise `AccountsUnavailable`."""

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
        self._known: LRU[bytes, Claims] = LRU(max_count=_MOST_KNOWN)

    async def of_request(
        self, asked: HTTPConnection, caller: Caller
    ) -> tuple[Caller, RefreshCookie]:
        """Return *caller* as whom its headers prove, and the cookie that came along.

        Raises `TokenRefused`, `RateLimited`.
        """
        shown, agent, request_id, cookies = [], None, None, False
        deliberate = False
        for name, value in asked.scope["headers"]:  # each look-up by name would go through all
            if name == b"authorization":
                shown.append(value)
            elif name == b"user-agent":
                agent = value.decode("latin-1")[:_LONGEST_AGENT]
            elif name == b"x-request-id":
                request_id = value.decode("latin-1")[:_LONGEST_ID]
            elif name == b"cookie":
                cookies = True
            elif name == b"x-requested-with":
                deliberate = True
        cookie = RefreshCookie()
        if cookies and deliberate:
            # No form and no image of another site can send that header; browsers ask us first.
            text = asked.cookies.get(COOKIE)
            cookie.sent = SecretStr(text) if text else None
        if len(shown) > 1:
            raise TokenRefused
        principal, doubt = None, None
        if shown and shown[0]:
            try:
                principal = await self._proved(shown[0].decode("latin-1"), caller)
            except AccountsUnavailable as away:
                doubt = away
        # `replace` would take three times as long.
        known = Caller(caller.local, caller.address, agent, request_id, principal, doubt)
        return known, cookie

    async def of_payload(self, caller: Caller, payload: dict[str, Any] | None) -> Caller:
        """Return *caller* as whom the payload of its `connection_init` proves.

        Raises `TokenRefused`, also while nobody can say, and `RateLimited`.
        """
        shown = [value for name, value in (payload or {}).items() if name.lower() == _NAME]
        shown = [value for value in shown if value not in (None, "")]
        if not shown:
            return caller
        if len(shown) > 1 or not isinstance(shown[0], str):
            raise TokenRefused
        try:
            return replace(caller, principal=await self._proved(shown[0], caller))
        except AccountsUnavailable:
            raise TokenRefused from None

    async def again(self, caller: Caller) -> Caller:
        """Return what *caller* is now, some time after it came in."""
        if caller.principal is None:
            return caller
        try:
            principal = await self._identity.check(caller.principal.claims)
        except Unauthenticated:
            return replace(caller, principal=None)
        except AccountsUnavailable as away:
            return replace(caller, principal=None, doubt=away)
        return replace(caller, principal=principal)

    async def _proved(self, header: str, caller: Caller) -> Principal:
        """Raises `TokenRefused`, `RateLimited`, `AccountsUnavailable`."""
        scheme, _, bearer = header.partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise TokenRefused
        digest = sha256(bearer.encode("utf-8", "surrogatepass")).digest()
        claims = self._known.get(digest)
        try:
            if claims is not None:
                return await self._identity.check(claims)
            # A signature or a database is asked for it: as often as anybody may ask anything.
            await self._gate.stranger(caller)
            principal = await self._identity.authenticate(bearer)
        except Unauthenticated:
            self._known.pop(digest)
            raise TokenRefused from None
        self._known.put(digest, principal.claims)
        return principal

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
    """`Attempts` that *gate* counts, by the name that was typed, whether anybody has it or not."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def login(self, name: str) -> None:
        await self._gate.guesses(Group.LOGIN, name)

    async def password_reset(self, email: str) -> None:
        await self._gate.guesses(Group.PASSWORD_RESET, email)
