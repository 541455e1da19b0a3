"""One connection to one of Alpaca's streams, shared by all who listen to it.

It subscribes to what somebody wants and nobody had, and unsubscribes from what nobody wants any
more; with its last listener it ends. When it is lost, every listener is told: alpaca-py's own loop,
which connects again in silence, is not used.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from market.errors import InvalidBars, ProviderUnavailable
from plugins.alpaca.book import Book
from plugins.alpaca.faults import LineLost
from plugins.alpaca.seat import Key, Seat

CHANNELS = {"b": "bars", "u": "updatedBars", "t": "trades", "q": "quotes", "o": "orderbooks"}
_REFUSALS = {
    400: "it refused the subscription",
    405: "the account may subscribe to no more symbols",
    409: "the account's data subscription does not include this",
    410: "it refused the subscription",
}
"""Of one subscription; any other error is the end of the connection."""

log = logging.getLogger(__name__)


class Socket(Protocol):
    """A connection, in Alpaca's words. All raise `LineLost`."""

    async def open(self) -> None:
        """Connect and show the keys."""
        ...

    async def ask(self, action: str, channels: Mapping[str, Sequence[str]]) -> None: ...

    async def receive(self) -> Sequence[Mapping[str, Any]]: ...

    async def close(self) -> None: ...


class _Request:
    """A subscription, or the end of one, that is not answered yet. *seat* is who waits for it."""

    def __init__(self, keys: frozenset[Key], *, wanted: bool, seat: Seat[Any] | None) -> None:
        self.keys = keys
        self.seat = seat
        self.answered = asyncio.Event()
        self._wanted = wanted

    @property
    def action(self) -> str:
        return "subscribe" if self._wanted else "unsubscribe"

    def met_by(self, subscribed: frozenset[Key]) -> bool:
        return self.keys <= subscribed if self._wanted else not self.keys & subscribed


