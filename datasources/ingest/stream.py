"""The Redis stream between those who receive trades and those who store them.

An entry is deleted as soon as it is acknowledged, so what the stream holds is what is not stored.
It takes no more than so many entries and bytes: nothing is ever trimmed to make room.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from datasources.live.redis_away import RedisAway

log = logging.getLogger(__name__)

GROUP = "store"
MOST_ENTRIES = 50_000
MOST_BYTES = 64 * 1024 * 1024
MOST_DEAD = 1_000
"""About 35 MB of full entries."""
_AT_ONCE = 500
"""Entries that one script acknowledges."""
_FORGOTTEN_MS = 3_600_000
"""A reader without entries that has not been heard of for so long is dead."""

_ADD = """
local count, bytes = redis.call('xlen', KEYS[1]), tonumber(redis.call('get', KEYS[2]) or '0')
if count == 0 then bytes = 0 end
local taken, added = 0, 0
for i = 3, #ARGV do
  local more = bytes + added + #ARGV[i]
  if count + taken >= tonumber(ARGV[1]) or more > tonumber(ARGV[2]) then break end
  redis.call('xadd', KEYS[1], '*', 'e', ARGV[i])
  taken, added = taken + 1, added + #ARGV[i]
end
if taken > 0 then redis.call('set', KEYS[2], bytes + added) end
return taken
"""
# ARGV: the group, then the id and the length of each entry.
_DONE = """
local freed = 0
for i = 2, #ARGV, 2 do
  redis.call('xack', KEYS[1], ARGV[1], ARGV[i])
  if redis.call('xdel', KEYS[1], ARGV[i]) == 1 then freed = freed + ARGV[i + 1] end
