"""A server in this process over a small schema whose events a test publishes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import strawberry
import uvicorn
from graphql import GraphQLSchema
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from strawberry.schema.config import StrawberryConfig
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from market.errors import BadInput, ProviderUnavailable
from resolvers.callers import Caller, Forbidden
from resolvers.live import Shown
from schema.build import BargraphSchema
from schema.errors import format_error
from schema.executor import BarExecutor
from schema.scalars import SCALARS
from web.callers import caller_of
from web.documents import Documents
from web.graphql_http import GraphQLEndpoint
from web.limits.gate import Gate
from web.live.connection import Greet
from web.live.counts import LiveCounts
from web.live.endpoint import Live, greet_everyone
from web.live.execution import Executions
from web.live.frames import FramesProtocol
from web.live.limits import LiveLimits
from web.live.messages import PROTOCOL
from web.live.origin import Origins
from web.metrics import Metrics
from web.persisted import PersistedQueries

PATIENCE = 20.0
"""Seconds after which what a test waits for will not come."""

TICKS = "subscription { ticks(of: 1) { number text } }"


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


MakesGate = Callable[[GraphQLSchema], Gate]


@strawberry.type
class Tick:
    number: int
    text: str

    @strawberry.field
    def told(self, info: strawberry.Info) -> int:
        """How often anything asked for this field."""
        stage: Stage = info.context.stage
        stage.asked += 1
        return stage.asked


@dataclass
class Tape:
    """A tail that tests write, for `LiveEvents` of one key."""

    listeners: list[asyncio.Queue[Shown[Tick] | Exception | None]] = field(default_factory=list)
    entered: int = 0
    left: int = 0
    caught_up: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Joining waits for it."""
    history: list[Tick] = field(default_factory=list)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    """A catch-up waits for it after its first event."""
    refuses: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()
        self.reading.set()

    def publish(self, number: int, text: str = "", passing: Hashable | None = None) -> None:
        self.put(Shown(Tick(number=number, text=text), passing, place=number))

    def put(self, shown: Shown[Tick] | Exception | None) -> None:
        for listener in self.listeners:
            listener.put_nowait(shown)


class Ticks:
    """`LiveEvents` of a tape."""

    def __init__(self, key: Hashable, tape: Tape, after: int | None) -> None:
        self.key = key
        self._tape = tape
        self._after = after
        self._told: set[object] = set()

    async def __aiter__(self) -> AsyncIterator[Tick]:
        async with self.tail() as tail:
            async for tick in self.catch_up():
                yield tick
            async for shown in tail:
                yield shown.event

    async def catch_up(self) -> AsyncIterator[Tick]:
        try:
            for tick in list(self._tape.history):
                if self._after is None or tick.number > self._after:
                    yield tick
                    self._told.add(tick.number)
                    await self._tape.reading.wait()
        finally:
            self._tape.caught_up += 1

    def told(self, place: object) -> bool:
        return place is not None and place in self._told

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[AsyncIterator[Shown[Tick]]]:
        tape = self._tape
        await tape.gate.wait()
        if tape.refuses is not None:
            raise tape.refuses
        queue: asyncio.Queue[Shown[Tick] | Exception | None] = asyncio.Queue()
        tape.listeners.append(queue)
        tape.entered += 1
        try:
            yield self._read(queue)
        finally:
            tape.listeners.remove(queue)
            tape.left += 1

    async def _read(
        self, queue: asyncio.Queue[Shown[Tick] | Exception | None]
    ) -> AsyncIterator[Shown[Tick]]:
        while (shown := await queue.get()) is not None:
            if isinstance(shown, Exception):
                raise shown
            yield shown


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    async def slow(self, info: strawberry.Info, seconds: float = 1) -> str:
        info.context.stage.began.set()
        await asyncio.sleep(seconds)
        return "at last"

    @strawberry.field
    def wrong(self) -> str:
        raise BadInput("No such thing.", field="wrong")

    @strawberry.field
    def large(self, size: int) -> str:
        return "x" * size


@strawberry.type
class Mutation:
    @strawberry.mutation
    def add(self, number: int) -> int:
        return number + 1

    @strawberry.mutation
    def guarded(self, info: strawberry.Info) -> str:
        if not info.context.caller.local:
            raise Forbidden("This may be done at the server's machine only.")
        return "done"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(
        self, info: strawberry.Info, to: int = 3, delay_ms: int = 0
    ) -> AsyncIterator[int]:
        stage: Stage = info.context.stage
        stage.running += 1
        try:
            for number in range(1, to + 1):
                await asyncio.sleep(delay_ms / 1000)
                yield number
        finally:
            stage.running -= 1

    @strawberry.subscription
    async def local(self, info: strawberry.Info) -> AsyncIterator[bool]:
        yield info.context.caller.local

    @strawberry.subscription
    async def ticks(
        self, info: strawberry.Info, of: int = 1, after: int | None = None
    ) -> AsyncIterable[Tick]:
        if of < 0:
            raise BadInput("There is no such tape.", field="of")
        return Ticks(of, info.context.stage.tape(of), after)

    @strawberry.subscription
    async def flood(self, info: strawberry.Info, to: int, size: int) -> AsyncIterator[Tick]:
        """As much as is taken, with texts of *size* characters."""
        for number in range(to):
            info.context.stage.flooded = number
            yield Tick(number=number, text="x" * size)

    @strawberry.subscription
    async def stubborn(self, info: strawberry.Info) -> AsyncIterator[int]:
        """What does not end before the test lets it."""
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await info.context.stage.began.wait()

    @strawberry.subscription
    async def failing(self, expected: bool = True) -> AsyncIterator[int]:
        yield 1
        if expected:
            raise ProviderUnavailable("sim", "out of order", retry_after=3)
        raise RuntimeError("password=hunter2")


