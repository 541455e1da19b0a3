"""One WebSocket that speaks `graphql-transport-ws`.

The socket's own task only listens. Each operation has a task until it is over or shares a tail;
from then on its messages come from the group's task. Whoever has a message writes it at once if
the writer takes it, else it waits in the outbox, of which there is none until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from starlette.types import Receive

from market.errors import BargraphError
from resolvers.callers import Caller
from web.graphql_request import RequestRefused
from web.live.counts import Tally
from web.live.groups import Membership
from web.live.limits import LiveLimits
from web.live.messages import (
    ACK,
    FORBIDDEN,
    INIT_TIMEOUT,
    INIT_TWICE,
    NO_PONG,
    PING,
    TOO_LARGE,
    TOO_SLOW,
    UNAUTHORIZED,
    Close,
    Complete,
    ConnectionInit,
    Message,
    Ping,
    Subscribe,
    Violation,
    already_exists,
    end,
    next_head,
    pong,
    read_message,
)
from web.live.operations import Operations
from web.live.outbox import Letter, Outbox, OutboxFull
from web.live.receiver import Errors
from web.live.writer import Writer
from web.request_ids import begin_operation


class ConnectionForbidden(BargraphError):
    """A client that may not connect as what it says it is."""

    code = "FORBIDDEN"


Greet = Callable[[Caller, dict[str, Any] | None], Awaitable[Caller]]
"""Returns who a client is by what it says in `connection_init`.

