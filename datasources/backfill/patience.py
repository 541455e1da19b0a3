"""How long a backfill waits for a provider that fails, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from market.errors import ProviderUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses double from *first* to *longest* seconds; after so many *attempts* it is over.

    A provider that says when to come again is left alone until then, or for *most* seconds.
    """

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0
    most: float = 900.0

    def pause(self, failures: int, retry_after: float | None) -> float:
        backoff = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return min(self.most, max(backoff, retry_after or 0.0))


PATIENCE = Patience()


class Insistence:
    """Calls to one provider that are tried again; one that failed makes all of them pause."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._resume_at = 0.0

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what *work* returns. Raises `ProviderUnavailable` when it failed too often."""
        failures = 0
        while True:
            await self._rest()
            try:
                return await work()
            except ProviderUnavailable as error:
                failures += 1
                if failures >= self._patience.attempts:
                    raise
                self.pause(failures, error.retry_after)

    def pause(self, failures: int, retry_after: float | None = None) -> None:
        """Let the next calls wait as long as after so many *failures* in a row."""
        until = asyncio.get_running_loop().time() + self._patience.pause(failures, retry_after)
        self._resume_at = max(self._resume_at, until)

    async def _rest(self) -> None:
        """Wait while a pause lasts, also if another call makes it longer."""
        loop = asyncio.get_running_loop()
        while True:
            left = self._resume_at - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(left)
