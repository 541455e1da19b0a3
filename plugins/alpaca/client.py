"""The calls of one account: in threads, within its budget, tried again where that may help."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from market.clock import Clock
from market.errors import ProviderUnavailable
from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.faults import Fault, backoff
from plugins.budget import Budget, Sleep

ATTEMPTS = 3
"""How often one call is tried in all."""
CALLS_A_MINUTE = 200
"""What the smallest data subscription allows."""
_THREADS = 4
_QUEUE_SECONDS = 10.0
"""How long a call may wait for a thread, besides the time-out of its answer."""
_PAUSE = 60.0
"""Seconds without calls after a refusal that does not say how long to wait."""


class RecentRefused(Exception):
    """The account may not see the newest minutes of the feed."""


class AlpacaClient:
    """Raises `ProviderUnavailable`, whose reason never quotes an answer, a URL or a key."""

    def __init__(
        self,
        provider: str,
        keys: Keys,
        addresses: Addresses,
        *,
        clock: Clock,
        timeout: float,
        sleep: Sleep,
    ) -> None:
        self._provider = provider
        self._keys = keys
        self._addresses = addresses
        self._clock = clock
        self._timeout = timeout
        self._sleep = sleep
        self._budget = Budget(provider, CALLS_A_MINUTE, clock=clock, sleep=sleep)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="alpaca")
        self._opening = asyncio.Lock()
        self._rest: Any = None
        self._closed = False

    async def assets(self, market: str) -> list[Any]:
        """Return every active asset of *market*, as Alpaca writes it."""
        try:
            return _list(await self._call(lambda rest: rest.assets(market, attempt=0)))
        except Fault as fault:
            if not fault.keys_refused:
                raise self._unavailable(fault) from None
        try:
            return _list(await self._call(lambda rest: rest.assets(market, attempt=1)))
        except Fault as fault:
            raise self._unavailable(fault) from None

    async def page(
        self, market: str, kind: str, parameters: Mapping[str, str | int]
    ) -> Mapping[str, Any]:
        """Return one page of `bars` or `trades`. Raises `RecentRefused` besides."""
        try:
            page = await self._call(lambda rest: rest.page(market, kind, parameters))
        except Fault as fault:
            if fault.recent:
                raise RecentRefused from None
            raise self._unavailable(fault) from None
        if not isinstance(page, dict):
            raise ProviderUnavailable(self._provider, _UNREADABLE)
        return page

    async def aclose(self) -> None:
        """Begin no further call. One that is under way ends by its time-out at the latest."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        async with self._opening:
            rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    async def _call(self, ask: Callable[[Any], Any]) -> Any:
        """Return what *ask* returns. Raises `Fault`, `ProviderUnavailable`."""
        rest = await self._open()
        attempt = 1
        while True:
            await self._budget.take()
            try:
                return await self._in_thread(partial(ask, rest))
            except Fault as fault:
                if fault.rate_limited:
                    wait = self._pause_after(fault)
                    self._budget.pause(wait)
                    raise ProviderUnavailable(
                        self._provider, fault.reason, retry_after=wait
                    ) from None
                if not fault.passing or attempt == ATTEMPTS:
                    raise
            await self._sleep(backoff(attempt))
            attempt += 1

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        if self._closed:
            raise Fault("it was closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(2 * self._timeout + _QUEUE_SECONDS):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError:
            raise Fault("it did not answer in time", passing=True) from None

    async def _open(self) -> Any:
        async with self._opening:
            if self._closed:
                raise Fault("it was closed")
            if self._rest is None:
                # alpaca-py brings pandas: it takes a while.
                module = await asyncio.to_thread(importlib.import_module, "plugins.alpaca.rest")
                self._rest = module.Rest(self._keys, self._addresses, seconds=self._timeout)
            return self._rest

    def _pause_after(self, fault: Fault) -> float:
        if fault.retry_after is not None:
            return fault.retry_after
        if fault.resets_at is not None:
            return min(max(fault.resets_at - self._clock.now() / 1000, 1.0), _PAUSE)
        return _PAUSE

    def _unavailable(self, fault: Fault) -> ProviderUnavailable:
        return ProviderUnavailable(self._provider, fault.reason)


_UNREADABLE = "its answer could not be read"


def _list(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise Fault(_UNREADABLE)
    return answer
