"""Do a piece of work once however many ask for it at the same time, here and in other processes.

The work runs in a task of its own: whoever leaves early does not take it from the others.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
T = TypeVar("T")

_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""


class Flights:
    """Work under way by key, at most *limit* pieces of a lane at once; the rest wait their turn.

    A lane is a provider: one that hangs keeps nobody else waiting.
    """

    def __init__(self, limit: int) -> None:
        self._under_way: dict[Hashable, asyncio.Task[object]] = {}
        self._rooms = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(limit))

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]], *, lane: str) -> T:
        """Return what *work* returns, starting it only if nobody's for *key* is under way."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._run(work, lane), name=f"flight {key}")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        # Tasks are kept by key whatever they return; one key always stands for one kind of work.
        return cast(T, await asyncio.shield(task))

    async def aclose(self) -> None:
        """Cancel what is under way and wait for it."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Callable[[], Awaitable[T]], lane: str) -> T:
        async with self._rooms[lane]:
            return await work()

    def _landed(self, key: Hashable, task: asyncio.Task[object]) -> None:
        self._under_way.pop(key, None)
        # Everyone who waited may have left; the failure must still be seen.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("flight %s failed: %s", key, error)


class Handover:
    """Lets one process fetch while the others wait, and hands them what it fetched.

    It saves calls and nothing else: if Redis is away, or the holder takes longer than *ttl*
    seconds, the work is done twice and comes out the same.
    """

    def __init__(self, redis: Redis, *, prefix: str, ttl: float) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl = ttl

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Hold the lock *name* inside the block, or go on without after *ttl* seconds."""
        key, token = f"{self._prefix}lock:{name}", secrets.token_hex(8)
        held = await self._acquire(key, token)
        try:
            yield
        finally:
            if held:
                await self._release(key, token)

    async def give(self, name: str, value: bytes, *, milliseconds: int) -> None:
        """Leave *value* for whoever asks for *name* in the next *milliseconds*."""
        try:
            await self._redis.set(f"{self._prefix}fetched:{name}", value, px=milliseconds)
        except (RedisError, OSError):
            log.debug("could not hand over %s", name)

    async def take(self, name: str) -> bytes | None:
        try:
            value = await self._redis.get(f"{self._prefix}fetched:{name}")
        except (RedisError, OSError):
            return None
        return value if isinstance(value, bytes) else None

    async def _acquire(self, key: str, token: str) -> bool:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._ttl, 0.01
        try:
            while not await self._redis.set(key, token, nx=True, px=int(self._ttl * 1000)):
                if loop.time() >= deadline:
                    return False
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.2)
        except (RedisError, OSError):
            return False
        return True

    async def _release(self, key: str, token: str) -> None:
        try:
            await self._redis.eval(_RELEASE, 1, key, token)
        except (RedisError, OSError):
            log.debug("could not release %s; it ends by itself", key)
