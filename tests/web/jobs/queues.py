"""Queues that tests run, with pauses short enough to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from redis.asyncio import Redis

from web.jobs.backoff import Backoff
from web.jobs.dead_letters import DeadLetter
from web.jobs.engine import JobQueue

AT_ONCE = Backoff(first_ms=1, most_ms=1)


def queue_of(
    redis: Redis, prefix: str, *, idle: float = 60.0, backoff: Backoff = AT_ONCE
) -> JobQueue:
    """Return a queue as a process of its own has it."""
    return JobQueue(redis, prefix=prefix, worker=uuid4().hex, idle=idle, backoff=backoff)


@asynccontextmanager
async def working(*queues: JobQueue) -> AsyncIterator[None]:
    """Let *queues* run jobs inside; at the end they are told to stop as a server does."""
    tasks = [asyncio.create_task(queue.run()) for queue in queues]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def dead(queue: JobQueue) -> list[DeadLetter]:
    """Wait for a dead letter, and return all."""
    async with asyncio.timeout(30):
        while not (letters := await queue.dead_letters.listed()):
            await asyncio.sleep(0.02)
    return letters
