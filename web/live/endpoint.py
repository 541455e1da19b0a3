"""All live transport of one process: its sockets, its streams, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from resolvers.callers import Caller
from web.callers import caller_of, with_agent
from web.graphql_request import GraphQLRequest, RequestRefused
from web.limits.gate import Gate
from web.live.admission import Admission
from web.live.connection import Connection, Greet
from web.live.counts import LiveCounts
from web.live.execution import Executions
from web.live.frames import FramesProtocol
from web.live.framing import SSE, Framing
from web.live.groups import Groups
from web.live.limits import LiveLimits
from web.live.messages import GOING_AWAY, PROTOCOL, UNKNOWN_SUBPROTOCOL
from web.live.operations import Operations
from web.live.origin import Origins
from web.live.stream import Stream
from web.live.watch import Watch
from web.live.writer import writer_of


async def greet_everyone(caller: Caller, _payload: dict[str, Any] | None) -> Caller:
    """Let every client connect."""
    return caller


class Live:
    """An ASGI application for WebSockets, and the maker of streams for the one that has HTTP.

    Pages of our own origin and of *origins* may connect, and programs, which have none. *gate*
    tells who connects, and limits how often.
    """

    def __init__(
        self,
        executions: Executions,
        *,
        limits: LiveLimits,
        counts: LiveCounts,
        origins: Iterable[str] = (),
        greet: Greet = greet_everyone,
        gate: Gate | None = None,
    ) -> None:
        self._limits = limits
        self._counts = counts
        self._greet = greet
        self._gate = gate
        self._caller = gate.caller if gate is not None else caller_of
        self._groups = Groups(limits, counts)
        self._watch = Watch()
        self._running = Operations(executions, self._groups, counts, self._watch)
        self._admission = Admission(
            origins=Origins(origins),
            most=limits.connections,
            per_address=limits.connections_per_address,
            address=lambda asked: self._caller(asked).address,
        )
        self._connections: set[Connection] = set()
        self._streams: set[Stream] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = HTTPConnection(scope)
        await receive()  # websocket.connect
        with ExitStack() as stack:
            try:
                self._admission.check(asked)
                stack.enter_context(self._admission.enter(asked))
                if self._gate is not None:
                    await self._gate.opened(self._caller(asked))
                self._admission.check_open()  # it may have been shut meanwhile
            except RequestRefused as refusal:
                stack.close()
                await _refuse(refusal, scope, receive, send)
                return
            await self._connect(asked, scope, receive, send)

    async def _connect(
        self, asked: HTTPConnection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        writer = writer_of(scope, send, patience=self._limits.stall)
        if PROTOCOL not in scope["subprotocols"]:
            await send({"type": "websocket.accept"})
            await writer.close(UNKNOWN_SUBPROTOCOL)
            return
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
        frames = isinstance(writer, FramesProtocol)
        tally = self._counts.frames if frames else self._counts.websocket
        connection = Connection(
            receive,
            writer,
            caller=with_agent(self._caller(asked), asked),
            running=self._running,
            greet=self._greet,
            limits=self._limits,
            tally=tally,
        )
        tally.connections += 1
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            tally.connections -= 1

    def stream(
        self, request: Request, asked: GraphQLRequest, framing: Framing, caller: Caller
    ) -> StreamedResponse:
        """Return the response to what *caller* *asked* as a stream. Raises `RequestRefused`."""
        self._admission.check(request)
        return StreamedResponse(self, request, asked, framing, caller)

    async def run_stream(self, response: StreamedResponse, receive: Receive, send: Send) -> None:
        """Send what *response* stands for."""
        sse = response.framing is SSE
        tally = self._counts.sse if sse else self._counts.multipart
        stream = Stream(
            response.asked,
            response.framing,
            caller=response.caller,
            running=self._running,
            limits=self._limits,
            tally=tally,
        )
        with self._admission.enter(response.request):
            tally.connections += 1
            self._streams.add(stream)
            try:
                await stream.serve(receive, send)
            finally:
                self._streams.discard(stream)
                tally.connections -= 1

    async def drain(self, deadline: float) -> None:
        """Let nobody in any more, tell all that we go away, and wait *deadline* seconds for them.

        Their clients connect again, to another process or to the next one here.
        """
        self._admission.closed = True
        for connection in list(self._connections):
            connection.close(GOING_AWAY)
        for stream in list(self._streams):
            stream.interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._admission.empty()
        await self._watch.aclose()
        await self._groups.aclose()


class StreamedResponse:
    """An ASGI application that answers one request with a stream."""

    def __init__(
        self,
        live: Live,
        request: Request,
        asked: GraphQLRequest,
        framing: Framing,
        caller: Caller,
    ) -> None:
        self.request = request
        self.asked = asked
        self.framing = framing
        self.caller = caller
        self._live = live

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await self._live.run_stream(self, receive, send)


async def _refuse(refusal: RequestRefused, scope: Scope, receive: Receive, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # which servers answer with 403
        return
    shown = {"message": str(refusal), "extensions": {"code": refusal.code, **refusal.facts}}
    response = JSONResponse({"errors": [shown]}, refusal.status, headers=dict(refusal.headers))
    await response(scope, receive, send)
