"""How responses are framed on an HTTP stream, and which framing a client accepts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import orjson

from web.live.receiver import Errors


@dataclass(frozen=True, slots=True)
class Framing:
    """What stands around each response, and what is said when nothing else is."""

    name: str
    media_type: str
    opening: bytes
    head: bytes
    tail: bytes
    heartbeat: bytes
    completed: bytes
    """After the last response of an operation that is over."""
    interrupted: bytes
    """Where the operation is not over, but the stream is: a client may ask again."""

    def failed(self, errors: Errors) -> bytes:
        """Return how an operation ends with *errors*."""
        return self.head + orjson.dumps({"errors": errors}) + self.tail + self.completed


SSE = Framing(
    name="sse",
    media_type="text/event-stream; charset=utf-8",
    opening=b":\n\n",
    head=b"event: next\ndata: ",
    tail=b"\n\n",
    heartbeat=b":\n\n",
    completed=b"event: complete\ndata:\n\n",
    interrupted=b"",
)
"""Server-Sent Events, each operation on a connection of its own, as graphql-sse has them."""

_PART = b"\r\ncontent-type: application/json\r\n\r\n"
_BOUNDARY = b"\r\n--graphql"
_GOING_AWAY = {
    "payload": None,
    "errors": [
        {"message": "The stream was interrupted.", "extensions": {"code": "GOING_AWAY"}},
    ],
}

MULTIPART = Framing(
    name="multipart",
    media_type='multipart/mixed;boundary="graphql";subscriptionSpec=1.0',
    # A client knows that a part is over by the boundary after it, so that goes with the part.
    opening=_BOUNDARY,
    head=_PART + b'{"payload":',
    tail=b"}" + _BOUNDARY,
    heartbeat=_PART + b"{}" + _BOUNDARY,
    completed=b"--\r\n",
    interrupted=_PART + orjson.dumps(_GOING_AWAY) + _BOUNDARY + b"--\r\n",
)
"""Apollo's subscriptions over multipart HTTP."""


@lru_cache(maxsize=256)
def framing_of(accept: str) -> Framing | None:
    """Return the framing that the header *accept* names first, None if it names none."""
    for choice in accept.split(","):
        media_type, *parameters = ("".join(part.split()).lower() for part in choice.split(";"))
        if any(parameter in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for parameter in parameters):
            continue
        if media_type == "text/event-stream":
            return SSE
        named = {parameter.replace('"', "") for parameter in parameters}
        if media_type == "multipart/mixed" and "subscriptionspec=1.0" in named:
            return MULTIPART
    return None
