"""When the next call may be made: so many a minute, and none while who is called wants a pause."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from market.clock import Clock
from market.errors import ProviderUnavailable

LONGEST_WAIT = 10.0
_PERIOD = 60_000

Sleep = Callable[[float], Awaitable[None]]


class Budget:
    """At most *calls* in any minute, in the order in which they were asked for."""

    def __init__(
        self,
        provider: str,
        calls: int,
        *,
        clock: Clock,
        sleep: Sleep,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        """*longest_wait* is how many seconds a call waits for its turn; beyond, it is an error."""
        self._provider = provider
        self._calls = calls
        self._longest_wait = longest_wait
        self._clock = clock
        self._sleep = sleep
        # When the newest calls were made, in ms; the oldest of them frees the next turn.
        self._made: deque[int] = deque(maxlen=calls)
        self._paused_until = 0
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait until one more call may be made. Raises `ProviderUnavailable` if that is long."""
        async with self._turn:
            while (seconds := self._seconds_left()) > 0:
                if seconds > self._longest_wait:
                    raise ProviderUnavailable(self._provider, "rate limited", retry_after=seconds)
                await self._sleep(seconds)
            self._made.append(self._clock.now())

    def pause(self, seconds: float) -> None:
        """Make nobody call for *seconds* from now."""
        self._paused_until = max(self._paused_until, self._clock.now() + int(seconds * 1000))

    def _seconds_left(self) -> float:
        free_at = self._paused_until
        if len(self._made) == self._calls:
            free_at = max(free_at, self._made[0] + _PERIOD)
        return (free_at - self._clock.now()) / 1000
