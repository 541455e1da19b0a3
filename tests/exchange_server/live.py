"""What happens at the local exchange from now on, pushed to every socket that subscribed to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from aiohttp import WSMsgType, web

T = TypeVar("T")
Levels = Sequence[tuple[float, float]]
Row = tuple[int, float, float, float, float, float]
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Channel:
    """What a socket subscribed to: *detail* is a bar's timeframe or a book's depth."""

    kind: str
    symbol: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Dealt:
    """One trade."""

    id: int | str
    time: int
    price: float
    amount: float


@dataclass(slots=True)
class Book:
    """All levels, and the number of the last change of one level."""

    bids: dict[float, float] = field(default_factory=dict)
    asks: dict[float, float] = field(default_factory=dict)
    sequence: int = 1000

    def change(self, bids: Levels, asks: Levels) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, amount in levels:
                self.sequence += 1
                if amount:
                    side[price] = amount
                else:
                    side.pop(price, None)

    def top(self, depth: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Return the best levels of both sides, bids first."""
        return sorted(self.bids.items(), reverse=True)[:depth], sorted(self.asks.items())[:depth]


class Socket(Protocol):
    """One connection, in the language of its exchange."""

    exchange: str
    ws: web.WebSocketResponse
    request: web.Request
    channels: dict[Channel, Any]

    async def hear(self, message: Message) -> None:
        """Answer what the client said."""
        ...

    def bar(self, channel: Channel, row: Row, *, final: bool) -> Message: ...

    def trades(self, channel: Channel, dealt: Sequence[Dealt]) -> list[Message]: ...

    def ticker(self, channel: Channel, prices: Message) -> Message: ...

    def book(self, channel: Channel, bids: Levels, asks: Levels, *, first: int) -> Message | None:
        """Return what tells of changes, the first of which had the number *first*."""
        ...


class Live:
    """The sockets of all exchanges and what they are told. Its methods may be called from any loop.

    Faults last until changed, but for `wrong_checksums`, which counts down.
    """

    def __init__(self) -> None:
        self.silent = False
        """Nothing is sent any more, not even an answer to a ping."""
        self.halves_first_bars = False
        """The first bar after a subscription counts only what was traded since."""
        self.wrong_checksums = 0
        self.refuses: set[str] = set()
        """Symbols that cannot be subscribed to."""
        self.books: dict[str, Book] = {}
        self.heard: list[tuple[str, Message]] = []
        """What clients said, by exchange."""
        self.opened = 0
        """How many sockets there have ever been."""
        self.sockets: set[Socket] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Condition()
        self._snapshots = asyncio.Event()
        self._snapshots.set()

    async def serve(self, socket: Socket) -> None:
        """Read *socket* until its end. Runs on the server's loop."""
        self.sockets.add(socket)
        self.opened += 1
        await self.note()
        try:
            async for message in socket.ws:
                if message.type is WSMsgType.PING and not self.silent:
                    await socket.ws.pong(message.data)
                if message.type is WSMsgType.TEXT:
                    said = json.loads(message.data)
                    self.heard.append((socket.exchange, said))
                    await socket.hear(said)
                    await self.note()
        finally:
            self.sockets.discard(socket)
            await self.note()

    async def send(self, socket: Socket, message: Message | None) -> None:
        if message is not None and not self.silent and not socket.ws.closed:
            await socket.ws.send_str(json.dumps(message, separators=(",", ":")))

    async def note(self) -> None:
        """Wake up whoever waits `until` something is so."""
        async with self._changed:
            self._changed.notify_all()

    async def snapshot(self, symbol: str, depth: int) -> tuple[int, Levels, Levels]:
        """Return a book as it is now, once snapshots are let through."""
        book = self.books.setdefault(symbol, Book())
        now = (book.sequence, *book.top(depth))
        await self.note()
        await self._snapshots.wait()
        return now

    # What tests call

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds* is true of what clients have done."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(holds)

        await asyncio.wait_for(self._on_loop(wait()), 20)

    async def subscribed(self, kind: str, symbol: str, *, times: int = 1) -> None:
        """Wait until as many sockets have subscribed as *times* says."""
        await self.until(lambda: len(self._listening(kind, symbol)) == times)

    async def trade(self, symbol: str, *dealt: Dealt) -> None:
        """Tell of trades, in one message where the exchange does so."""
        await self._push("trades", symbol, lambda socket, channel: socket.trades(channel, dealt))

    async def bar(self, symbol: str, frame: str, row: Row, *, final: bool = False) -> None:
        def told(socket: Socket, channel: Channel) -> list[Message]:
            if channel.detail != frame:
                return []
            first = socket.channels[channel] is None
            socket.channels[channel] = row
            half = first and self.halves_first_bars
            return [socket.bar(channel, _halved(row) if half else row, final=final)]

        await self._push("bars", symbol, told)

    async def ticker(self, symbol: str, **prices: float | None) -> None:
        await self._push("ticker", symbol, lambda socket, channel: [socket.ticker(channel, prices)])

    async def change(
        self, symbol: str, *, bids: Levels = (), asks: Levels = (), untold: bool = False
    ) -> None:
        """Change levels of a book; *untold* changes are the hole that the clients have to see."""

        async def apply() -> int:
            book = self.books.setdefault(symbol, Book())
            first = book.sequence + 1
            book.change(bids, asks)
            return first

        first = await self._on_loop(apply())
        if not untold:
            await self._push(
                "book",
                symbol,
                lambda socket, channel: [socket.book(channel, bids, asks, first=first)],
            )

    async def say(self, text: str) -> None:
        """Send *text* to every socket."""

        async def speak() -> None:
            for socket in tuple(self.sockets):
                await socket.ws.send_str(text)

        await self._on_loop(speak())

    async def drop(self) -> None:
        """Cut every connection without a goodbye."""

        async def cut() -> None:
            for socket in tuple(self.sockets):
                if socket.request.transport is not None:
                    socket.request.transport.abort()

        await self._on_loop(cut())

    async def close(self, code: int) -> None:
        """Close every connection with a goodbye."""

        async def leave() -> None:
            for socket in tuple(self.sockets):
                await socket.ws.close(code=code)

        await self._on_loop(leave())

    async def hold_snapshots(self) -> None:
        async def hold() -> None:
            self._snapshots.clear()

        await self._on_loop(hold())

    async def release_snapshots(self) -> None:
        async def release() -> None:
            self._snapshots.set()

        await self._on_loop(release())

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say on which loop the sockets are served."""
        self._loop = loop

    def _listening(self, kind: str, symbol: str) -> list[tuple[Socket, Channel]]:
        return [
            (socket, channel)
            for socket in tuple(self.sockets)
            for channel in tuple(socket.channels)
            if (channel.kind, channel.symbol) == (kind, symbol)
        ]

    async def _push(
        self,
        kind: str,
        symbol: str,
        told: Callable[[Socket, Channel], Sequence[Message | None]],
    ) -> None:
        async def push() -> None:
            for socket, channel in self._listening(kind, symbol):
                for message in told(socket, channel):
                    await self.send(socket, message)

        await self._on_loop(push())

    async def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


def _halved(row: Row) -> Row:
    time, _, _, _, close, volume = row
    return (time, close, close, close, close, volume / 2)
