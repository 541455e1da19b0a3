"""Leases in Redis: what only one process may do at a time, and a token that tells old from new.

A lease that is not renewed ends by itself. Its former holder may not know yet; whatever it does is
told from what its successor does by the fencing token, which is higher for each lease granted.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from datasources.live.redis_away import RedisAway
from datasources.live.redis_keys import lease_key, newest_token_key

log = logging.getLogger(__name__)

# Tokens are Redis' own microseconds, or one more than the newest if that is not later: they go on
# growing after Redis lost everything, or came back without its last second.
_ACQUIRE = """
if redis.call('exists', KEYS[1]) == 1 then return false end
local time = redis.call('time')
local token = time[1] * 1000000 + time[2]
local newest = tonumber(redis.call('get', KEYS[2]) or '0')
if token <= newest then token = newest + 1 end
local granted = string.format('%.0f', token)
redis.call('set', KEYS[2], granted)
redis.call('set', KEYS[1], granted .. ':' .. ARGV[1], 'px', ARGV[2])
return granted
"""
_RENEW = """
local held = {}
for i, key in ipairs(KEYS) do
  held[i] = 0
  if redis.call('get', key) == ARGV[i + 1] then held[i] = redis.call('pexpire', key, ARGV[1]) end
end
return held
"""
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to *name*, until it ends or one with a higher *token* is granted."""

    name: str
    token: int


class Leases:
    """The leases that *owner*, a name no other process has, asks for and renews.

    Each ends *ttl_ms* after it was granted or last renewed. Methods raise `RedisAway`, which says
    nothing about who holds what: a lease then lasts for as long as it did before.
    """

    def __init__(self, redis: Redis, *, prefix: str, owner: str, ttl_ms: int = 4000) -> None:
        self._redis = redis
        self._prefix = prefix
        self._owner = owner
        self._ttl_ms = ttl_ms
        self._acquire = redis.register_script(_ACQUIRE)
        self._renew = redis.register_script(_RENEW)
        self._release = redis.register_script(_RELEASE)

    async def acquire(self, name: str) -> Lease | None:
        """Return the lease *name* with a new token, None while anybody holds it, this owner too.

        After `RedisAway` it may have been granted unheard; it then ends by itself.
        """
        keys = [lease_key(self._prefix, name), newest_token_key(self._prefix)]
        try:
            token = await self._acquire(keys=keys, args=[self._owner, self._ttl_ms])
        except (RedisError, OSError) as error:
            raise RedisAway(f"no lease of {name}") from error
        return None if token is None else Lease(name, int(token))

    async def renew(self, leases: Collection[Lease]) -> set[Lease]:
        """Return those of *leases* that are still held, renewed. One round trip.

        One that has ended is not renewed even if nobody took it: whoever wants it acquires it.
        """
        asked = list(leases)
        if not asked:
            return set()
        keys = [lease_key(self._prefix, lease.name) for lease in asked]
        values = [self._value(lease) for lease in asked]
        try:
            held = await self._renew(keys=keys, args=[self._ttl_ms, *values])
        except (RedisError, OSError) as error:
            raise RedisAway(f"{len(asked)} leases not renewed") from error
        return {lease for lease, renewed in zip(asked, held, strict=True) if renewed}

    async def release(self, lease: Lease) -> None:
        """End *lease* if it is held. While Redis is away it ends by itself instead."""
        keys = [lease_key(self._prefix, lease.name)]
        try:
            await self._release(keys=keys, args=[self._value(lease)])
        except (RedisError, OSError):
            log.debug("could not release %s; it ends by itself", lease)

    async def holder(self, name: str) -> str | None:
        """Return the owner of the lease *name*, None if nobody holds it."""
        try:
            value = await self._redis.get(lease_key(self._prefix, name))
        except (RedisError, OSError) as error:
            raise RedisAway(f"no holder of {name}") from error
        return value.decode().partition(":")[2] if isinstance(value, bytes) else None

    def _value(self, lease: Lease) -> str:
        return f"{lease.token}:{self._owner}"
