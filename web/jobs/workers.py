"""The processes that run jobs, in one sorted set by when each was last heard of."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from web.jobs.keys import workers_key

_MOST_LISTED = 1_000
_BEAT = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('zadd', KEYS[1], now, ARGV[1])
local live = redis.call('zcount', KEYS[1], now - ARGV[2], '+inf')
return {live, redis.call('zrangebyscore', KEYS[1], '-inf', '(' .. now - ARGV[2], 'limit', 0, 100)}
"""
_LISTED = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('zrevrangebyscore', KEYS[1], '+inf', '-inf',
  'withscores', 'limit', 0, ARGV[1])
for i = 2, #found, 2 do found[i] = math.max(now - found[i], 0) end
return found
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that runs jobs, and how long ago it was heard of, in ms."""

    name: str
    silent_ms: int


class Workers:
    """The set, as the process *name* uses it. One that was silent for *idle_ms* counts as dead.

    Finding the dead costs O(log n) of the set. All methods raise `RedisError` or `OSError` while
    Redis is away.
    """

    def __init__(self, redis: Redis, *, prefix: str, name: str, idle_ms: int) -> None:
        self.name = name
        self.live = 0
        """How many were live at the last beat."""
        self._redis = redis
        self._key = workers_key(prefix)
        self._idle_ms = idle_ms
        self._beat = redis.register_script(_BEAT)
        self._listed = redis.register_script(_LISTED)

    async def beat(self) -> list[str]:
        """Say that this process lives, and return a hundred of the dead at most."""
        self.live, dead = await self._beat(keys=[self._key], args=[self.name, self._idle_ms])
        return [name.decode() for name in dead]

    async def remove(self, name: str) -> None:
        await self._redis.zrem(self._key, name)

    async def listed(self) -> list[Worker]:
        """Return all that are in the set, those heard of last first, a thousand at the most."""
        found = await self._listed(keys=[self._key], args=[_MOST_LISTED])
        names, silences = found[::2], found[1::2]
        return [Worker(n.decode(), int(s)) for n, s in zip(names, silences, strict=True)]
