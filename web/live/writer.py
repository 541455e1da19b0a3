"""How a socket's messages leave: written as frames where the server offers it, else by ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from starlette.types import Scope, Send

from web.live.messages import Close

FRAMES = "bargraph.frames"
"""The extension of an ASGI scope under which a server offers its `Writer`."""


class Writer(Protocol):
    """Takes messages without ever making its caller wait."""

    when_ready: Callable[[], None]
    """Called when it takes messages again, after it refused one."""

    def write(self, head: bytes, body: bytes, tail: bytes) -> bool:
        """Send one text message in three parts, or return False: it takes no more for now."""

    @property
    def unsent(self) -> int:
        """Bytes it has taken and not yet given to the system: less of them is progress."""

    async def close(self, close: Close) -> None:
        """Say that this is the end, though the client may not read it."""


def writer_of(scope: Scope, send: Send, *, patience: float) -> Writer:
    """Return the writer that the server offers, else one over *send* with *patience* to close."""
    offered = scope.get("extensions", {}).get(FRAMES)
    return cast("Writer", offered) if offered is not None else AsgiWriter(send, patience=patience)


class AsgiWriter:
    """Sends one message after the other: ASGI tells of a full buffer only by making one wait."""

    def __init__(self, send: Send, *, patience: float) -> None:
        self.when_ready: Callable[[], None] = _nobody
        self._send = send
        self._patience = patience
        self._sending: asyncio.Task[None] | None = None
        self._unsent = 0

    @property
    def unsent(self) -> int:
        return self._unsent

    def write(self, head: bytes, body: bytes, tail: bytes) -> bool:
        if self._sending is not None:
            return False
        text = b"".join((head, body, tail))
        self._unsent = len(text)
        self._sending = asyncio.create_task(self._deliver(text.decode()))
        return True

    async def _deliver(self, text: str) -> None:
        # A connection that is gone shows where messages are received.
        with suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.send", "text": text})
        self._sending, self._unsent = None, 0
        self.when_ready()

    async def close(self, close: Close) -> None:
        self.when_ready = _nobody
        with suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(self._patience):
                if self._sending is not None:
                    await self._sending
                await self._send(
                    {"type": "websocket.close", "code": close.code, "reason": close.reason}
                )


def _nobody() -> None:
    """Do nothing: nobody listens."""
