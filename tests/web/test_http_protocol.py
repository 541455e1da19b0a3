"""Requests that never end, on connections of a real server that has little patience."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from tests.web.live.stage import PATIENCE, until
from web.http_protocol import MAX_HEAD, MAX_HEADERS, BoundedHttpProtocol

POST = b"POST / HTTP/1.1\r\nhost: here\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
CLOSE = b"connection: close\r\n"


class Impatient(BoundedHttpProtocol):
    patience = 0.1


class Patient(BoundedHttpProtocol):
    patience = 2.0


async def told(scope: Any, receive: Any, send: Any) -> None:
    """Answer with how long the body was."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d bytes" % length})


class Connection:
    """A client that writes bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Send *pieces*, as far as they are taken."""
        with suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Return what comes until the server hangs up."""
        received = b""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                while piece := await self.reader.read(65_536):
                    received += piece
        return received


@pytest.fixture
async def connection(request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    protocol = getattr(request, "param", Impatient)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(told, http=protocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server._serve([listener]))
        await until(lambda: server.started or running.done())
        client = Connection(*await asyncio.open_connection(*listener.getsockname()))
        try:
            yield client
        finally:
            client.writer.close()
            server.should_exit = True
            await running


in_patience = pytest.mark.parametrize("connection", [Patient], indirect=True)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"POST / HT",
        POST,
        POST + b"x-more: and mo",
    ],
)
async def test_what_begins_and_does_not_go_on_is_hung_up_on(
    connection: Connection, sent: bytes
) -> None:
    await connection.send(sent)

    assert await connection.rest() == b""


@pytest.mark.parametrize(
    ("begun", "repeated"),
    [
        (POST + b"x-long: ", b"a" * 4_096),
        (POST, b"x: a\r\n" * 1_000),
        (b"GET /", b"a" * 4_096),
        (CHUNKED + b"0\r\n", b"x: a\r\n" * 1_000),
        (CHUNKED + b"0\r\nx-long: ", b"a" * 4_096),
        (CHUNKED + b"3;long=", b"a" * 4_096),
    ],
    ids=["a header", "headers", "a URL", "trailers", "a trailer", "a chunk's extension"],
)
async def test_what_is_no_body_is_not_taken_without_end(
    connection: Connection, begun: bytes, repeated: bytes
) -> None:
    endless = [repeated] * (16 * MAX_HEAD // len(repeated))

    await connection.send(begun, *endless)
    received = await connection.rest()

    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")  # the rest may come too late


@in_patience
@pytest.mark.parametrize(("more", "status"), [(0, b"200"), (1, b"400")])
async def test_a_request_has_a_bounded_number_of_headers(
    connection: Connection, more: int, status: bytes
) -> None:
    headers = b"x: a\r\n" * (MAX_HEADERS - 2 + more)

    await connection.send(POST + CLOSE + headers + b"\r\n")

    assert (await connection.rest()).startswith(b"HTTP/1.1 " + status)


@in_patience
async def test_a_body_may_take_longer_and_be_larger(connection: Connection) -> None:
    size = 4 * MAX_HEAD

    await connection.send(POST + CLOSE + b"content-length: %d\r\n\r\n" % size)
    await asyncio.sleep(1.5 * Patient.patience)
    await connection.send(b"x" * size)

    assert b"%d bytes" % size in await connection.rest()


@in_patience
async def test_a_connection_that_is_kept_takes_one_request_after_the_other(
    connection: Connection,
) -> None:
    for size in (3, 2 * MAX_HEAD, 0):
        await connection.send(POST + b"content-length: %d\r\n\r\n" % size + b"x" * size)

        assert await connection.until(b" bytes") != b""
        await connection.until(b"\r\n")
