"""Jobs that were given up: list them, give them another chance, or drop them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from web.jobs.keys import dead_key, unfinished_key
from web.jobs.message import parsed
from web.jobs.stream import JobStream


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up at *at* (ms), for the code or exception *reason*.

    *arguments* are those of the job; None if its message cannot be read.
    """

    id: str
    at: int
    job: str
    task: str
    lane: str
    reason: str
    failures: int
    arguments: Mapping[str, Any] | None
    message: bytes


class DeadLetters:
    """The dead letters of a server, a thousand at the most: a new one makes the oldest go."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._key = dead_key(prefix)

    async def listed(self) -> list[DeadLetter]:
        """Return all of them, the newest first."""
        found: Any = await self._redis.xrevrange(self._key)
        return [_letter(*entry) for entry in found]

    async def find(self, id: str) -> DeadLetter | None:
        found: Any = await self._redis.xrange(self._key, id, id)
        return _letter(*found[0]) if found else None

    async def replay(self, letter: DeadLetter) -> bool:
        """Queue the job again with all its tries, and drop the letter.

        Returns False if an unfinished job has its key: that one does the work, and the letter goes
        too. Raises `JobsFull`.
        """
        stream = JobStream(self._redis, letter.lane, prefix=self._prefix, consumer="", idle_ms=0)
        message = parsed(letter.message)
        key = message.labels.get("key") if message is not None else None
        noted = None if key is None else unfinished_key(self._prefix, letter.task, key)
        queued = await stream.put(letter.message, id=letter.job, key=noted)
        await self.drop(letter)
        return queued

    async def drop(self, letter: DeadLetter) -> None:
        await self._redis.xdel(self._key, letter.id)

    async def count(self) -> int:
        return int(await self._redis.xlen(self._key))


def _letter(id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    entry = id.decode()
    message = parsed(fields[b"message"])
    return DeadLetter(
        id=entry,
        at=int(entry.partition("-")[0]),
        job=fields[b"job"].decode(),
        task=fields[b"task"].decode(),
        lane=fields[b"lane"].decode(),
        reason=fields[b"reason"].decode(),
        failures=int(fields[b"failures"]),
        arguments=None if message is None else message.kwargs,
        message=fields[b"message"],
    )
