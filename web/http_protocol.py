"""uvicorn's HTTP protocol with bounds for all of a request that is no body.

As it comes it collects headers and trailers of any length, and waits for ever for those of a
request that has begun: whoever sends them without an end takes memory, or connections, until none
is left.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_HEAD = 64 * 1024
"""Bytes in a row that are no body. What arrived with the one too many is read as well."""
MAX_HEADERS = 100


class TooManyHeaders(Exception):
    """More headers than a request may have; the parser passes it on as a malformed request."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends connections that send more than `MAX_HEAD`, or wait longer than `patience` with a head.

    How long a body is, and how long it takes, is for the application to bound.
    """

    patience = 10.0
    """Seconds from a connection's beginning, or a head's, to the end of that head."""

    _unread = 0
    """Bytes that arrived since the parser came to the end of something."""
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._advanced()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if not self._unread or self.transport.is_closing():
            return
        if self._unread > MAX_HEAD:
            self.send_400_response(f"More than {MAX_HEAD} bytes are no body.")
        elif self._timer is None:
            self._expect()

    def on_headers_complete(self) -> None:
        self._advanced()
        if len(self.headers) > MAX_HEADERS:
            raise TooManyHeaders
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._advanced()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._advanced()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        socket = self.transport.get_protocol()
        # A request that its parser refuses before there is a handshake is answered by nobody.
        if isinstance(socket, WebSocketsSansIOProtocol) and not socket.handshake_initiated:
            self.send_400_response("Invalid WebSocket request received.")

    def _expect(self) -> None:
        self._timer = self.loop.call_later(self.patience, self.timeout_keep_alive_handler)

    def _advanced(self) -> None:
        self._unread = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
