"""Send bytes to whoever listens in any process, and keep the newest of a channel for latecomers.

Pub/sub is fast and forgets. Beside a channel there may be a log, a capped Redis stream, from which
a listener that missed something reads it, if the log can prove that it has all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from types import TracebackType
from typing import Self, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from datasources.live.leases import Lease
from datasources.live.redis_inbox import Break, Inbox
from datasources.live.redis_keys import channel_name, lease_key, log_key
from datasources.live.redis_listener import Listener
from datasources.live.redis_subscriptions import Subscriptions

__all__ = ["Appended", "Break", "Broadcaster", "Inbox"]

log = logging.getLogger(__name__)

_LOG_SECONDS = 3600
"""How long the log of a channel outlives its last entry."""
# redis-py types answers for all its settings; ours leave bytes as they are.
_Entries = list[tuple[bytes, dict[bytes, bytes]]]

# An entry says where the one before it ended and which token wrote it. A log that does not connect
# to an entry, because one between them was never appended or it is of another past, begins anew
# with it: whoever needs what was before finds that it is missing.
_APPEND = """
local held = redis.call('get', KEYS[1])
if not held or string.match(held, '^%d+') ~= ARGV[1] then return 'fenced' end
local position, previous = tonumber(ARGV[2]), tonumber(ARGV[3])
local id = ARGV[2] .. '-0'
local outcome = 'appended'
local newest = redis.call('xrevrange', KEYS[2], '+', '-', 'count', 1)[1]
local last = 0
if newest then
  if tonumber(newest[2][4]) > tonumber(ARGV[1]) then return 'fenced' end
  last = tonumber(string.match(newest[1], '^%d+'))
  local same = redis.call('xrange', KEYS[2], id, id)[1]
  local connects = last >= previous and last < position
  local again = same and same[2][2] == ARGV[3] and same[2][6] == ARGV[4]
  if not connects and not again then
    redis.call('del', KEYS[2])
    last, outcome = 0, 'restarted'
  end
end
if last < position then
  redis.call('xadd', KEYS[2], 'maxlen', '~', ARGV[6], id,
    'previous', ARGV[3], 'token', ARGV[1], 'message', ARGV[4])
