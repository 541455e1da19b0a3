"""What somebody in any process listens to, so that only that is fetched.

Whoever listens says so again and again; what is not said for a grace period is forgotten. Times
are Redis' own, as processes need not agree on theirs.
"""

from __future__ import annotations

from collections.abc import Collection

from redis.asyncio import Redis
from redis.exceptions import RedisError

from datasources.live.redis_away import RedisAway
from datasources.live.redis_keys import channel_name, interest_key

_NOW = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('zremrangebyscore', KEYS[1], '-inf', string.format('%.0f', now))
"""
_WANT = f"""{_NOW}
local room = ARGV[3] - redis.call('zcard', KEYS[1])
local until_then = string.format('%.0f', now + ARGV[2])
local refused, poke = {{}}, false
for i = 4, #ARGV do
  if redis.call('zscore', KEYS[1], ARGV[i]) then
    redis.call('zadd', KEYS[1], 'gt', until_then, ARGV[i])
  elseif room > 0 then
    redis.call('zadd', KEYS[1], until_then, ARGV[i])
    room, poke = room - 1, true
  else
    refused[#refused + 1] = ARGV[i]
  end
end
if poke then redis.call('publish', ARGV[1], '') end
return refused
"""
_WANTED = f"""{_NOW}
return redis.call('zrange', KEYS[1], 0, -1)
"""


class Interest:
    """Up to *most* members that are wanted, each until *grace_ms* after it last was.

    Methods raise `RedisAway`, which says nothing about what is wanted.
    """

    POKED = "interest"
    """The broadcaster's channel that says, without a message, that something new is wanted. It can
    be lost like any message: look now and then without it."""

    def __init__(self, redis: Redis, *, prefix: str, grace_ms: int, most: int = 10_000) -> None:
        self._keys = [interest_key(prefix)]
        self._poked = channel_name(prefix, self.POKED)
        self._grace_ms = grace_ms
        self._most = most
        self._want = redis.register_script(_WANT)
        self._wanted = redis.register_script(_WANTED)

    async def want(self, members: Collection[bytes | str]) -> set[bytes]:
        """Say that *members* are wanted, and return those refused because there are too many.

        What is wanted already is never refused. One round trip.
        """
        if not members:
            return set()
        args = [self._poked, self._grace_ms, self._most, *members]
        try:
            return set(await self._want(keys=self._keys, args=args))
        except (RedisError, OSError) as error:
            raise RedisAway(f"interest in {len(members)} not told") from error

    async def wanted(self) -> set[bytes]:
        """Return all members that are wanted."""
        try:
            return set(await self._wanted(keys=self._keys))
        except (RedisError, OSError) as error:
            raise RedisAway("interest not known") from error
