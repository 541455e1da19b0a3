"""Sliding windows over hits, shared by all processes in Redis or kept by one alone.

A window counts the hits of the running period, and those of the one before in proportion to how
much of it still lies within reach. What was counted is not given back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from market.lru import LRU
from web.limits.rates import Rate


@dataclass(frozen=True, slots=True)
class Want:
    """*hits* to be counted under *key*, and *more* in advance if these fit too."""

    key: str
    rate: Rate
    hits: int
    more: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """How many were counted: the hits wanted, more, or fewer.

    If fewer, what was wanted did not fit, will in *wait* seconds, and those counted are at hand.
    """

    hits: int
    wait: float = 0.0


class Windows(Protocol):
    """Where hits are counted."""

    async def take(self, wants: Sequence[Want]) -> list[Grant]: ...


def wait_for(
    rate: Rate, hits: int, *, previous: int, previous_left: float, current: int, left: float
) -> float:
    """Return the seconds until *hits* fit.

    *previous* hits are forgotten evenly over the next *previous_left* seconds, *current* ones over
    a whole period that begins in *left* seconds.
    """
    room = rate.amount - hits - current
    if room >= 0:
        if not previous:
            return 0.0
        # One hit of the previous period more than there is room for may still count in part.
        return max(0.0, previous_left - rate.seconds * (room + 1) / previous)
    room = rate.amount - hits
    if room < 0:
        return float(rate.seconds)
    return left + max(0.0, rate.seconds - rate.seconds * (room + 1) / current)


class RedisWindows:
    """Windows in Redis by the scripts of the `limits` library. One round trip, however many wants.

    Raises `RedisError` or `OSError` while Redis is away.
    """

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        # The address only says which client the library shall use; the connections are ours.
        pool: Any = redis.connection_pool
        storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=prefix, connection_pool=pool
        )
        self._bridge: Any = storage.bridge

    async def take(self, wants: Sequence[Want]) -> list[Grant]:
        told = await self._ask(wants)
        if any(isinstance(each, NoScriptError) for each in told):  # Redis was started anew
            for script in (
                self._bridge.lua_acquire_sliding_window,
                self._bridge.lua_sliding_window,
            ):
                await self._redis.script_load(script.script)
            told = await self._ask(wants)
        for each in told:
            if isinstance(each, Exception):
                raise each
        return [_grant(want, *told[3 * n : 3 * n + 3]) for n, want in enumerate(wants)]

    async def _ask(self, wants: Sequence[Want]) -> list[Any]:
        acquire: str = self._bridge.lua_acquire_sliding_window.sha
        look: str = self._bridge.lua_sliding_window.sha
        async with self._redis.pipeline(transaction=False) as calls:
            for want in wants:
                rate = want.rate
                item = RateLimitItemPerSecond(rate.amount, rate.seconds)
                key = f"{{{self._bridge.prefixed_key(item.key_for(want.key))}}}"
                keys = (f"{key}/-1", key)
                calls.evalsha(acquire, 2, *keys, rate.amount, rate.seconds, want.hits)
                calls.evalsha(acquire, 2, *keys, rate.amount, rate.seconds, want.more)
                calls.evalsha(look, 2, *keys, rate.seconds)
            answers: list[Any] = await calls.execute(raise_on_error=False)
            return answers


def _grant(want: Want, hits: Any, more: Any, seen: Any) -> Grant:
    ahead = want.more if more else 0
    if hits:
        return Grant(want.hits + ahead)
    previous, previous_left, current, current_left = (int(each or 0) for each in seen)
    seconds = want.rate.seconds
    return Grant(
        ahead,
        wait_for(
            want.rate,
            want.hits,
            previous=previous,
            previous_left=max(0, previous_left) / 1000,
            current=current,
            # The running period's count is kept for one period longer.
            left=max(0.0, current_left / 1000 - seconds),
        ),
    )


@dataclass(slots=True)
class _Count:
    began: float
    previous: int = 0
    current: int = 0


class LocalWindows:
    """Windows of this process alone, for at most *max_count* keys."""

    def __init__(
        self, *, max_count: int = 50_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts: LRU[tuple[str, Rate], _Count] = LRU(max_count=max_count)
        self._now = now

    async def take(self, wants: Sequence[Want]) -> list[Grant]:
        return [self._take(want) for want in wants]

    def _take(self, want: Want) -> Grant:
        now, rate = self._now(), want.rate
        count = self._counts.get((want.key, rate))
        if count is None:
            count = _Count(now)
            self._counts.put((want.key, rate), count)
        periods = int((now - count.began) // rate.seconds)
        if periods:
            count.previous = count.current if periods == 1 else 0
            count.current = 0
            count.began += periods * rate.seconds
        left = count.began + rate.seconds - now
        used = int(count.previous * left / rate.seconds) + count.current
        for hits in (want.hits + want.more, want.hits):
            if used + hits <= rate.amount:
                count.current += hits
                return Grant(hits)
        return Grant(
            0,
            wait_for(
                rate,
                want.hits,
                previous=count.previous,
                previous_left=left,
                current=count.current,
                left=left,
            ),
        )


AWAY = (RedisError, OSError)
"""What is raised while Redis does not answer, `TimeoutError` included."""
