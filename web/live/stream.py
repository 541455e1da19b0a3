"""One operation as an HTTP response that lasts as long as the operation."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from starlette.types import Message, Receive, Send

from resolvers.callers import Caller
from web.graphql_request import GraphQLRequest
from web.live.counts import Tally
from web.live.framing import Framing
from web.live.limits import LiveLimits
from web.live.operations import Operations
from web.live.outbox import Letter, Outbox, OutboxFull
from web.live.receiver import Errors

_AT_ONCE = 64 * 1024
"""Bytes that are joined into one piece of the body."""


class Stream:
    """The receiver of an operation whose client waits for the rest of an HTTP response."""

    def __init__(
        self,
        asked: GraphQLRequest,
        framing: Framing,
        *,
        caller: Caller,
        running: Operations,
        limits: LiveLimits,
        tally: Tally,
    ) -> None:
        self._asked = asked
        self._framing = framing
        self._caller = caller
        self._running = running
        self._limits = limits
        self._tally = tally
        self._outbox: Outbox[Letter] = Outbox(
            max_count=limits.outbox_count, max_bytes=limits.outbox_bytes
        )
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._ending: bytes | None = None
        self._gone = False
        self._performing: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self._gone or self._ending is not None

    def next(self, body: bytes, passing: Hashable | None = None) -> None:
        if self.over:
            return
        letter = Letter(self, self._framing.head, body, self._framing.tail)
        try:
            self._tally.conflated += self._outbox.put(letter, passing)
        except OutboxFull:
            self.fall_behind()
            return
        self._room.clear()
        self._something.set()

    async def ready(self) -> None:
        while self._outbox and not self._gone:
            await self._room.wait()

    def finish(self, errors: Errors | None = None) -> None:
        if self._ending is None:
            framing = self._framing
            self._ending = framing.completed if errors is None else framing.failed(errors)
            self._something.set()

    def expel(self, errors: Errors) -> None:
        if self._performing is not None:
            self._performing.cancel()
        self.finish(errors)

    def fall_behind(self) -> None:
        if not self._gone:
            self._tally.slow += 1
            self._leave()

    def interrupt(self) -> None:
        """End the response soon, though the operation is not over."""
        if self._ending is None:
            self._ending = self._framing.interrupted
            self._something.set()

    def _leave(self) -> None:
        self._gone = True
        self._something.set()
        self._room.set()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Run the operation and send what it gives until it, or its client, is gone."""
        listening = asyncio.create_task(self._listen(receive), name="stream's end")
        performing = asyncio.create_task(self._perform(), name="operation")
        self._performing = performing
        self._tally.operations += 1
        try:
            await self._send(send)
        finally:
            self._tally.operations -= 1
            self._gone = True
            performing.cancel()
            listening.cancel()
            await asyncio.gather(performing, listening, return_exceptions=True)

    async def _perform(self) -> None:
        membership = await self._running.run(self._asked, self, self._caller)
        if membership is not None:
            try:
                await asyncio.get_running_loop().create_future()  # until it is cancelled
            finally:
                membership.leave()

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    async def _send(self, send: Send) -> None:
        headers = {
            "content-type": self._framing.media_type,
            "cache-control": "no-store, no-transform",
            "x-content-type-options": "nosniff",
            "x-accel-buffering": "no",  # nginx would collect the responses
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await self._piece(send, self._framing.opening)
        while not self._gone:
            if self._outbox:
                await self._piece(send, self._taken())
            elif self._ending is not None:
                await self._piece(send, self._ending, more=False)
                return
            elif not await self._wait():
                await self._piece(send, self._framing.heartbeat)

    async def _wait(self) -> bool:
        """Return whether there is something to send before a heartbeat is due."""
        self._something.clear()
        try:
            async with asyncio.timeout(self._limits.heartbeat):
                await self._something.wait()
        except TimeoutError:
            return False
        return True

    def _taken(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._outbox and size < _AT_ONCE:
            letter = self._outbox.take()
            parts += (letter.head, letter.body, letter.tail)
            size += len(letter)
            self._tally.sent += 1
        return b"".join(parts)

    async def _piece(self, send: Send, body: bytes, *, more: bool = True) -> None:
        message: Message = {"type": "http.response.body", "body": body, "more_body": more}
        try:
            async with asyncio.timeout(self._limits.stall):
                await send(message)
        except TimeoutError:
            self.fall_behind()
        if not self._outbox:
            self._room.set()
