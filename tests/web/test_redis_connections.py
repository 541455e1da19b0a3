"""A task that is cancelled while it speaks to Redis ends."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis


async def test_a_cancelled_call_does_not_go_on(redis: Redis):
    went_on = 0

    async def call() -> None:
        nonlocal went_on
        await redis.get("nothing")
        # Nothing is waited for between the answer and this line.
        if asyncio.current_task().cancelling():
            went_on += 1

    for pauses in range(300):
        task = asyncio.create_task(call())
        for _ in range(pauses % 12):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert went_on == 0
