"""A task that is cancelled while it speaks to Redis ends; a connection that was closed says so."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from db.embedded.servers import EmbeddedServers
from tests.cutting_proxy import CuttingProxy
from web.bootstrap import open_redis

LONG = b"x" * (1 << 20)
"""More than the sockets on the way hold."""


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
        await pause(pauses % 12)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert went_on == 0


async def test_a_cancelled_call_whose_connection_breaks_does_not_go_on(
    redis_proxy: CuttingProxy,
):
    went_on = 0

    async def call(redis: Redis) -> None:
        nonlocal went_on
        try:
            await redis.echo(LONG)
        except RedisError:
            if asyncio.current_task().cancelling():
                went_on += 1

    async with open_redis(redis_proxy.url, 1) as redis:
        for pauses in range(24):
            await redis.ping()
            redis_proxy.stall()
            task = asyncio.create_task(call(redis))
            await pause(20)  # until it waits for room to send the rest
            breaking = asyncio.create_task(redis_proxy.shut())
            await pause(pauses % 12)
            task.cancel()
            await asyncio.gather(task, breaking, return_exceptions=True)
            redis_proxy.flow()
            await redis_proxy.open()

    assert went_on == 0


async def pause(times: int) -> None:
    """Let all others run that can, as often as that."""
    for _ in range(times):
        await asyncio.sleep(0)


def test_to_speak_on_a_connection_that_just_ended_is_to_find_redis_away(embedded: EmbeddedServers):
    async def speak() -> None:
        async with open_redis(embedded.redis_url, 1) as redis:
            connection = await redis.connection_pool.get_connection()
            connection._writer.transport.abort()

            with pytest.raises(RedisError):
                await connection.send_command("PING")

            await redis.connection_pool.release(connection)
            assert await redis.ping()

    uvloop.run(speak())
