"""One subscription at an exchange, pumped to all who listen to it in this process."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from market.errors import ProviderUnavailable
from plugins.ccxt_exchange.client import BookBroken, ExchangeClient
from plugins.ccxt_exchange.tap import Tap
from plugins.ccxt_exchange.wire import LINE, ConnectionLost, Line

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

REBUILDS = 3
"""How often an order book may begin anew within `REBUILD_SECONDS` before its stream fails."""
REBUILD_SECONDS = 60.0
LEAVE_SECONDS = 2.0
"""How long the exchange may take to confirm that we left."""

_log = logging.getLogger(__name__)


class Listener(Protocol[T_contra]):
    """Whoever a pump tells. None of it waits."""

    def confirmed(self) -> None:
        """The exchange has accepted the subscription."""
        ...

    def offer(self, batch: T_contra) -> None: ...

    def fail(self, error: ProviderUnavailable) -> None:
        """Nothing comes any more."""
        ...


class Pump(Generic[T]):
    """Runs from its first listener to its last, or until the stream fails. It is not used again."""

    def __init__(
        self,
        tap: Tap[T],
        client: ExchangeClient,
        *,
        name: str,
        on_end: Callable[[Pump[T]], None],
    ) -> None:
        """*name* is the provider's; *on_end* is called once nothing is left of the pump."""
        self.tap = tap
        self._client = client
        self._name = name
        self._line = Line(self._on_confirmed)
        self._listeners: set[Listener[T]] = set()
        self._newest: T | None = None
        self._live = False
        self._ending = False
        self._task = asyncio.create_task(self._run(), name=f"{name} {tap.name}")
        self._task.add_done_callback(lambda _: on_end(self))

    @property
    def ending(self) -> bool:
        """Whether it takes no more listeners."""
        return self._ending

    def attach(self, listener: Listener[T]) -> None:
        """Tell *listener* from now on, and at once what is known already."""
        self._listeners.add(listener)
        if self._live:
            listener.confirmed()
        if self._newest is not None:
            listener.offer(self._newest)

    async def detach(self, listener: Listener[T]) -> None:
        """Stop telling *listener*; without any left, return once the exchange was left too."""
        self._listeners.discard(listener)
        if not self._listeners:
            await self.stop()

    async def stop(self, error: ProviderUnavailable | None = None) -> None:
        """End, failing who still listens with *error*, and return when nothing is left of it."""
        if not self._ending:
            self._end(error or ProviderUnavailable(self._name, "it was closed"))
            self._task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Wait until nothing is left of it."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        LINE.set(self._line)
        exchange = None
        lost = False
        try:
            exchange = await self._client.ready()
            await self._pump(exchange)
        except ProviderUnavailable as error:
            lost = isinstance(error, ConnectionLost)
            self._end(error)
        except asyncio.CancelledError:
            # By `stop`, or by whoever ends the loop.
            self._end(ProviderUnavailable(self._name, "it was closed"))
        except Exception:
            _log.exception("%s: a stream of %s failed", self._name, self.tap.symbol)
            self._end(ProviderUnavailable(self._name, "what it pushed could not be read"))
        finally:
            # What is asked for from here on is no stream.
            LINE.set(None)
            if exchange is not None:
                await self._left(exchange, lost=lost)

    async def _pump(self, exchange: Any) -> None:
        rebuilt: deque[float] = deque(maxlen=REBUILDS)
        loop = asyncio.get_running_loop()
        if not self.tap.keeps_state:
            # What ccxt still has of an earlier stream is not of this one.
            self.tap.forget(exchange)
        while True:
            try:
                batch = await self._client.pushed(self.tap.next(exchange))
            except BookBroken as error:
                _log.info("%s: the book of %s begins anew: %s", self._name, self.tap.symbol, error)
                if len(rebuilt) == REBUILDS and loop.time() - rebuilt[0] < REBUILD_SECONDS:
                    raise ProviderUnavailable(
                        self._name, "its order book does not add up"
                    ) from error
                rebuilt.append(loop.time())
                await self._client.pushed(exchange.begin_anew(self._line, self.tap.symbol))
                continue
            if batch is not None:
                self._publish(batch)

    def _publish(self, batch: T) -> None:
        self._live = True
        if self.tap.keeps_state:
            self._newest = batch
        for listener in tuple(self._listeners):
            listener.offer(batch)

    def _on_confirmed(self) -> None:
        self._live = True
        for listener in tuple(self._listeners):
            listener.confirmed()

    def _end(self, error: ProviderUnavailable) -> None:
        self._ending = True
        listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            listener.fail(error)

    async def _left(self, exchange: Any, *, lost: bool) -> None:
        try:
            await self._leave(exchange, lost=lost)
        except Exception:
            _log.exception("%s: %s was not left cleanly", self._name, self.tap.symbol)

    async def _leave(self, exchange: Any, *, lost: bool) -> None:
        """Unsubscribe, or close the connections that nobody else listens to."""
        exchange.lines.discard(self._line)
        own = [c for url, c in self._line.clients.items() if exchange.clients.get(url) is c]
        shared = [c for c in own if any(line.runs_on(c) for line in exchange.lines)]
        if lost:
            for client in own:
                exchange.drop(client)
        else:
            await asyncio.gather(*(exchange.hang_up(c) for c in own if c not in shared))
            if shared and not await self._unwatched(exchange):
                # It goes on being pushed, and ccxt needs what it knows to understand it.
                return
        self.tap.forget(exchange)

    async def _unwatched(self, exchange: Any) -> bool:
        if exchange.has.get(f"unWatch{self.tap.has}") is not True:
            return False
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await getattr(exchange, f"un_watch_{self.tap.kind}")(*self.tap.arguments, {})
        except Exception as error:
            _log.info("%s: %s not left: %s", self._name, self.tap.symbol, type(error).__name__)
            return False
        return True
