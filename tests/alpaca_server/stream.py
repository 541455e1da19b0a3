"""Alpaca's streams: an endpoint for each feed of stocks and one for crypto, one client each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgpack
from aiohttp import WSMsgType, web

T = TypeVar("T")
CHANNELS = ("trades", "quotes", "orderbooks", "bars", "updatedBars", "dailyBars")
_NAMES = {"t": "trades", "q": "quotes", "o": "orderbooks", "b": "bars", "u": "updatedBars"}
_SECONDS = 10

Run = Callable[[Coroutine[Any, Any, T]], Awaitable[T]]


@dataclass(slots=True)
class StreamEndpoint:
    """What a test sees of an endpoint, and can make it do. Its own loop is another thread's."""

    path: str
    key: str
    secret: str
    run: Run[Any]
    """Runs a coroutine in the server's loop."""
    symbol_limit: int | None = None
    answers_requests: bool = True
    insufficient: bool = False
    connections: int = 0
    """How many were opened so far, refused ones included."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """What clients asked, without their keys."""
    subscribed: set[tuple[str, str]] = field(default_factory=set)
    books: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Whole order books, sent to who subscribes."""
    _socket: web.WebSocketResponse | None = None
    _request: web.Request | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def when(self, true: Callable[[StreamEndpoint], bool]) -> None:
        """Return as soon as *true* holds of this endpoint."""

        async def wait() -> None:
            async with asyncio.timeout(_SECONDS), self._changed:
                await self._changed.wait_for(lambda: true(self))

        await self.run(wait())

    async def push(self, *messages: dict[str, Any]) -> None:
        """Send *messages* at once to who is connected."""
        await self.run(self._send(list(messages)))

    async def push_subscribed(self, *messages: dict[str, Any]) -> None:
        """Send those of *messages* that are subscribed to."""
        wanted = [each for each in messages if (_NAMES[each["T"]], each["S"]) in self.subscribed]
        if wanted:
            await self.push(*wanted)

    async def push_bytes(self, packed: bytes) -> None:
        """Send what need not be a message."""
        assert self._socket is not None
        await self.run(self._socket.send_bytes(packed))

    async def drop(self, *, half_frame: bool = False) -> None:
        """Cut the connection without a word, or in the middle of one."""

        async def cut() -> None:
            assert self._request is not None
            transport = self._request.transport
            assert transport is not None
            if half_frame:
                # A binary frame of 100 bytes, of which 3 come.
                transport.write(bytes((0x82, 100)) + b"abc")
            transport.abort()

        await self.run(cut())

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        await _pack(socket, [{"T": "success", "msg": "connected"}])
        first = self._socket is None
        if not await self._authenticated(socket, first=first):
            await socket.close()
            return socket
        self._socket, self._request = socket, request
        await self._tell()
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    await self._asked(socket, msgpack.unpackb(message.data))
        finally:
            self._socket = self._request = None
            self.subscribed.clear()
            await self._tell()
        return socket

    async def _authenticated(self, socket: web.WebSocketResponse, *, first: bool) -> bool:
        shown = msgpack.unpackb(await socket.receive_bytes())
        refusal = None
        if shown != {"action": "auth", "key": self.key, "secret": self.secret}:
            refusal = {"T": "error", "code": 402, "msg": "auth failed"}
        elif self.insufficient:
            refusal = {"T": "error", "code": 409, "msg": "insufficient subscription"}
        elif not first:
            refusal = {"T": "error", "code": 406, "msg": "connection limit exceeded"}
        await _pack(socket, [refusal or {"T": "success", "msg": "authenticated"}])
        return refusal is None

    async def _asked(self, socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        self.requests.append(request)
        named = {(channel, symbol) for channel in CHANNELS for symbol in request.get(channel, ())}
        if self.answers_requests:
            await self._answer(socket, request["action"], named)
        await self._tell()

    async def _answer(
        self, socket: web.WebSocketResponse, action: str, named: set[tuple[str, str]]
    ) -> None:
        if action == "subscribe":
            if self.symbol_limit is not None and len(self.subscribed | named) > self.symbol_limit:
                refusal = {"T": "error", "code": 405, "msg": "symbol limit exceeded"}
                return await _pack(socket, [refusal])
            fresh = named - self.subscribed
            self.subscribed |= named
        else:
            fresh = set()
            self.subscribed -= named
        listed = {
            channel: sorted(symbol for c, symbol in self.subscribed if c == channel)
            for channel in CHANNELS
        }
        await _pack(socket, [{"T": "subscription", **listed}])
        for channel, symbol in sorted(fresh):
            if channel == "orderbooks" and symbol in self.books:
                await _pack(socket, [self.books[symbol]])
        return None

    async def _send(self, messages: list[dict[str, Any]]) -> None:
        assert self._socket is not None
        await _pack(self._socket, messages)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _pack(socket: web.WebSocketResponse, messages: list[dict[str, Any]]) -> None:
    await socket.send_bytes(msgpack.packb(messages))
