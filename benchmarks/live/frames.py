"""The little of WebSocket that the load speaks, as bytes."""

from __future__ import annotations

import base64
import os

from benchmarks.live.asked import PROTOCOL

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
"""First bytes of frames that are whole messages."""
_MASKED = 0x80
_NO_MASK = bytes(4)
"""Masks with zeros, which leave the bytes as they are."""


def handshake(host: str, port: int, path: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nupgrade: websocket\r\n"
        f"connection: Upgrade\r\nsec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n"
        f"sec-websocket-protocol: {PROTOCOL}\r\n\r\n"
    ).encode()


def frame(kind: int, payload: bytes) -> bytes:
    """Return a client's frame with fewer than 65,536 bytes."""
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2)
    return bytes((kind, _MASKED | length[0])) + length[1:] + _NO_MASK + payload
