"""One lane of jobs in Redis: a stream with a consumer group, and a sorted set of later tries."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from web.jobs import scripts
from web.jobs.errors import JobsFull
from web.jobs.keys import dead_key, later_key, ready_key

MOST_WAITING = 10_000
MOST_DEAD = 1_000
_KEY_MS = 3_600_000
"""How long the key of a job outlives the last sign of it: a beat, a try, or being put again."""
_WAIT_MS = 1_000
"""Less than a call may take; a later try and what the dead left are found after it at most."""
_MOST_GIVEN_BACK = 1_000
_GIVEN_BACK_MS = 1_000_000_000
"""What is given back looks as if nobody had spoken of it for days."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job as it was delivered: for the how-manieth time, and how often it failed before."""

    id: str
    message: bytes
    failures: int
    deliveries: int


class JobStream:
    """The lane *name* as *consumer*, a name no other process has, uses it.

    What a consumer took and did not speak of for *idle_ms* may be taken by another.
    All methods raise `RedisError` or `OSError` while Redis is away.
    """

    def __init__(
        self, redis: Redis, name: str, *, prefix: str, consumer: str, idle_ms: int
    ) -> None:
        self.name = name
        self._redis = redis
        self._consumer = consumer
        self._idle_ms = idle_ms
        self._ready = ready_key(prefix, name)
        self._later = later_key(prefix, name)
        self._dead = dead_key(prefix)
        self._put = redis.register_script(scripts.PUT)
        self._take = redis.register_script(scripts.TAKE)
        self._beat = redis.register_script(scripts.BEAT)
        self._done = redis.register_script(scripts.DONE)
        self._retry = redis.register_script(scripts.RETRY)
        self._bury = redis.register_script(scripts.BURY)
        self._give_back = redis.register_script(scripts.GIVE_BACK)
        self._forget = redis.register_script(scripts.FORGET)

    async def put(self, message: bytes, *, id: str, key: str | None) -> bool:
        """Queue *message*, unless an unfinished job has *key*. Raises `JobsFull`."""
        put = await self._put(
            keys=[self._ready, self._later, *_present(key)],
            args=[id, _KEY_MS, MOST_WAITING, b"0:" + message],
        )
        if put < 0:
            raise JobsFull(self.name, MOST_WAITING)
        return bool(put)

    async def take(self, *, claims: bool) -> Taken | None:
        """Return the next job, waiting a second for one; with *claims* also what the dead left."""
        args: list[str | int] = [self._consumer, self._idle_ms, int(claims)]
        if taken := await self._take(keys=[self._ready, self._later], args=args):
            return _taken(*taken)
        read: Any = await self._redis.xreadgroup(
            scripts.GROUP, self._consumer, {self._ready: ">"}, count=1, block=_WAIT_MS
        )
        for entries in (read or {}).values():
            for [(entry, fields)] in entries:
                return _taken(entry, fields[b"job"], 1)
        return None

    async def beat(self, ids: Collection[str], *, keys: Collection[str]) -> set[str]:
        """Say that the deliveries *ids* run; return those that are another's by now."""
        if not ids:
            return set()
        lost = await self._beat(keys=[self._ready, *keys], args=[self._consumer, _KEY_MS, *ids])
        return {each.decode() for each in lost}

    async def done(self, id: str, *, job: str, key: str | None) -> None:
        """End the delivery *id*, and the *job* with it."""
        await self._done(keys=[self._ready, *_present(key)], args=[self._consumer, id, job])

    async def retry(self, taken: Taken, *, failures: int, after_ms: int, key: str | None) -> None:
        """End the delivery; the job is due again after *after_ms*."""
        again = b"%d:%s" % (failures, taken.message)
        await self._retry(
            keys=[self._ready, self._later, *_present(key)],
            args=[self._consumer, taken.id, after_ms, again, _KEY_MS],
        )

    async def bury(
        self, id: str, *, job: str, key: str | None, letter: Mapping[str, str | bytes | int]
    ) -> bool:
        """End the delivery *id* and keep *letter*; return whether the oldest one made room."""
        fields = [part for pair in letter.items() for part in pair]
        buried = await self._bury(
            keys=[self._ready, self._dead, *_present(key)],
            args=[self._consumer, id, job, MOST_DEAD, *fields],
        )
        return bool(buried == 2)

    async def give_back(self) -> int:
        """Let others take at once all that was delivered here; return how many jobs that is."""
        args: list[str | int] = [self._consumer, _MOST_GIVEN_BACK, _GIVEN_BACK_MS]
        return int(await self._give_back(keys=[self._ready], args=args))

    async def forget(self, consumer: str) -> bool:
        """Remove *consumer* from the group; return False while it still has jobs."""
        return bool(await self._forget(keys=[self._ready], args=[consumer]))

    async def depth(self) -> tuple[int, int]:
        """Return how many jobs are ready or run, and how many wait for another try."""
        return await self._redis.xlen(self._ready), await self._redis.zcard(self._later)


def _present(key: str | None) -> tuple[str, ...]:
    return () if key is None else (key,)


def _taken(id: bytes, job: bytes, deliveries: int) -> Taken:
    failures, _, message = job.partition(b":")
    return Taken(id.decode(), message, int(failures), deliveries)
