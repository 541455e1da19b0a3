"""Headers that every answer over HTTP carries, and leave for pages of other origins to read it."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    *("x-apollo-operation-name", "x-request-id"),
)
"""Headers that pages of other origins may send."""
_YEAR = "max-age=31536000"


class SecurityHeaders:
    """An ASGI application that adds to the answers of *app* the headers they do not have yet.

    *strict_transport* tells browsers that were answered over TLS to use nothing else for a year;
    others are told the same and ignore it.
    """

    def __init__(self, app: ASGIApp, *, strict_transport: bool = False) -> None:
        self._app = app
        added = dict(SECURITY_HEADERS)
        if strict_transport:
            added["strict-transport-security"] = _YEAR
        self._added = [(name.encode(), value.encode()) for name, value in added.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                message["headers"] = [
                    *headers,
                    *(pair for pair in self._added if pair[0] not in present),
                ]
            await send(message)

        await self._app(scope, receive, send_more)


def middleware(origins: Iterable[str], *, strict_transport: bool) -> list[Middleware]:
    """Return what stands around all routes; pages of *origins* may read their answers.

    Each origin is named. Browsers send cookies along, which `*` would open to every page.
    """
    around = [Middleware(SecurityHeaders, strict_transport=strict_transport)]
    if named := tuple(origin.lower() for origin in origins):
        cors = Middleware(
            CORSMiddleware,
            allow_origins=named,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_SENT,
            allow_credentials=True,
            expose_headers=("retry-after",),
        )
        around.append(cors)
    return around
