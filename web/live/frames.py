"""uvicorn's WebSocket protocol with a way past ASGI for messages that are ready to be sent.

ASGI costs as much per message as all the rest, and never says whether a client keeps up but by
making one wait for it. Here a frame is written straight to the transport, and a full buffer is
told at once.
"""

from __future__ import annotations

from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from web.live.messages import NOT_UTF8, TOO_LARGE, Close
from web.live.writer import FRAMES

_FINAL_TEXT = 0x81
_MOST_FRAGMENTS = 1_000
"""Frames of one message: empty ones would count for nothing against its size."""


class FramesProtocol(WebSocketsSansIOProtocol):
    """Offers itself as `web.live.writer.Writer` in the scope's extensions.

    It never waits for ever for a client that does not read: what a closed connection has not taken
    `grace` seconds after the close is dropped.
    """

    grace = 2.0

    when_ready: Callable[[], None]

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.when_ready = _nobody

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # its task has not begun
            extensions = cast("dict[str, object]", self.scope["extensions"])
            extensions[FRAMES] = self

    def write(self, head: bytes, body: bytes, tail: bytes) -> bool:
        if not self.writable.is_set():
            return False
        if not (self.close_sent or self.disconnected or self.transport.is_closing()):
            size = len(head) + len(body) + len(tail)
            self.transport.write(b"".join((_frame_header(size), head, body, tail)))
        return True

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    async def close(self, close: Close) -> None:
        self.when_ready = _nobody
        self._end(close)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.when_ready()

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        if len(self.frames) >= _MOST_FRAGMENTS:
            self.frames = []
            self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_LARGE.code})
            self._end(TOO_LARGE)
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        pongs = self.conn.data_to_send()
        # Whoever pings and does not read would have us keep a pong for each.
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            self.transport.write(b"".join(pongs))

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.frames = []
            self.queue.put_nowait({"type": "websocket.disconnect", "code": NOT_UTF8.code})
            self._end(NOT_UTF8)
        else:
            super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # Refused is answered: uvicorn would log that the application forgot to.
            self.handshake_complete = True

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._limit_grace()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._limit_grace()

    def shutdown(self) -> None:
        super().shutdown()
        self._limit_grace()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.when_ready = _nobody

    def _end(self, close: Close) -> None:
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        try:
            self.conn.send_close(close.code, close.reason)
        except InvalidState:
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:  # the client's answer is waited for
            self.read_paused = False
            self.transport.resume_reading()
        self._limit_grace()

    def _limit_grace(self) -> None:
        """Drop the connection if it is not over when the grace is."""
        if self.disconnected:
            return
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(self.grace, self.transport.abort)


def _frame_header(size: int) -> bytes:
    """Return the header of a text frame as servers send it: final and without a mask."""
    if size < 126:
        return bytes((_FINAL_TEXT, size))
    if size < 65_536:
        return bytes((_FINAL_TEXT, 126)) + size.to_bytes(2, "big")
    return bytes((_FINAL_TEXT, 127)) + size.to_bytes(8, "big")


def _is_utf8(pieces: list[bytes]) -> bool:
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError:
        return False
    return True


def _nobody() -> None:
    """Do nothing: nobody listens."""