end
if freed > 0 then redis.call('decrby', KEYS[2], freed) end
"""
# What is dead keeps its payload as it was. The oldest of too many goes; the answer says how many.
_BURY = """
redis.call('xack', KEYS[1], ARGV[1], ARGV[2])
if redis.call('xdel', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('decrby', KEYS[2], #ARGV[3])
redis.call('xadd', KEYS[3], '*', 'e', ARGV[3], 'reason', ARGV[4])
return redis.call('xtrim', KEYS[3], 'maxlen', ARGV[5])
"""
_REPLAY = """
local entry = redis.call('xrange', KEYS[3], ARGV[3], ARGV[3])[1]
if not entry then return 'gone' end
local payload = entry[2][2]
local count, bytes = redis.call('xlen', KEYS[1]), tonumber(redis.call('get', KEYS[2]) or '0')
if count == 0 then bytes = 0 end
if count >= tonumber(ARGV[1]) or bytes + #payload > tonumber(ARGV[2]) then return 'full' end
redis.call('xadd', KEYS[1], '*', 'e', payload)
redis.call('set', KEYS[2], bytes + #payload)
redis.call('xdel', KEYS[3], ARGV[3])
return 'replayed'
"""
_LAG = """
local first = redis.call('xrange', KEYS[1], '-', '+', 'count', 1)[1]
local age = 0
if first then
  local time = redis.call('time')
  age = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(string.match(first[1], '^%d+'))
end
return {redis.call('xlen', KEYS[1]), tonumber(redis.call('get', KEYS[2]) or '0'),
        math.max(age, 0), redis.call('xlen', KEYS[3])}
"""


@dataclass(frozen=True, slots=True)
class Message:
    """An entry as it was read, for the nth time."""

    id: bytes
    payload: bytes
    deliveries: int


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An entry that was given out so often, the last time to a reader that fell silent."""

    id: bytes
    deliveries: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that could not be stored, and why."""

    id: str
    payload: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Lag:
    """What is not stored: entries, their bytes, the age in ms of the oldest, and dead letters."""

    entries: int = 0
    bytes: int = 0
    oldest_ms: int = 0
    dead: int = 0


class TradeStream:
    """The one stream of a store, and the dead letters beside it. Methods raise `RedisAway`."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        most_entries: int = MOST_ENTRIES,
        most_bytes: int = MOST_BYTES,
        most_dead: int = MOST_DEAD,
    ) -> None:
        self._redis = redis
        self._key, self._dead = f"{prefix}trades", f"{prefix}trades:dead"
        self._keys = [self._key, f"{prefix}trades:bytes", self._dead]
        self._limits = (most_entries, most_bytes)
        self._most_dead = most_dead
        scripts = (_ADD, _DONE, _BURY, _REPLAY, _LAG)
        scripted = [redis.register_script(script) for script in scripts]
        self._add, self._done, self._bury, self._replay, self._lag = scripted

    async def add(self, payloads: Sequence[bytes]) -> int:
        """Put as many of *payloads* as there is room for into the stream, in order; say how many.

        After `RedisAway` they may be there all the same. Adding them again does no harm.
        """
        async with _answering():
            return int(await self._add(keys=self._keys, args=[*self._limits, *payloads]))

    async def lag(self) -> Lag:
        async with _answering():
            return Lag(*map(int, await self._lag(keys=self._keys)))

    async def join(self) -> None:
        """Make the group if there is none. It begins with everything that is there."""
        async with _answering():
            try:
                await self._redis.xgroup_create(self._key, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def read(self, reader: str, *, most: int, wait_ms: int) -> list[Message]:
        """Return entries that nobody was given yet, after *wait_ms* at the latest. 0 waits not."""
        async with _answering():
            try:
                found = cast(
                    dict[bytes, Any],
                    await self._redis.xreadgroup(
                        GROUP, reader, {self._key: ">"}, count=most, block=wait_ms or None
                    ),
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                # Redis lost everything, or is another one. What was lost shows as a hole.
                log.warning("The stream of trades is gone and begins anew")
                await self.join()
                return []
        return [
            Message(own, fields.get(b"e", b""), 1)
            for pages in found.values()
            for page in pages
            for own, fields in page
        ]

    async def abandoned(self, *, idle_ms: int, most: int) -> list[Abandoned]:
        """Return entries whose readers have not been heard of for *idle_ms*, oldest first."""
        async with _answering():
            try:
                pending = await self._redis.xpending_range(
                    self._key, GROUP, "-", "+", most, idle=idle_ms
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self.join()
                return []
        return [
            Abandoned(row["message_id"], int(row["times_delivered"])) for row in cast(Any, pending)
        ]

    async def claim(
        self, reader: str, entries: Sequence[Abandoned], *, idle_ms: int
    ) -> list[Message]:
        """Take over those of *entries* that still are abandoned."""
        given = {entry.id: entry.deliveries for entry in entries}
        if not given:
            return []
        async with _answering():
            taken = await self._redis.xclaim(
                self._key, GROUP, reader, idle_ms, cast(Any, list(given))
            )
        # Servers before 7 give an entry that was deleted as nothing.
        return [
            Message(own, fields.get(b"e", b""), given[own] + 1)
            for own, fields in cast(Any, taken)
            if fields
        ]

    async def hold(self, reader: str, messages: Sequence[Message]) -> None:
        """Let it be known that *reader* still works on *messages*."""
        async with _answering():
            for n in range(0, len(messages), _AT_ONCE):
                ids = [message.id for message in messages[n : n + _AT_ONCE]]
                await self._redis.xclaim(self._key, GROUP, reader, 0, cast(Any, ids), justid=True)

    async def done(self, messages: Sequence[Message]) -> None:
        """Acknowledge *messages* and delete them."""
        async with _answering():
            for n in range(0, len(messages), _AT_ONCE):
                some = messages[n : n + _AT_ONCE]
                pairs = [part for one in some for part in (one.id, len(one.payload))]
                await self._done(keys=self._keys, args=[GROUP, *pairs])

    async def bury(self, message: Message, reason: str) -> None:
        """Put *message* among the dead letters instead."""
        args: list[Any] = [GROUP, message.id, message.payload, reason[:500], self._most_dead]
        async with _answering():
            dropped = int(await self._bury(keys=self._keys, args=args))
        if dropped:
            log.error(
                "There are more than %d dead letters; the oldest %d are lost",
                self._most_dead,
                dropped,
            )

    async def leave(self, reader: str) -> None:
        """Forget *reader* unless it has entries to work on, and those that died without any."""
        async with _answering():
            try:
                known = cast(Any, await self._redis.xinfo_consumers(self._key, GROUP))
            except ResponseError:
                return
            for row in known:
                own = row["name"].decode() == reader
                if row["pending"] == 0 and (own or row["idle"] > _FORGOTTEN_MS):
                    await self._redis.xgroup_delconsumer(self._key, GROUP, row["name"])

    async def dead(self, *, after: str = "", most: int = 100) -> list[DeadLetter]:
        """Return dead letters, oldest first, of those past the id *after*."""
        async with _answering():
            first = f"({after}" if after else "-"
            found = cast(Any, await self._redis.xrange(self._dead, min=first, count=most))
        return [
            DeadLetter(own.decode(), fields[b"e"], fields[b"reason"].decode())
            for own, fields in found
        ]

    async def replay(self, id: str) -> bool:
        """Put a dead letter back into the stream; False if there is no such one.

        Raises `StreamFull`.
        """
        async with _answering():
            outcome = await self._replay(keys=self._keys, args=[*self._limits, id])
        if outcome == b"full":
            raise StreamFull("there is no room in the stream; try again later")
        return bool(outcome == b"replayed")

    async def drop(self, id: str) -> bool:
        """Delete a dead letter; False if there is no such one."""
        async with _answering():
            return bool(await self._redis.xdel(self._dead, id))

    async def evicts(self) -> str | None:
        """Return how Redis would evict the stream itself if memory ran short; None if it cannot.

        None as well where it does not say.
        """
        try:
            said = await self._redis.config_get("maxmemory-policy")
        except (RedisError, OSError):
            return None
        policy = str(said.get("maxmemory-policy", ""))
        return policy if policy.startswith("allkeys") else None


class StreamFull(RedisAway):
    """Redis has as many trades as it may; somebody has to store some first."""

    code = "STREAM_FULL"


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise RedisAway(f"the stream of trades does not answer ({type(error).__name__})") from error
