"""Headers that every answer over HTTP carries, and leave for pages of other origins to read it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from time import perf_counter

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.request_ids import begin_request

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # What the API answers is no page: nothing in it may run, load or be framed.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SENT = (
    *("authorization", "content-type", "last-event-id", "x-csrf-token", "x-requested-with"),
    *("apollo-require-preflight", "apollographql-client-name", "apollographql-client-version"),
    *("x-apollo-operation-name", REQUEST_ID),
)
"""Headers that pages of other origins may send."""
_YEAR = "max-age=31536000"


_PREFLIGHT_SECONDS = 7_200
"""How long browsers keep what they were told before they asked: the most that all of them do."""
_STARTS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}


class AnswerHeaders:
    """An ASGI application that adds to the answers of *app* the headers they do not have yet.

    Each request begins here, under an id of its own. *strict_transport* tells browsers that were
    answered over TLS to use nothing else for a year; others are told the same and ignore it. Where
    answers *vary* by the origin that asks, caches are told so, also of those that no origin asked.
    """

    def __init__(self, app: ASGIApp, *, strict_transport: bool = False, vary: bool = False) -> None:
        self._app = app
        added = dict(SECURITY_HEADERS)
        if strict_transport:
            added["strict-transport-security"] = _YEAR
        self._vary = vary
        self._added = [(name.encode(), value.encode()) for name, value in added.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        told = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                told = value
        named = (b"x-request-id", begin_request(told).encode())
        noted = _Noted(scope) if log.isEnabledFor(logging.DEBUG) else None

        async def send_more(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = message.get("headers", ())
                present = {name for name, _ in headers}
                message["headers"] = [
                    *headers,
                    *(pair for pair in self._added if pair[0] not in present),
                    named,
                ]
                if self._vary and not any(n == b"vary" and b"rigin" in v for n, v in headers):
                    message["headers"].append((b"vary", b"Origin"))
                if noted is not None:
                    noted.status = message.get("status", 101)
            await send(message)

        try:
            await self._app(scope, receive, send_more)
        finally:
            if noted is not None:
                noted.log()


class _Noted:
    """A request as the log tells of it at the level `debug`."""

    def __init__(self, scope: Scope) -> None:
        self._asked = scope.get("method", "WebSocket"), scope["path"]  # no query: it may be secret
        self._begun = perf_counter()
        self.status = 0

    def log(self) -> None:
        ms = (perf_counter() - self._begun) * 1000
        log.debug("%s %s: %d in %.1f ms", *self._asked, self.status, ms)


def middleware(origins: Iterable[str], *, strict_transport: bool) -> list[Middleware]:
    """Return what stands around all routes; pages of *origins* may read their answers.

    Each origin is named. Browsers send cookies along, which `*` would open to every page.
    """
    named = tuple(origin.lower() for origin in origins)
    around = [Middleware(AnswerHeaders, strict_transport=strict_transport, vary=bool(named))]
    if named:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=named,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_SENT,
            allow_credentials=True,
            expose_headers=("retry-after", REQUEST_ID),
            max_age=_PREFLIGHT_SECONDS,
        )
        around.append(cors)
    return around
