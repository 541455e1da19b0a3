"""At most one connection to each of Alpaca's streams, for all listeners of this process.

Alpaca allows an account one connection to a stream, and refuses the second.
"""

from __future__ import annotations

import asyncio
import importlib
from functools import partial
from typing import Any

from market.errors import ProviderUnavailable
from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.line import Line, Socket
from plugins.alpaca.seat import Seat


class Switchboard:
    """Gives listeners a place at the line of their feed: that of stocks, or None for crypto."""

    def __init__(self, provider: str, keys: Keys, addresses: Addresses, *, seconds: float) -> None:
        self._provider = provider
        self._keys = keys
        self._addresses = addresses
        self._seconds = seconds
        self._lines: dict[str | None, Line] = {}
        self._closed = False

    async def join(self, feed: str | None, seat: Seat[Any]) -> Line:
        """Return the line where *seat* waits to be confirmed. Raises `ProviderUnavailable`."""
        while True:
            if self._closed:
                raise ProviderUnavailable(self._provider, "it was closed")
            line = self._lines.get(feed)
            if line is not None and not line.ending:
                break
            if line is not None:
                # Its connection has to be gone before Alpaca takes another.
                await asyncio.wait([line.task])
            if self._lines.get(feed) is line:
                self._lines[feed] = Line(
                    self._provider, partial(self._socket, feed), seconds=self._seconds
                )
        line.join(seat)
        return line

    async def aclose(self) -> None:
        """End every line; who listens is told."""
        self._closed = True
        await asyncio.gather(*(line.aclose() for line in self._lines.values()))

    async def _socket(self, feed: str | None) -> Socket:
        # alpaca-py brings pandas: it takes a while.
        module = await asyncio.to_thread(importlib.import_module, "plugins.alpaca.wire")
        made: Socket = module.AlpacaSocket(feed, self._keys, self._addresses)
        return made
