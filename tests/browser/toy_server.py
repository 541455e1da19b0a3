"""Serve the real page over a made-up schema, to test it without stores or providers."""

import asyncio
import math
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NewType

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.schema.config import StrawberryConfig
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from web.graphiql import graphiql_routes

HOUR = 3_600_000
NEWEST = 1_700_002_800_000

Timestamp = NewType("Timestamp", int)


@strawberry.input
class SeriesInput:
    provider: str
    symbol: str
    timeframe: str


@strawberry.type(description="The prices of one stretch of time.")
class Candle:
    time: Timestamp
    open: float
    high: float
    low: float
    close: float
    volume: float
    is_closed: bool


@strawberry.type
class Summary:
    sentence: str


@strawberry.type
class CandleWindow:
    candles: list[Candle]
    summary: Summary


def _candle(index: int) -> Candle:
    opened, closed = (round(30_000 + 400 * math.sin(at / 3), 2) for at in (index, index + 1))
    return Candle(
        time=Timestamp(NEWEST - index * HOUR),
        open=opened,
        high=max(opened, closed) + 25,
        low=min(opened, closed) - 25,
        close=closed,
        volume=12.5 + index,
        is_closed=index > 0,
    )


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "world"

    @strawberry.field
    def candles(self, series: SeriesInput, last: int = 500) -> CandleWindow:
        return CandleWindow(
            candles=[_candle(index) for index in reversed(range(last))],
            summary=Summary(sentence=f"{last} bars of {series.symbol}, {series.timeframe} each."),
        )


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int, delay_ms: int = 0) -> AsyncGenerator[int, None]:
        for number in range(1, to + 1):
            await asyncio.sleep(delay_ms / 1000)
            yield number


def toy_app(bundle: Path) -> Starlette:
    schema = strawberry.Schema(
        query=Query,
        subscription=Subscription,
        config=StrawberryConfig(scalar_map={Timestamp: strawberry.scalar(name="Timestamp")}),
    )
    api = GraphQL(schema, graphql_ide=None, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL])
    return Starlette(
        routes=[
            Route("/graphql", api),
            WebSocketRoute("/graphql", api),
            *graphiql_routes(bundle),
        ]
    )


@contextmanager
def toy_server(bundle: Path, port: int = 0) -> Iterator[str]:
    """Serve the toy on a loopback port for as long as the context lasts, and yield its origin."""
    with socket.create_server(("127.0.0.1", port)) as listener:  # listening: who comes early waits
        server = uvicorn.Server(uvicorn.Config(toy_app(bundle), log_level="warning"))
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
