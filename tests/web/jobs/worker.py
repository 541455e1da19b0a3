"""A process that runs jobs and writes into Redis what it does, for tests that kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.web.jobs.queues import AT_ONCE
from web.bootstrap import open_redis
from web.jobs.engine import JOB_CONNECTIONS, LONG, JobQueue


async def main(url: str, prefix: str, idle: float) -> None:
    async with open_redis(url, JOB_CONNECTIONS) as redis:
        queue = JobQueue(
            redis, prefix=prefix, worker=f"worker-{os.getpid()}", idle=idle, backoff=AT_ONCE
        )

        async def note(number: int) -> None:
            await asyncio.sleep(0.005)
            await redis.sadd(f"{prefix}noted", number)

        async def wait() -> None:
            """Say who runs it, and end once the test says so."""
            await redis.rpush(f"{prefix}started", os.getpid())
            while not await redis.exists(f"{prefix}released"):
                await asyncio.sleep(0.02)
            await redis.rpush(f"{prefix}finished", os.getpid())

        queue.task("note", note)
        queue.task("wait", wait, lane=LONG, tries=2)
        await queue.run()


if __name__ == "__main__":
    # Whoever runs the tests in the background may have it ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
