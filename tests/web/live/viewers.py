"""Viewers of live bars as clients write them: they keep the best of each bar, and resume."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

PATIENCE = 60.0
"""Seconds after which what a test waits for will not come."""
DOCUMENT = """
subscription Watch($series: SeriesInput!, $after: String) {
  bars(series: $series, after: $after) {
    __typename
    ... on BarSnapshot { cursor reset candles { ...bar } }
    ... on BarUpdate { cursor candles { ...bar } }
    ... on RangeChanged { cursor since until }
    ... on FeedStatus { state message }
  }
}
fragment bar on Candle { time open high low close volume isClosed revision updatedAt source }
"""
_ROW = ("open", "high", "low", "close", "volume", "revision")


def rank(bar: dict[str, Any]) -> tuple[bool, bool, int, int]:
    """Return what decides between two bars of one time (promise 8 of the API)."""
    return (bar["isClosed"], bar["source"] != "NATIVE", bar["revision"], bar["updatedAt"])


@dataclass
class Viewer:
    """Watches one series and reconnects with its newest cursor whenever its socket closes."""

    url: Callable[[], str]
    series: dict[str, Any]
    cursor: str | None = None
    bars: dict[int, dict[str, Any]] = field(default_factory=dict)
    repeated: list[dict[str, Any]] = field(default_factory=list)
    """Closed bars that updates of one connection told twice although nothing was new about them.

    What the first event tells, a snapshot or what followed a cursor, may be told once more.
    """
    updated: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    begun: bool = False
    resets: list[str] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    connections: int = 0
    errors: list[Any] = field(default_factory=list)
    socket: ClientConnection | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with suppress(WebSocketException, InvalidHandshake, OSError, EOFError):
                await self._watch()
            await asyncio.sleep(0.05)  # as any client does before it tries again

    @property
    def closed(self) -> dict[int, tuple[Any, ...]]:
        """The closed bars, by time."""
        return {
            time: tuple(bar[name] for name in _ROW)
            for time, bar in sorted(self.bars.items())
            if bar["isClosed"]
        }

    @property
    def newest_closed(self) -> int:
        return max((time for time, bar in self.bars.items() if bar["isClosed"]), default=0)

    async def _watch(self) -> None:
        variables = {"series": self.series, "after": self.cursor}
        async with connect(
            self.url(), subprotocols=["graphql-transport-ws"], compression=None, max_size=None
        ) as socket:
            self.socket = socket
            self.connections += 1
            self.updated.clear()
            self.begun = False
            await socket.send(json.dumps({"type": "connection_init"}))
            payload = {"query": DOCUMENT, "variables": variables}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "ping":
                    await socket.send('{"type":"pong"}')
                elif message["type"] == "next":
                    self._take(message["payload"])
                elif message["type"] == "error":
                    self.errors.append(message["payload"])

    def _take(self, payload: dict[str, Any]) -> None:
        if payload.get("errors"):
            self.errors.append(payload["errors"])
            return
        event = payload["data"]["bars"]
        self.cursor = event.get("cursor", self.cursor)
        match event["__typename"]:
            case "BarSnapshot":
                if event["reset"]:
                    self.resets.append(event["reset"])
                self._show(event["candles"], new=False)
            case "BarUpdate":
                self._show(event["candles"], new=True)
            case "RangeChanged":
                self.ranges.append((event["since"], event["until"]))
            case "FeedStatus":
                self.states.append(event["state"])

    def _show(self, bars: list[dict[str, Any]], *, new: bool) -> None:
        new, self.begun = new and self.begun, True
        for bar in bars:
            held = self.bars.get(bar["time"])
            if new and bar["isClosed"]:
                if self.updated.get(bar["time"]) == rank(bar):
                    self.repeated.append(bar)
                self.updated[bar["time"]] = rank(bar)
            if held is None or rank(bar) >= rank(held):
                self.bars[bar["time"]] = bar


async def eventually(condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.02)
