"""The stream that a caller reads: its end of a pump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from market.errors import ProviderUnavailable
from plugins.ccxt_exchange.pump import Pump
from plugins.ccxt_exchange.tap import Tap
from plugins.ccxt_exchange.unread import Unread

T = TypeVar("T")


class PushStream(Generic[T]):
    """A `Stream`. Nothing is asked of the exchange before it is first read; one task reads it.

    What was pushed before a failure can still be read, then the failure is raised.
    """

    def __init__(
        self,
        attach: Callable[[PushStream[T]], Awaitable[Pump[T]]],
        *,
        name: str,
    ) -> None:
        """*attach* finds the pump and says `reads` before; *name* is the provider's."""
        self._attach = attach
        self._name = name
        self._tap: Tap[T]
        self._unread: Unread[T]
        self._pump: Pump[T] | None = None
        self._news = asyncio.Event()
        self._confirmation_due = False
        self._failure: ProviderUnavailable | None = None
        self._closed = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        """Return what has come since. Raises `ProviderUnavailable`, and `UnknownName` at first."""
        if self._pump is None and not self._closed:
            self._pump = await self._attach(self)
        while not self._closed:
            if self._unread:
                self._confirmation_due = False
                return self._unread.take()
            if self._confirmation_due:
                self._confirmation_due = False
                return self._tap.empty
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            await self._news.wait()
        if self._pump is not None:
            # Closed while the pump was being found.
            await self._pump.detach(self)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave; if nobody else listens, the exchange is left before this returns."""
        self._closed = True
        self._news.set()
        if self._pump is not None:
            await self._pump.detach(self)

    def reads(self, tap: Tap[T]) -> None:
        """Get ready for what *tap* gives."""
        self._tap, self._unread = tap, tap.unread()

    def confirmed(self) -> None:
        self._confirmation_due = True
        self._news.set()

    def offer(self, batch: T) -> None:
        if self._failure is None and not self._unread.add(batch):
            self.fail(ProviderUnavailable(self._name, "what it pushed was not read in time"))
        self._news.set()

    def fail(self, error: ProviderUnavailable) -> None:
        # One of its own: others raise theirs, and tracebacks grow with each raise.
        own = ProviderUnavailable(error.provider, error.reason, retry_after=error.retry_after)
        own.__cause__ = error
        self._failure = self._failure or own
        self._news.set()