Raises `ConnectionForbidden` or `RequestRefused` for one that must not connect.
"""


class Connection:
    """A socket that was accepted, until it is closed."""

    __slots__ = (
        "_acknowledged",
        "_begun",
        "_caller",
        "_closing",
        "_ending",
        "_greet",
        "_heard",
        "_limits",
        "_loop",
        "_moved",
        "_operations",
        "_outbox",
        "_over",
        "_patience",
        "_pinged",
        "_receive",
        "_room",
        "_running",
        "_stall",
        "_tally",
        "_timer",
        "_writer",
    )

    def __init__(
        self,
        receive: Receive,
        writer: Writer,
        *,
        caller: Caller,
        running: Operations,
        greet: Greet,
        limits: LiveLimits,
        tally: Tally,
    ) -> None:
        self._receive = receive
        self._writer = writer
        self._caller = caller
        self._running = running
        self._greet = greet
        self._limits = limits
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._operations: dict[str, _Running] = {}
        self._ending: set[asyncio.Task[None]] | None = None
        """Tasks of operations that the client has completed, while they clean up."""
        self._outbox: Outbox[Letter] | None = None
        self._room: asyncio.Event | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._moved = False
        """Whether the writer took something since progress was last expected."""
        self._timer: asyncio.TimerHandle | None = None
        self._acknowledged = False
        self._begun = 0
        """How many operations began here."""
        self._closing: Close | None = None
        self._over = False
        self._heard = self._loop.time()
        self._pinged = False
        self._patience = asyncio.timeout(limits.init_timeout)

    async def serve(self) -> None:
        """Listen until the client leaves, breaks the protocol, or is closed."""
        self._writer.when_ready = self._flush
        try:
            async with self._patience:
                await self._listen()
        except TimeoutError:
            if not self._patience.expired():
                raise
            self._closing = self._closing or INIT_TIMEOUT
        except Violation as violation:
            self._closing = violation.close
        finally:
            self._over = True
            try:
                if self._closing is not None:
                    await self._writer.close(self._closing)
            finally:
                await self._clear()

    def close(self, close: Close) -> None:
        """Close the socket soon. Nothing is sent before that any more."""
        if not self._over:
            self._over = True
            self._closing = close
            self._patience.reschedule(self._loop.time())

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            self._heard, self._pinged = self._loop.time(), False
            text = message.get("text")
            if text is None:
                raise Violation(Close(4400, "Messages must be text"))
            if len(text) > self._limits.message_bytes:
                raise Violation(TOO_LARGE)
            await self._take(read_message(text, id_length=self._limits.id_length))

    async def _take(self, message: Message) -> None:
        if isinstance(message, Ping):
            self.put(self, pong(message.payload))
        elif isinstance(message, ConnectionInit):
            await self._acknowledge(message)
        elif isinstance(message, Subscribe):
            self._start(message)
        elif isinstance(message, Complete):
            running = self._operations.pop(message.id, None)
            if running is not None:
                self._stop(running)

    async def _acknowledge(self, message: ConnectionInit) -> None:
        if self._acknowledged:
            raise Violation(INIT_TWICE)
        self._patience.reschedule(None)  # the client has kept its part
        try:
            self._caller = await self._greet(self._caller, message.payload)
        except (ConnectionForbidden, RequestRefused):
            raise Violation(FORBIDDEN) from None
        if self._over:  # closed meanwhile
            return
        self._acknowledged = True
        self._timer = self._loop.call_later(self._limits.ping_interval, self._watch)
        self.put(self, ACK)

    def _start(self, message: Subscribe) -> None:
        if not self._acknowledged:
            raise Violation(UNAUTHORIZED)
        if message.id in self._operations:
            raise Violation(already_exists(message.id))
        most = self._limits.operations
        if len(self._operations) + len(self._ending or ()) >= most:
            words = f"A connection runs at most {most} operations at a time."
            refusal = {"message": words, "extensions": {"code": "COST_EXCEEDED"}}
            self.put(self, end(message.id, [refusal]))
            return
        running = _Running(self, message.id)
        self._operations[message.id] = running
        self._tally.operations += 1
        self._begun += 1
        performing = self._perform(running, message, self._begun)
        running.task = self._loop.create_task(performing, name="operation")

    async def _perform(self, running: _Running, message: Subscribe, number: int) -> None:
        caller = self._caller._replace(request_id=begin_operation(number))
        membership = await self._running.run(message.asked, running, caller)
        running.task = None
        if membership is not None and running.over:
            membership.leave()
        else:
            running.membership = membership

    def _stop(self, running: _Running) -> None:
        """End an operation that the client wants no more of."""
        self._tally.operations -= 1
        task = running.stop()
        if task is not None:
            if self._ending is None:
                self._ending = set()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if self._outbox:
            self._outbox.forget(running)
            self._make_room()

    def expel(self, running: _Running, errors: Errors) -> None:
        """End an operation whose client may not have it any more."""
        del self._operations[running.id]
        self._stop(running)
        self.put(running, end(running.id, errors))

    def finish(self, running: _Running, errors: Errors | None) -> None:
        """Send the last message of an operation that is over by itself."""
        del self._operations[running.id]
        self._tally.operations -= 1
        self.put(running, end(running.id, errors))

    def put(
        self,
        sender: object,
        head: bytes,
        body: bytes = b"",
        tail: bytes = b"",
        passing: Hashable | None = None,
    ) -> None:
        """Send a message, or keep it until the writer takes it."""
        if self._over:
            return
        if not self._outbox and self._writer.write(head, body, tail):
            self._tally.sent += 1
            return
        if self._outbox is None:
            limits = self._limits
            self._outbox = Outbox(max_count=limits.outbox_count, max_bytes=limits.outbox_bytes)
            self._room = asyncio.Event()
        try:
            conflated = self._outbox.put(Letter(sender, head, body, tail), passing)
        except OutboxFull:
            self.fall_behind()
            return
        self._tally.conflated += conflated
        assert self._room is not None
        self._room.clear()
        if self._stall is None:
            self._expect_progress()

    async def ready(self) -> None:
        """Wait until the outbox is empty."""
        while self._outbox and self._room is not None:
            await self._room.wait()

    def fall_behind(self) -> None:
        """Close the socket of a client that does not read what must not be dropped."""
        if not self._over:
            self._tally.slow += 1
            self.close(TOO_SLOW)

    def _flush(self) -> None:
        """Send what was kept, as far as the writer takes it."""
        outbox = self._outbox
        while outbox and not self._over:
            letter = outbox.first()
            if not self._writer.write(letter.head, letter.body, letter.tail):
                break
            outbox.take()
            self._moved = True
            self._tally.sent += 1
        self._make_room()

    def _make_room(self) -> None:
        if not self._outbox and self._room is not None:
            self._room.set()
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None

    def _expect_progress(self) -> None:
        self._moved = False
        self._stall = self._loop.call_later(
            self._limits.stall, self._look_for_progress, self._writer.unsent
        )

    def _look_for_progress(self, unsent: int) -> None:
        self._stall = None
        if self._over or not self._outbox:
            return
        if self._moved or self._writer.unsent < unsent:
            self._expect_progress()
        else:
            self.fall_behind()

    def _watch(self) -> None:
        """Ask a client that is silent whether it is there, and close the socket if it is not."""
        if self._over:
            return
        if self._pinged:
            self.close(NO_PONG)
            return
        interval = self._limits.ping_interval
        wait = interval - (self._loop.time() - self._heard)
        if wait <= 0 and self._outbox:  # it is for `_look_for_progress` to judge
            wait = interval
        elif wait <= 0:
            self._pinged = True
            self.put(self, PING)
            wait = self._limits.pong_timeout
        self._timer = self._loop.call_later(wait, self._watch)

    async def _clear(self) -> None:
        for timer in (self._timer, self._stall):
            if timer is not None:
                timer.cancel()
        tasks = list(self._ending or ())
        for running in self._operations.values():
            self._tally.operations -= 1
            task = running.stop()
            if task is not None:
                tasks.append(task)
        self._operations.clear()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Running:
    """An operation of a connection; see `web.live.receiver.Receiver`."""

    __slots__ = ("_connection", "_head", "id", "membership", "over", "task")

    def __init__(self, connection: Connection, id: str) -> None:
        self.id = id
        self.task: asyncio.Task[None] | None = None
        self.membership: Membership | None = None
        self.over = False
        self._connection = connection
        self._head = next_head(id)

    def next(self, body: bytes, passing: Hashable | None = None) -> None:
        if not self.over:
            self._connection.put(self, self._head, body, b"}", passing)

    async def ready(self) -> None:
        await self._connection.ready()

    def finish(self, errors: Errors | None = None) -> None:
        if not self.over:
            self.over = True
            self._connection.finish(self, errors)

    def expel(self, errors: Errors) -> None:
        if not self.over:
            self._connection.expel(self, errors)

    def fall_behind(self) -> None:
        self._connection.fall_behind()

    def stop(self) -> asyncio.Task[None] | None:
        """Send nothing more, and return the task that is cancelled for it, if one runs."""
        self.over = True
        if self.membership is not None:
            self.membership.leave()
        if self.task is not None:
            self.task.cancel()
        return self.task
