"""How long a backfill waits for a provider that fails, and when it gives up.

Short pauses are waited for in place. Then the job makes room for others, and comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from market.errors import ProviderUnavailable, Unlisted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses double from *first* to *longest* seconds, or are what the provider asks for.

    After so many *attempts*, or if the provider asks for a longer pause, the job rests: from
    *longest* seconds, as long as the provider has been failing by then, up to *most*. A provider
    that told nothing new for *enough* seconds ends the job.
    """

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0
    most: float = 900.0
    enough: float = 12 * 3_600.0

    def pause(self, failures: int, retry_after: float | None) -> float:
        backoff = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return max(backoff, retry_after or 0.0)

    def is_over(self, failures: int, retry_after: float | None) -> bool:
        """Whether so many failures in a row are too many to wait in place."""
        return failures >= self.attempts or (retry_after or 0.0) > self.longest


PATIENCE = Patience()


class Insistence:
    """Calls to one provider that are tried again; one that failed makes all of them pause.

    While the provider is *failing* since before, nothing is tried twice: who comes back to see
    whether it answers is soon gone again.
    """

    def __init__(self, patience: Patience, *, failing: bool = False) -> None:
        self.failing = failing
        self._patience = patience
        self._resume_at = 0.0

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what *work* returns.

        Raises `ProviderUnavailable` when it failed too often, and `Unlisted` at once.
        """
        failures = 0
        while True:
            await self._rest()
            try:
                return await work()
            except Unlisted:
                raise
            except ProviderUnavailable as error:
                failures += 1
                if self.failing or self._patience.is_over(failures, error.retry_after):
                    raise
                self.pause(failures, error.retry_after)

    def answered(self) -> None:
        """From now on the provider counts as one that answers."""
        self.failing = False

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