end
redis.call('expire', KEYS[2], ARGV[7])
redis.call('publish', ARGV[5], ARGV[4])
return outcome
"""


class Appended(Enum):
    """What became of an entry for the log."""

    APPENDED = "appended"
    """It is in the log, now or since an earlier call, and was published."""
    RESTARTED = "restarted"
    """The same, but the log did not connect to it and holds nothing older any more."""
    FENCED = "fenced"
    """The lease has ended. Nothing was written, nothing published."""
    AWAY = "away"
    """Redis did not answer; it may have happened. Appending again does no harm."""


class Broadcaster:
    """Listens on one connection and publishes through the pool of *redis*, inside `async with`.

    While Redis is away nothing raises: listeners are told by `Break`, senders by what is returned.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        log_length: int = 1000,
        inbox_length: int = 1000,
        inbox_bytes: int = 1 << 20,
        ping_every: float = 1.5,
    ) -> None:
        """*ping_every* in seconds: a connection that died without a word is noticed after three."""
        self._redis = redis
        self._prefix = prefix
        self._log_length = log_length
        self._inbox_length = inbox_length
        self._inbox_bytes = inbox_bytes
        self._subscriptions = Subscriptions()
        self._listener = Listener(redis.connection_pool, self._subscriptions, ping_every=ping_every)
        self._listening: asyncio.Task[None] | None = None
        self._append = redis.register_script(_APPEND)
        self._speaking: set[str] = set()
        self._repeated = asyncio.Event()
        self._repeated.set()

    async def __aenter__(self) -> Self:
        self._subscriptions.connected()
        self._listening = asyncio.create_task(self._listener.run(), name="listen to Redis")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listening is not None
        self._subscriptions.close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        if not self._listening.cancelled():
            self._listening.result()

    @property
    def connected(self) -> bool:
        """Whether what is published can arrive here at the moment."""
        return self._listener.connected

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Inbox]:
        """Yield an inbox into which everything goes that is sent on *channel* inside the block.

        Waits until Redis has confirmed that. If Redis is away it does not wait, and the inbox
        begins with `Break.AWAY`. The inbox ends with the block, or with the broadcaster.
        """
        name = channel_name(self._prefix, channel).encode()
        inbox = Inbox(most=self._inbox_length, most_bytes=self._inbox_bytes)
        try:
            await self._subscriptions.join(name, inbox)
            yield inbox
        finally:
            self._subscriptions.leave(name, inbox)

    async def publish(self, channel: str, message: bytes) -> bool:
        """Send *message* to whoever listens now. False if Redis is away: it may not have gone."""
        try:
            await self._redis.publish(channel_name(self._prefix, channel), message)
        except (RedisError, OSError) as error:
            log.debug("nothing published on %s: %s", channel, type(error).__name__)
            return False
        return True

    async def publish_many(self, messages: Sequence[tuple[str, bytes]]) -> bool:
        """Send each message on its channel, in this order and one round trip.

        False if Redis is away: any number of them may not have gone.
        """
        if not messages:
            return True
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for channel, message in messages:
                    pipe.publish(channel_name(self._prefix, channel), message)
                await pipe.execute()
        except (RedisError, OSError) as error:
            log.debug("%d messages not published: %s", len(messages), type(error).__name__)
            return False
        return True

    async def say(self, channel: str, message: bytes) -> bool:
        """Send how the feed of *channel* does now, after what `repeat` sends of it.

        So an older word never comes last. False as for `publish`.
        """
        self._speaking.add(channel)
        try:
            await self._repeated.wait()
            return await self.publish(channel, message)
        finally:
            self._speaking.discard(channel)

    async def repeat(self, messages: Sequence[tuple[str, bytes]]) -> bool:
        """Send once more how feeds do, but for those that are about to say it themselves.

        One call at a time. False as for `publish_many`.
        """
        self._repeated.clear()
        try:
            return await self.publish_many(
                [(channel, head) for channel, head in messages if channel not in self._speaking]
            )
        finally:
            self._repeated.set()

    async def append(
        self, channel: str, message: bytes, *, position: int, previous: int, lease: Lease
    ) -> Appended:
        """Put *message* into the log of *channel* and publish it there, if *lease* is still held.

        It tells of everything between *previous* and *position*, positions of one series that only
        ever grow (0 is before the first; below 2**53). All of it happens or nothing, in one round
        trip. An entry may be appended again, which publishes it again.
        """
        if not 0 <= previous < position:
            raise ValueError(f"{position} does not follow {previous}")
        keys = [lease_key(self._prefix, lease.name), log_key(self._prefix, channel)]
        args: list[int | str | bytes] = [
            lease.token,
            position,
            previous,
            message,
            channel_name(self._prefix, channel),
            self._log_length,
            _LOG_SECONDS,
        ]
        try:
            return Appended((await self._append(keys=keys, args=args)).decode())
        except (RedisError, OSError) as error:
            log.debug("%s not appended at %d: %s", channel, position, type(error).__name__)
            return Appended.AWAY

    async def since(self, channel: str, after: int) -> list[tuple[int, bytes]] | None:
        """Return what the log of *channel* has past the position *after*, oldest first.

        Positions and messages, at most the length of a log. Together they tell of everything
        between *after* and the last of them; the first may begin earlier. None if that cannot be
        shown: the log is younger, older or shorter than that, gone, or Redis is away.
        """
        key, most = log_key(self._prefix, channel), self._log_length
        try:
            # One more than wanted for the entry at *after* itself, and one to see that it is more.
            answer = await self._redis.xrange(key, min=f"{after}-0", count=most + 2)
        except (RedisError, OSError) as error:
            log.debug("log of %s not read: %s", channel, type(error).__name__)
            return None
        reached: int | None = None
        found: list[tuple[int, bytes]] = []
        for entry_id, fields in cast(_Entries, answer or []):
            position, previous = _position(entry_id), int(fields[b"previous"])
            if position > after:
                if previous > (after if reached is None else reached):
                    return None
                found.append((position, fields[b"message"]))
            reached = position
        return found if reached is not None and len(found) <= most else None

    async def newest(self, channel: str) -> int | None:
        """Return the position up to which the log of *channel* tells, None if that is not known."""
        try:
            answer = await self._redis.xrevrange(log_key(self._prefix, channel), count=1)
        except (RedisError, OSError) as error:
            log.debug("log of %s not read: %s", channel, type(error).__name__)
            return None
        entries = cast(_Entries, answer or [])
        return _position(entries[0][0]) if entries else None


def _position(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
