"""The load: closed-loop clients on kept-alive connections that send ready bytes and count answers.

It never decodes an answer, so that the server is what is measured; it looks at the status, the
length and the first bytes, which tell an answer from an error.
"""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

HOST = "127.0.0.1"
_BUFFER = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DATA = b'{"data":'
_PATIENCE = 30.0
"""Seconds that one measurement may take beyond its time."""


class LoadFailed(Exception):
    """An answer that is none, or a connection that broke."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask: a stream of request bodies; answers have about *length* bytes."""

    port: int
    path: str
    bodies: Iterator[bytes]
    length: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. Latencies in seconds, ascending; *busy* is the load's share of its core."""

    seconds: float
    latencies: list[float]
    busy: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Nearest rank: of fewer than 100 requests the 99th percentile is the slowest."""
        count = len(self.latencies)
        return self.latencies[min(count - 1, int(share * count))]


def request_of(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\naccept: application/json\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def measure(target: Target, *, connections: int, seconds: float, at_least: int = 1) -> Sample:
    """Ask until *seconds* are over and *at_least* requests were answered.

    Each connection asks once before the clock starts. Raises `LoadFailed`.
    """
    loop = asyncio.get_running_loop()
    round_ = _Round(target, at_least, loop.create_future())
    clients = []
    try:
        for _ in range(connections):
            _, client = await loop.create_connection(lambda: _Client(round_), HOST, target.port)
            clients.append(client)
        await asyncio.wait_for(
            asyncio.gather(*(client.ask_once() for client in clients)), _PATIENCE
        )
        gc.collect()
        gc.disable()
        cpu, started = time.process_time(), time.perf_counter()
        round_.begin(started + seconds, connections)
        for client in clients:
            client.ask()
        ended = await asyncio.wait_for(round_.over, seconds + _PATIENCE)
        busy = (time.process_time() - cpu) / (ended - started)
    finally:
        gc.enable()
        for client in clients:
            client.close()
    return Sample(ended - started, sorted(round_.latencies), busy)


class _Round:
    """What the clients of one measurement share."""

    def __init__(self, target: Target, at_least: int, over: asyncio.Future[float]) -> None:
        self.path = target.path
        self.bodies = target.bodies
        self.length = target.length
        # Numbers of a live bar change from one answer to the next.
        self.tolerance = max(96, target.length // 50)
        self.latencies: list[float] = []
        self.over = over
        self._at_least = at_least
        self._deadline = 0.0
        self._running = 0
        self._body = b""
        self._request = b""

    def begin(self, deadline: float, running: int) -> None:
        self._deadline, self._running = deadline, running
        self.latencies.clear()

    def next_request(self) -> bytes:
        body = next(self.bodies)
        if body is not self._body:
            self._body, self._request = body, request_of(self.path, body)
        return self._request

    def goes_on(self, now: float) -> bool:
        if now < self._deadline or len(self.latencies) < self._at_least:
            return True
        self._running -= 1
        if not self._running and not self.over.done():
            self.over.set_result(now)
        return False

    def fail(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_exception(LoadFailed(reason))


class _Client(asyncio.BufferedProtocol):
    """One connection, with one request under way at most."""

    def __init__(self, round_: _Round) -> None:
        self._round = round_
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._left = -1
        """Bytes of the body still to come; -1: the head is not complete."""
        self._started = 0.0
        self._first: asyncio.Future[None] | None = None
        self._fresh = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._fail(f"the server closed a connection: {exc}")

    def ask(self) -> None:
        self._filled, self._left, self._fresh = 0, -1, True
        request = self._round.next_request()
        self._started = time.perf_counter()
        self._transport.write(request)

    def ask_once(self) -> asyncio.Future[None]:
        self._first = asyncio.get_running_loop().create_future()
        self.ask()
        return self._first

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._left < 0:
            nbytes = self._read_head()
            if nbytes < 0:
                return
        if self._fresh and self._filled >= len(_DATA):
            if not self._buffer.startswith(_DATA):
                self._fail(f"not an answer: {bytes(self._buffer[:300])!r}")
                return
            self._fresh = False
        self._left -= nbytes
        if self._left == 0:
            self._answered()
        elif not self._fresh:
            self._filled = 0

    def _read_head(self) -> int:
        """Move the body's beginning to the front; return how much of it came, -1 if too little."""
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            return -1
        declared = _LENGTH.search(self._buffer, 0, end)
        if not self._buffer.startswith(b"HTTP/1.1 200") or declared is None:
            self._fail(f"not an answer: {bytes(self._buffer[: end + 200])!r}")
            return -1
        self._left = int(declared[1])
        if abs(self._left - self._round.length) > self._round.tolerance:
            self._fail(f"{self._left} bytes, not about {self._round.length}")
            return -1
        came = self._filled - end - 4
        self._buffer[:came] = self._buffer[end + 4 : self._filled]
        self._filled = came
        return came

    def _answered(self) -> None:
        now = time.perf_counter()
        if self._first is not None:
            self._first.set_result(None)
            self._first = None
            return
        self._round.latencies.append(now - self._started)
        if self._round.goes_on(now):
            self.ask()

    def _fail(self, reason: str) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_exception(LoadFailed(reason))
        else:
            self._round.fail(reason)
        self.close()


async def ask(port: int, path: str, body: bytes) -> bytes:
    """Return the body of one answer. Raises `LoadFailed` for any status but 200."""
    return await _exchange(port, request_of(path, body))


async def get(port: int, path: str) -> bytes:
    """Return what a plain GET answers. Raises `LoadFailed`."""
    return await _exchange(port, f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())


async def _exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 24)
    try:
        writer.write(request)
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            declared = _LENGTH.search(head)
            body = await reader.readexactly(int(declared[1]) if declared else 0)
    finally:
        writer.close()
    if not head.startswith(b"HTTP/1.1 200") or declared is None:
        raise LoadFailed(f"{head[:200]!r} {body[:400]!r}")
    return body
