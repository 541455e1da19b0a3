"""Two peers in Python, each an ASGI application over one Redis connection of the process.

`stock()`: Strawberry as it comes, the shipped `Candle` in an update of its own, sent by its own
handler: every subscriber executes every event. `limit()`: one ready string, sent to every socket in
turn: what no server that goes through ASGI can exceed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Annotated, Any
from uuid import uuid4

import orjson
import strawberry
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import GraphQL
from strawberry.schema.config import StrawberryConfig

from benchmarks.live.asked import CHANNEL, PROTOCOL
from schema.candles import Candle, SeriesInput
from schema.enums import BarSource
from schema.scalars import SCALARS

REDIS_URL = "BENCH_REDIS_URL"


@strawberry.type
class BarUpdate:
    candles: list[Candle]
    cursor: str


@strawberry.type
class FeedStatus:
    message: str


BarEvent = Annotated[BarUpdate | FeedStatus, strawberry.union("BarEvent")]


@strawberry.type
class Query:
    hello: str = "world"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def bars(self, series: SeriesInput) -> AsyncGenerator[BarEvent, None]:
        queue: asyncio.Queue[BarUpdate] = asyncio.Queue()
        _queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            _queues.discard(queue)


_queues: set[asyncio.Queue[BarUpdate]] = set()
_sockets: set[WebSocket] = set()


def stock() -> Starlette:
    config = StrawberryConfig(scalar_map=SCALARS)
    schema = strawberry.Schema(query=Query, subscription=Subscription, config=config)

    async def give(text: bytes) -> None:
        told = orjson.loads(text)
        update = BarUpdate(candles=[_candle(bar) for bar in told["candles"]], cursor=told["cursor"])
        for queue in _queues:
            queue.put_nowait(update)

    return Starlette(
        routes=[WebSocketRoute("/graphql", GraphQL(schema))], lifespan=_listening(give)
    )


def limit() -> Starlette:
    async def watch(socket: WebSocket) -> None:
        await socket.accept(subprotocol=PROTOCOL)
        await socket.receive_text()
        await socket.send_text('{"type":"connection_ack"}')
        _sockets.add(socket)
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            _sockets.discard(socket)

    head = f'{{"id":"{uuid4()}","type":"next","payload":{{"data":{{"bars":'

    async def give(text: bytes) -> None:
        message = f"{head}{text.decode()}}}}}}}"
        for socket in list(_sockets):
            with suppress(WebSocketDisconnect, RuntimeError):
                await socket.send_text(message)

    return Starlette(routes=[WebSocketRoute("/graphql", watch)], lifespan=_listening(give))


def _listening(
    give: Callable[[bytes], Awaitable[None]],
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Return a lifespan in which *give* gets what is published on `CHANNEL`."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with Redis.from_url(os.environ[REDIS_URL]) as redis, redis.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            listening = asyncio.create_task(listen(pubsub), name="listen")
            yield
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def listen(pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                await give(message["data"])

    return lifespan


def _candle(bar: dict[str, Any]) -> Candle:
    return Candle(
        time=bar["time"],
        open=bar["open"],
        high=bar["high"],
        low=bar["low"],
        close=bar["close"],
        volume=bar["volume"],
        trades=None,
        vwap=None,
        is_closed=bar["isClosed"],
        revision=0,
        updated_at=bar["time"],
        source=BarSource.MINUTES,
    )