@dataclass
class Context:
    stage: Stage
    caller: Caller
    takes_fragments: bool = True
    fragments: int = 0


class Stage:
    """What resolvers and tests have in common."""

    def __init__(
        self,
        limits: LiveLimits,
        origins: Iterable[str] = (),
        greet: Greet = greet_everyone,
        gate: MakesGate | None = None,
    ) -> None:
        self.tapes: dict[int, Tape] = {}
        self.running = 0
        self.asked = 0
        self.contexts = 0
        self.flooded = 0
        self.began = asyncio.Event()
        self.documents = Documents()
        metrics = Metrics()
        self.registry: CollectorRegistry = metrics.registry
        self.counts = LiveCounts(metrics.registry)
        schema = BargraphSchema(
            query=Query,
            mutation=Mutation,
            subscription=Subscription,
            extensions=[self.documents.extension],
            execution_context_class=BarExecutor,
            config=StrawberryConfig(scalar_map=SCALARS),
        )
        self.gate = gate(schema.core) if gate is not None else None
        executions = Executions(
            gate=self.gate,
            schema=schema,
            documents=self.documents,
            context=self.context,
            format_error=format_error,
            persisted=PersistedQueries(None, prefix=""),
        )
        self.live = Live(
            executions,
            limits=limits,
            counts=self.counts,
            origins=origins,
            greet=greet,
            gate=self.gate,
        )
        self.endpoint = GraphQLEndpoint(
            schema=schema,
            documents=self.documents,
            context=lambda request: self.context(caller_of(request)),
            format_error=format_error,
            persisted=PersistedQueries(None, prefix=""),
            metrics=metrics,
            live=self.live,
            gate=self.gate,
            origins=Origins(origins),
        )
        self.app = Starlette(
            routes=[Route("/graphql", self.endpoint), WebSocketRoute("/graphql", self.live)]
        )

    def context(self, caller: Caller) -> Context:
        self.contexts += 1
        return Context(self, caller)

    def tape(self, of: int = 1) -> Tape:
        return self.tapes.setdefault(of, Tape())

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@dataclass
class Serving:
    """A stage that is served on a port of this machine."""

    stage: Stage
    server: uvicorn.Server
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/graphql"

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Client]:
        """A client that has connected and said nothing yet."""
        options.setdefault("subprotocols", [PROTOCOL])
        options.setdefault("ping_interval", None)
        url = self.url.replace("http", "ws", 1)
        async with connect(url, **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """A client that was acknowledged."""
        async with self.socket(**options) as client:
            await client.init()
            yield client

    @asynccontextmanager
    async def narrow(self) -> AsyncIterator[Client]:
        """A client that reads only what it is asked to receive, and for which little waits."""
        with socket.socket() as narrow:
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect((self.host, self.port))
            narrow.setblocking(False)
            async with self.client(sock=narrow, max_queue=1, close_timeout=0.1) as client:
                yield client

    def http(self) -> httpx.AsyncClient:
        # Nothing is verified over plain HTTP, and to read certificates takes long.
        url = f"http://{self.host}:{self.port}"
        return httpx.AsyncClient(base_url=url, timeout=PATIENCE, verify=False)


class Client:
    """A WebSocket client that remembers what it was not asked for yet."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.kept: deque[dict[str, Any]] = deque()

    async def send(self, message: object) -> None:
        await self.connection.send(
            message if isinstance(message, str | bytes) else json.dumps(message)
        )

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self.connection.recv())

    async def of(self, id: str) -> dict[str, Any]:
        """Return the next message of the operation *id*."""
        for message in self.kept:
            if message.get("id") == id:
                self.kept.remove(message)
                return message
        while (message := await self.receive()).get("id") != id:
            self.kept.append(message)
        return message

    async def init(self, payload: object = None) -> None:
        await self.send({"type": "connection_init", "payload": payload})
        assert await self.receive() == {"type": "connection_ack"}

    async def subscribe(self, id: str, query: str, **payload: Any) -> None:
        await self.send({"type": "subscribe", "id": id, "payload": {"query": query, **payload}})

    async def complete(self, id: str) -> None:
        await self.send({"type": "complete", "id": id})

    async def answer(self, id: str) -> dict[str, Any]:
        """Return the response in the next message of *id*, which is a `next`."""
        message = await self.of(id)
        assert message["type"] == "next", message
        return message["payload"]

    async def alive(self) -> bool:
        """Say whether the socket still answers."""
        await self.send({"type": "ping"})
        while (message := await self.receive())["type"] != "pong":
            self.kept.append(message)
        return True

    async def closed(self) -> tuple[int, str]:
        """Wait for the close, and return its code and reason."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None, closed
                return closed.rcvd.code, closed.rcvd.reason


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to pytest."""
        yield


@asynccontextmanager
async def served(
    limits: LiveLimits | None = None,
    *,
    ws: Any = FramesProtocol,
    send_buffer: int | None = None,
    origins: Iterable[str] = (),
    greet: Greet = greet_everyone,
    gate: MakesGate | None = None,
) -> AsyncIterator[Serving]:
    """Serve a stage; *send_buffer* is the system's buffer for what a client has not read."""
    limits = limits or LiveLimits()
    stage = Stage(limits, origins, greet, gate)
    with socket.socket() as listener:
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2000)
        config = uvicorn.Config(
            stage.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            ws=ws,
            ws_max_size=limits.message_bytes,
            ws_per_message_deflate=False,
            ws_ping_interval=None,
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started or running.done())
        try:
            yield Serving(stage, server, *listener.getsockname()[:2])
        finally:
            await stage.live.drain(PATIENCE)
            server.should_exit = True
            await running
