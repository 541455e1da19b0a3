"""The load: sockets that watch one series, each with an operation id of its own as clients have.

One core has to take 100,000 messages a second, so they speak WebSocket and `graphql-transport-ws`
on the bare transport and do not parse what they get: a bar's volume is when it was sent, and is
found in the bytes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast
from uuid import uuid4

import orjson

from benchmarks.live.frames import CLOSE, PING, PONG, TEXT, frame, handshake

HOST = "127.0.0.1"
_VOLUME = b'"volume":'
_AT_ONCE = 32
"""Handshakes under way: a server's queue of those not accepted yet is short."""
_PATIENCE = 60.0


class LoadFailed(Exception):
    """A socket that was refused or closed, or that does not get what it asked for."""


class Audience:
    """All sockets of one measurement, and what they saw of it."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        """Seconds from event to socket, of events sent since `begin`."""
        self.since = 0.0
        self.awaited = 0
        """Sockets that have not seen an event since `begin`."""
        self.late = 0
        """Messages of events that were sent before that."""
        self.failure: str | None = None
        self._sockets: list[Viewer] = []

    def __len__(self) -> int:
        return len(self._sockets)

    @property
    def heard(self) -> int:
        """How many messages with a bar came since `begin`."""
        return len(self.latencies) + self.late

    async def grow(self, size: int, port: int, path: str, subscribe: dict[str, Any]) -> None:
        """Connect until there are *size* sockets that have asked. Raises `LoadFailed`."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def connect() -> None:
            async with free:
                self._sockets.append(await _connected(self, port, path, subscribe))

        async with asyncio.timeout(_PATIENCE + size / 100):
            await asyncio.gather(*(connect() for _ in range(size - len(self._sockets))))

    def begin(self, now: float) -> None:
        """Count only what is sent from *now* on, by the monotonic clock."""
        self.latencies.clear()
        self.late = 0
        self.since = now
        self.awaited = len(self._sockets)
        for socket in self._sockets:
            socket.seen = False

    def check(self) -> None:
        """Raises `LoadFailed` if a socket failed."""
        if self.failure is not None:
            raise LoadFailed(self.failure)

    def message(self) -> bytes:
        """Return the first message with a bar that one of the sockets got since `begin`."""
        return self._sockets[0].message

    async def leave(self) -> None:
        """Close all sockets without a word, as clients that are gone do."""
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.abort()
        await asyncio.gather(*(socket.gone.wait() for socket in sockets))


class Viewer(asyncio.Protocol):
    """One socket."""

    __slots__ = (
        "_answers",
        "_audience",
        "_leaving",
        "_rest",
        "_transport",
        "gone",
        "message",
        "seen",
    )

    def __init__(self, audience: Audience) -> None:
        self.seen = False
        self.message = b""
        self.gone = asyncio.Event()
        self._audience = audience
        self._answers: asyncio.Queue[bytes] | None = asyncio.Queue()
        """What comes before the first bar; None once nobody waits for it."""
        self._rest = b""
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._leaving:
            self._fail(f"the server closed a socket: {exc}")
        self.gone.set()

    def write(self, message: bytes) -> None:
        self._transport.write(message)

    def say(self, message: dict[str, Any]) -> None:
        self._transport.write(frame(TEXT, orjson.dumps(message)))

    async def answer(self) -> bytes:
        """Return the next thing the server says. Raises `LoadFailed`."""
        assert self._answers is not None
        answer = await self._answers.get()
        if not answer:
            raise LoadFailed(self._audience.failure)
        return answer

    def listen(self) -> None:
        """Wait for bars and nothing else."""
        self._answers = None

    def abort(self) -> None:
        self._leaving = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if self._rest:
            data = self._rest + data
        if self._answers is not None and data.startswith(b"HTTP/"):
            head, over, data = data.partition(b"\r\n\r\n")
            if not over:
                self._rest = head
                return
            self._answers.put_nowait(head)
        audience = self._audience
        at, end = 0, len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[start : start + width]), start + width
            stop = start + size
            if stop > end:
                break
            found = data.find(_VOLUME, start, stop)
            if found < 0:
                self._take(data[at], data[start:stop])
            else:
                found += 9
                sent = float(data[found : data.index(b",", found)])
                if sent >= audience.since:
                    audience.latencies.append(now - sent)
                    if not self.seen:
                        self.seen = True
                        self.message = data[start:stop]
                        audience.awaited -= 1
                else:
                    audience.late += 1
            at = stop
        self._rest = data[at:]

    def _take(self, kind: int, payload: bytes) -> None:
        """Take a message without a bar."""
        if kind == PING:
            self.write(frame(PONG, payload))
        elif kind == CLOSE:
            code, reason = int.from_bytes(payload[:2]), payload[2:].decode()
            self._fail(f"the server closed a socket with {code} {reason}")
        elif payload == b'{"type":"ping"}':
            self.say({"type": "pong"})
        elif b'"errors"' in payload or b'"type":"error"' in payload:
            self._fail(f"not what was asked for: {payload[:400]!r}")
        elif self._answers is not None:
            self._answers.put_nowait(payload)

    def _fail(self, reason: str) -> None:
        self._audience.failure = self._audience.failure or reason
        if self._answers is not None:
            self._answers.put_nowait(b"")


async def _connected(audience: Audience, port: int, path: str, subscribe: dict[str, Any]) -> Viewer:
    """Return a socket on which the operation *subscribe* was asked for."""
    loop = asyncio.get_running_loop()
    _, viewer = await loop.create_connection(lambda: Viewer(audience), HOST, port)
    viewer.write(handshake(HOST, port, path))
    if not (answer := await viewer.answer()).startswith(b"HTTP/1.1 101"):
        raise LoadFailed(f"no WebSocket at {path}: {answer[:200]!r}")
    viewer.say({"type": "connection_init"})
    if b"connection_ack" not in (answer := await viewer.answer()):
        raise LoadFailed(f"not acknowledged: {answer[:200]!r}")
    viewer.say({"id": str(uuid4()), "type": "subscribe", "payload": subscribe})
    viewer.listen()
    return viewer
