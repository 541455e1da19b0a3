"""One question over everything that carries GraphQL, and what comes back first."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.exceptions import ConnectionClosed

from tests.abuse.target import Target, bearer
from tests.web.doors import payload_of

MULTIPART = 'multipart/mixed;subscriptionSpec="1.0"'
Answer = dict[str, Any]
Over = Callable[[Target, dict[str, Any], str | None], Awaitable[Answer]]
"""Asks a target something with a token, and returns the response, or the close as its code."""


async def over_post(target: Target, asked: dict[str, Any], token: str | None) -> Answer:
    return (await target.post(asked, **bearer(token))).json()


async def over_get(target: Target, asked: dict[str, Any], token: str | None) -> Answer:
    parameters = {n: v if isinstance(v, str) else json.dumps(v) for n, v in asked.items()}
    async with target.http(headers=bearer(token)) as http:
        return (await http.get("/graphql", params=parameters)).json()


async def over_events(target: Target, asked: dict[str, Any], token: str | None) -> Answer:
    answer = await target.post(asked, accept="text/event-stream", **bearer(token))
    if answer.headers["content-type"].startswith("application/"):
        return answer.json()
    first = next(line for line in answer.text.splitlines() if line.startswith("data: "))
    return json.loads(first.removeprefix("data: "))


async def over_parts(target: Target, asked: dict[str, Any], token: str | None) -> Answer:
    answer = await target.post(asked, accept=MULTIPART, **bearer(token))
    if answer.headers["content-type"].startswith("application/"):
        return answer.json()
    first = next(line for line in answer.text.splitlines() if line.startswith('{"payload":'))
    return json.loads(first)["payload"]


async def over_socket(target: Target, asked: dict[str, Any], token: str | None) -> Answer:
    async with target.socket() as client:
        try:
            await client.send({"type": "connection_init", "payload": payload_of(token)})
            await client.receive()
            await client.send({"type": "subscribe", "id": "1", "payload": asked})
            message = await client.of("1")
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return {"closed": closed.rcvd.code}
    return {"errors": message["payload"]} if message["type"] == "error" else message["payload"]


TRANSPORTS: list[Over] = [over_post, over_get, over_events, over_parts, over_socket]
"""The socket, which is closed to tokens that do not count, comes last."""
