"""The messages of `graphql-transport-ws`, and the close codes for those that break its rules."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import orjson

from web.graphql_request import GraphQLRequest
from web.live.receiver import Errors

PROTOCOL = "graphql-transport-ws"

ACK = b'{"type":"connection_ack"}'
PING = b'{"type":"ping"}'


@dataclass(frozen=True, slots=True)
class Close:
    """Why a socket is closed; *reason* is at most 123 bytes of UTF-8."""

    code: int
    reason: str


GOING_AWAY = Close(1001, "Going away")
NOT_UTF8 = Close(1007, "Messages must be UTF-8")
TOO_LARGE = Close(1009, "Message too big")
# Clients connect again after 1013: graphql-ws takes it for passing, unlike 1008 or 1011.
TOO_SLOW = Close(1013, "Too slow: messages were not read in time")
NO_PONG = Close(1013, "No pong in time")
UNAUTHORIZED = Close(4401, "Unauthorized")
FORBIDDEN = Close(4403, "Forbidden")
UNKNOWN_SUBPROTOCOL = Close(4406, "Subprotocol not acceptable")
INIT_TIMEOUT = Close(4408, "Connection initialisation timeout")
INIT_TWICE = Close(4429, "Too many initialisation requests")


class Violation(Exception):
    """A client broke the protocol; *close* says how."""

    def __init__(self, close: Close) -> None:
        super().__init__(close)
        self.close = close


@dataclass(frozen=True, slots=True)
class ConnectionInit:
    """The first message; *payload* is what the client says about itself."""

    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Ping:
    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class Subscribe:
    id: str
    asked: GraphQLRequest


@dataclass(frozen=True, slots=True)
class Complete:
    id: str


Message = ConnectionInit | Ping | Pong | Subscribe | Complete


def read_message(text: str, *, id_length: int) -> Message:
    """Return the message that *text* spells. Raises `Violation`."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _invalid("Messages must be JSON") from None
    if not isinstance(message, dict):
        raise _invalid("Messages must be JSON objects")
    kind = message.get("type")
    if kind == "connection_init":
        return ConnectionInit(_payload(message))
    if kind == "ping":
        return Ping(_payload(message))
    if kind == "pong":
        _payload(message)
        return Pong()
    if kind == "complete":
        return Complete(_id(message, id_length))
    if kind == "subscribe":
        return Subscribe(_id(message, id_length), _asked(message.get("payload")))
    raise _invalid("The message's `type` is missing or unknown")


def _id(message: dict[str, Any], longest: int) -> str:
    found = message.get("id")
    if not isinstance(found, str) or not found:
        raise _invalid("The message needs an `id`, a string that is not empty")
    if len(found) > longest:
        raise _invalid(f"An `id` has at most {longest} characters")
    return found


def _payload(message: dict[str, Any]) -> dict[str, Any] | None:
    payload = message.get("payload")
    if not isinstance(payload, dict | None):
        raise _invalid("The message's `payload` must be an object")
    return payload


def _asked(payload: object) -> GraphQLRequest:
    if not isinstance(payload, dict):
        raise _invalid("`subscribe` needs a `payload`, an object")
    for name in ("operationName", "query"):
        if not isinstance(payload.get(name), str | None):
            raise _invalid(f"The payload's `{name}` must be a string")
    for name in ("variables", "extensions"):
        if not isinstance(payload.get(name), dict | None):
            raise _invalid(f"The payload's `{name}` must be an object")
    extensions = cast("dict[str, Any] | None", payload.get("extensions"))
    if payload.get("query") is None and "persistedQuery" not in (extensions or {}):
        raise _invalid("The payload needs a `query`")
    return GraphQLRequest(
        query=payload.get("query"),
        operation_name=payload.get("operationName"),
        variables=payload.get("variables"),
        extensions=extensions,
    )


def _invalid(words: str) -> Violation:
    return Violation(Close(4400, words))


def pong(payload: dict[str, Any] | None) -> bytes:
    """Return the answer to a ping, with the ping's payload unless that nests too deep to write."""
    if payload is not None:
        with suppress(orjson.JSONEncodeError):
            return orjson.dumps({"type": "pong", "payload": payload})
    return b'{"type":"pong"}'


def next_head(id: str) -> bytes:
    """Return what comes before a response in a `next` message; a brace comes after it."""
    return b'{"id":' + orjson.dumps(id) + b',"type":"next","payload":'


def end(id: str, errors: Errors | None) -> bytes:
    """Return the last message of an operation."""
    if errors is None:
        return b'{"id":' + orjson.dumps(id) + b',"type":"complete"}'
    return orjson.dumps({"id": id, "type": "error", "payload": errors})


def already_exists(id: str) -> Close:
    """Return the refusal of an id that is in use, cut to what a close frame holds."""
    shown = id.encode()[:80].decode(errors="ignore")
    return Close(4409, f"Subscriber for {shown} already exists")