class Line:
    """Runs from when it is made until its last listener leaves, it is lost, or it is closed."""

    def __init__(
        self, provider: str, socket: Callable[[], Awaitable[Socket]], *, seconds: float
    ) -> None:
        """*socket* makes the connection; an answer on it may take *seconds*."""
        self._provider = provider
        self._make_socket = socket
        self._seconds = seconds
        self._waiting: deque[Seat[Any]] = deque()
        self._seats: set[Seat[Any]] = set()
        self._by_key: dict[Key, set[Seat[Any]]] = {}
        self._subscribed: frozenset[Key] = frozenset()
        self._books: dict[str, Book] = {}
        self._leaving: list[Seat[Any]] = []
        self._request: _Request | None = None
        self._changed = asyncio.Event()
        self.ending = False
        """Nobody can join any more."""
        self.task = asyncio.create_task(self._run(), name="alpaca line")

    def join(self, seat: Seat[Any]) -> None:
        """Give *seat* a place once its keys are subscribed to. The line must not be ending."""
        self._waiting.append(seat)
        self._changed.set()

    async def leave(self, seat: Seat[Any]) -> None:
        """Take *seat* away, and wait until Alpaca sends nothing for it."""
        seat.leave()
        self._unseat(seat)
        if self.task.done():
            return
        self._leaving.append(seat)
        self._changed.set()
        await seat.released.wait()

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        lost = LineLost("its stream was closed")
        socket: Socket | None = None
        try:
            socket = await self._opened()
            await self._first_of(self._receive(socket), self._negotiate(socket))
        except LineLost as failure:
            lost = failure
        except Exception:
            # A fault of ours. Whoever listens must learn that nothing comes any more.
            log.exception("%s: the stream failed", self._provider)
            lost = LineLost("its stream failed")
        finally:
            self.ending = True
            for seat in (*self._seats, *self._waiting):
                # One each: an exception remembers where it was raised.
                seat.fail(
                    ProviderUnavailable(self._provider, lost.reason, retry_after=lost.retry_after)
                )
            try:
                if socket is not None:
                    await socket.close()
            finally:
                for seat in self._leaving:
                    seat.released.set()

    async def _opened(self) -> Socket:
        socket = await self._make_socket()
        try:
            async with asyncio.timeout(self._seconds):
                await socket.open()
        except BaseException as error:
            await socket.close()
            if isinstance(error, TimeoutError):
                raise LineLost("it did not answer in time") from None
            raise
        return socket

    @staticmethod
    async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
        """Run all until one ends, and raise what that one raised."""
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _negotiate(self, socket: Socket) -> None:
        """Subscribe and unsubscribe, one request at a time, until nobody listens."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            leaving = list(self._leaving)
            while self._waiting:
                # It waits until it is answered: what fails before, fails it too.
                await self._seat(socket, self._waiting[0])
                self._waiting.popleft()
            await self._unsubscribe(socket)
            if not self._seats and not self._waiting:
                self.ending = True
                return
            self._leaving = self._leaving[len(leaving) :]
            for seat in leaving:
                seat.released.set()

    async def _seat(self, socket: Socket, seat: Seat[Any]) -> None:
        if seat.left:
            return
        missing = seat.keys - self._subscribed
        if missing:
            await self._ask(socket, _Request(missing, wanted=True, seat=seat))
        else:
            self._confirm(seat)

    async def _unsubscribe(self, socket: Socket) -> None:
        wanted = {key for seat in (*self._seats, *self._waiting) for key in seat.keys}
        unwanted = self._subscribed - wanted
        # With the last listener the connection ends, and all subscriptions with it.
        if unwanted and wanted:
            await self._ask(socket, _Request(unwanted, wanted=False, seat=None))

    async def _ask(self, socket: Socket, request: _Request) -> None:
        self._request = request
        try:
            async with asyncio.timeout(self._seconds):
                await socket.ask(request.action, _by_channel(request.keys))
                await request.answered.wait()
        except TimeoutError:
            raise LineLost("it did not confirm a subscription in time") from None
        finally:
            self._request = None

    async def _receive(self, socket: Socket) -> None:
        while True:
            messages = await socket.receive()
            try:
                self._take(messages)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError, InvalidBars):
                # Its text may be anything.
                raise LineLost("its message could not be read") from None
            # Messages that wait already are received without a pause, and readers need their turn.
            await asyncio.sleep(0)

    def _take(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Tell every seat what is for it, as much as came at once."""
        coming: dict[Seat[Any], list[Any]] = {}
        for message in messages:
            kind = message["T"]
            if kind == "subscription":
                _hand_out(coming)
                self._acknowledged(message)
            elif kind == "error":
                self._refused(int(message.get("code", 0)))
            elif kind in CHANNELS:
                key = (CHANNELS[kind], str(message["S"]))
                told = self._book(key[1], message) if kind == "o" else message
                for seat in self._by_key.get(key, ()):
                    coming.setdefault(seat, []).append(told)
        _hand_out(coming)

    def _book(self, symbol: str, message: Mapping[str, Any]) -> Book:
        book = self._books.setdefault(symbol, Book())
        book.apply(message)
        return book

    def _acknowledged(self, message: Mapping[str, Any]) -> None:
        self._subscribed = frozenset(
            (channel, str(symbol))
            for channel in CHANNELS.values()
            for symbol in message.get(channel) or ()
        )
        for symbol in [s for s in self._books if ("orderbooks", s) not in self._subscribed]:
            del self._books[symbol]
        request = self._request
        if request is None:
            return
        if not request.met_by(self._subscribed):
            self._refused(400)
            return
        # Now, not when the one who waits gets its turn: the next message is for it already.
        if request.seat is not None:
            self._confirm(request.seat)
        request.answered.set()

    def _refused(self, code: int) -> None:
        request = self._request
        if request is None or request.seat is None or code not in _REFUSALS:
            raise LineLost(f"it ended the stream ({code})")
        request.seat.fail(ProviderUnavailable(self._provider, _REFUSALS[code]))
        request.answered.set()

    def _confirm(self, seat: Seat[Any]) -> None:
        if seat.left:
            return
        self._seats.add(seat)
        for key in seat.keys:
            self._by_key.setdefault(key, set()).add(seat)
        seat.confirm()
        # Who comes later than the first is not sent the whole book by Alpaca.
        for channel, symbol in seat.keys:
            if channel == "orderbooks" and symbol in self._books:
                seat.take([self._books[symbol]])

    def _unseat(self, seat: Seat[Any]) -> None:
        self._seats.discard(seat)
        for key in seat.keys:
            seats = self._by_key.get(key)
            if seats is not None:
                seats.discard(seat)
                if not seats:
                    del self._by_key[key]


def _hand_out(coming: dict[Seat[Any], list[Any]]) -> None:
    for seat, messages in coming.items():
        seat.take(messages)
    coming.clear()


def _by_channel(keys: Iterable[Key]) -> dict[str, list[str]]:
    channels: dict[str, list[str]] = {}
    for channel, symbol in sorted(keys):
        channels.setdefault(channel, []).append(symbol)
    return channels
