"""Serve the real page over a made-up schema that streams, to test sockets by themselves."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from web.graphiql import graphiql_routes


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "world"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(
        self, to: int, delay_ms: int = 0, fail_after: int | None = None
    ) -> AsyncGenerator[int, None]:
        for number in range(1, to + 1):
            if fail_after is not None and number > fail_after:
                raise ArithmeticError("lost count")
            await asyncio.sleep(delay_ms / 1000)
            yield number


def toy_app(bundle: Path) -> Starlette:
    schema = strawberry.Schema(query=Query, subscription=Subscription)
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
