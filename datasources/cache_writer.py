"""Send to Redis what the cache keeps there, behind the answers that it was made from.

Nobody has to wait for a round trip whose answer nobody is told. What comes while one is under way
goes with the next, so busy times take fewer of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

MOST_SENT = 4 * 1024 * 1024
"""Bytes of chunks sent at a time, about: Redis does nothing else meanwhile."""
_MOST_WAITING = 4 * MOST_SENT

# One call, because each costs the client as much as a small chunk does. Keys are heads, then
# chunks. A head only ever moves forward, whatever order processes announce it in.
_KEEP = """
local heads, ttl, at = tonumber(ARGV[1]), ARGV[2], 3
for i = 1, heads do
    local held = redis.call('get', KEYS[i])
    if not held or tonumber(string.match(held, ':(%d+):')) <= tonumber(ARGV[at + 1]) then
        redis.call('set', KEYS[i], ARGV[at], 'EX', ttl)
    end
    at = at + 2
end
for i = heads + 1, #KEYS do
    redis.call('set', KEYS[i], ARGV[at], 'EX', ARGV[at + 1])
    at = at + 2
end
"""


@dataclass(slots=True)
class Batch:
    """What goes to Redis in one call, by key: heads with their positions, chunks with their ttl.

    *size* is that of the chunks, in bytes.
    """

    heads: dict[str, tuple[str, int]] = field(default_factory=dict)
    chunks: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    size: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the batch was sent, or given up."""

    def __bool__(self) -> bool:
        return bool(self.heads or self.chunks)

    def add(self, other: Batch) -> None:
        """Take in *other*, which is newer."""
        for key, head in other.heads.items():
            if key not in self.heads or self.heads[key][1] <= head[1]:
                self.heads[key] = head
        self.chunks.update(other.chunks)
        self.size += other.size

    def has_any(self, keys: Iterable[str]) -> bool:
        return any(key in self.heads or key in self.chunks for key in keys)


class CacheWriter:
    """Sends batches, in the order in which they come; heads live for *ttl* seconds.

    *told* hears after each call what Redis said to it: None, or why it took nothing in. Then what
    was sent is given up, for it can be had again.
    """

    def __init__(self, redis: Redis, *, ttl: int, told: Callable[[Exception | None], None]) -> None:
        self._script = redis.register_script(_KEEP)
        self._ttl = ttl
        self._told = told
        self._waiting: deque[Batch] = deque()
        """The first is under way while `_task` runs."""
        self._size = 0
        self._task: asyncio.Task[None] | None = None

    async def all_sent(self) -> None:
        """Return once nothing waits to be sent."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def now(self, batch: Batch) -> None:
        """Send *batch*. Raises `RedisError`, `OSError`."""
        arguments: list[bytes | str | int] = [len(batch.heads), self._ttl]
        for head, position in batch.heads.values():
            arguments += (head, position)
        for chunk, ttl in batch.chunks.values():
            arguments += (chunk, ttl)
        await self._script(keys=[*batch.heads, *batch.chunks], args=arguments)

    def offer(self, batch: Batch) -> None:
        """Have *batch* sent, or give it up if too much is waiting already."""
        if self._waiting and self._size + batch.size > _MOST_WAITING:
            return
        last = self._waiting[-1] if len(self._waiting) > 1 else None
        if last is not None and last.size + batch.size <= MOST_SENT:
            last.add(batch)
        else:
            self._waiting.append(batch)
        self._size += batch.size
        if self._task is None:
            self._task = asyncio.create_task(self._send(), name="cache writer")
            self._task.add_done_callback(self._ended)

    async def sent(self, keys: Iterable[str]) -> None:
        """Return once nothing of *keys* waits to be sent."""
        if not self._waiting:
            return
        keys = list(keys)
        for batch in [batch for batch in self._waiting if batch.has_any(keys)]:
            await batch.over.wait()

    async def _send(self) -> None:
        while self._waiting:
            batch = self._waiting[0]
            try:
                await self.now(batch)
            except (RedisError, OSError) as error:
                self._told(error)
            else:
                self._told(None)
            self._drop_first()

    def _drop_first(self) -> None:
        batch = self._waiting.popleft()
        self._size -= batch.size
        batch.over.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("What the cache keeps could not be sent", exc_info=bug)
        while self._waiting:  # whoever waits for it must not wait for ever
            self._drop_first()
