"""Visitors that come, subscribe, leave in every way a client can, and come back with a cursor."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from benchmarks.live.asked import PROTOCOL

_BARS = """subscription Bars($series: SeriesInput!, $after: String) {
  bars(series: $series, after: $after) {
    ... on BarSnapshot { cursor reset candles { time close } }
    ... on BarUpdate { cursor candles { time close isClosed revision } }
    ... on RangeChanged { cursor since until }
    ... on FeedStatus { state }
  }
}"""
_NAMED = '($symbol: String!) { %s(provider: "sim", symbol: $symbol) { %s } }'
_TRADES = f"subscription Trades{_NAMED % ('trades', 'time price amount')}"
_BOOK = "subscription Book" + _NAMED % (
    "orderBook",
    "... on OrderBookSnapshot { sequence } ... on OrderBookDelta { sequence previousSequence }",
)
_TICKER = """subscription Ticker($symbol: String!) {
  ticker(provider: "sim", symbols: [$symbol]) { time last }
}"""
_SYMBOLS = tuple(f"{coin}/USDT" for coin in ("BTC", "ETH", "SOL", "XRP", "ADA"))
_MOST_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Stream:
    """Something to subscribe to."""

    document: str
    variables: str
    """As JSON."""

    def asked(self, after: str | None) -> dict[str, Any]:
        """Return the payload of `subscribe`, to go on *after* a cursor if there is one."""
        given = orjson.loads(self.variables)
        return {
            "query": self.document,
            "variables": given if after is None else given | {"after": after},
        }


FEEDS = 4 * len(_SYMBOLS)
"""Upstreams that all of `streams` need."""


def streams() -> list[Stream]:
    """Return bars of twenty series over five bases, and three streams of each symbol besides."""
    found = []
    for symbol in _SYMBOLS:
        for timeframe in ("1m", "5m", "7m", "1h"):
            series = {"provider": "sim", "symbol": symbol, "timeframe": timeframe}
            found.append(Stream(_BARS, orjson.dumps({"series": series}).decode()))
        named = orjson.dumps({"symbol": symbol}).decode()
        found += [Stream(document, named) for document in (_TRADES, _BOOK, _TICKER)]
    return found


@dataclass(slots=True)
class Swarm:
    """Visitors of the server at *url*, and what happened to them."""

    url: str
    random: random.Random
    visits: int = 0
    messages: int = 0
    resumed: int = 0
    failed: int = 0
    """Connections that did not come about."""
    faults: list[str] = field(default_factory=list)
    """Errors and resets, of which there should be none; the first few."""
    _streams: list[Stream] = field(default_factory=streams)
    _cursors: dict[Stream, str] = field(default_factory=dict)

    async def stay(self, visitors: int, *, seconds: float, visit: float) -> None:
        """Let *visitors* come and go for *seconds*; a visit takes *visit* on the average."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds

        async def come_again() -> None:
            while loop.time() < until:
                try:
                    await self._visit(min(until, loop.time() + self.random.expovariate(1 / visit)))
                except (OSError, TimeoutError, WebSocketException):
                    self.failed += 1
                    await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            for _ in range(visitors):
                group.create_task(come_again())

    @asynccontextmanager
    async def seeing_all(self) -> AsyncIterator[None]:
        """Watch every stream inside the block, so that all feeds are wanted."""
        async with self._connected() as socket:
            await self._greet(socket)
            for number, stream in enumerate(self._streams):
                await _say(socket, id=str(number), type="subscribe", payload=stream.asked(None))
            reading = asyncio.create_task(self._read(socket), name="read")
            try:
                yield
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            await self._take(await self._hear(socket), {}, socket)

    async def _visit(self, until: float) -> None:
        self.visits += 1
        async with self._connected() as socket:
            if self.random.random() < 0.05:
                return  # without a word
            await self._greet(socket)
            running = {}
            for stream in self.random.sample(self._streams, self.random.randint(1, 3)):
                # Old cursors too: many visitors share one that is seldom replaced.
                after = self._cursors.get(stream) if self.random.random() < 0.6 else None
                self.resumed += after is not None
                running[str(uuid4())] = stream
                await _say(
                    socket, id=list(running)[-1], type="subscribe", payload=stream.asked(after)
                )
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    while True:
                        await self._take(await self._hear(socket), running, socket)
            leave = self.random.random()
            if leave < 0.4:
                socket.transport.abort()
            elif leave < 0.7:
                for number in running:
                    await _say(socket, id=number, type="complete")

    async def _take(
        self, message: dict[str, Any], running: dict[str, Stream], socket: ClientConnection
    ) -> None:
        if message["type"] == "ping":
            await _say(socket, type="pong")
        elif message["type"] == "next":
            told = (message["payload"]["data"] or {}).get("bars") or {}
            if told.get("reset"):
                self._blame(f"reset: {told['reset']}")
            stream = running.get(message["id"])
            if stream is not None and "cursor" in told and self._keeps(stream):
                self._cursors[stream] = told["cursor"]

    def _keeps(self, stream: Stream) -> bool:
        """Whether a cursor is kept, to go on from: the first one always, few of the others."""
        return stream not in self._cursors or self.random.random() < 0.05

    async def _hear(self, socket: ClientConnection) -> dict[str, Any]:
        message: dict[str, Any] = orjson.loads(await socket.recv())
        self.messages += 1
        if message["type"] == "error" or (message.get("payload") or {}).get("errors"):
            self._blame(str(message)[:400])
        return message

    def _blame(self, fault: str) -> None:
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(fault)

    async def _greet(self, socket: ClientConnection) -> None:
        await _say(socket, type="connection_init")
        await self._hear(socket)

    def _connected(self) -> connect:
        return connect(
            self.url,
            subprotocols=[Subprotocol(PROTOCOL)],
            compression=None,
            ping_interval=None,
            open_timeout=30,
            close_timeout=2,
            max_size=None,
        )


async def _say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(orjson.dumps(message).decode())
