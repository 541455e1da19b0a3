"""Connections to Redis that end when they are told to, and say so when they were ended.

redis-py sends under `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that comes in
the same moment as the end of what it waits for, be that success or failure. The task then goes on
as if nobody had told it. And uvloop refuses to write to a connection that just ended with a plain
`RuntimeError`, which redis-py passes on: nobody would take that for Redis being away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionEnded


def redis_client(url: str, *, connections: int, seconds: float) -> Redis:
    """Return a client over a bounded pool. It connects when it is used.

    A call takes *seconds* at the most, waiting for a free connection included, and is tried twice.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 1),
        protocol=3,
    )
    pool.connection_class = _cancellable(pool.connection_class)
    return Redis.from_pool(pool)


def _cancellable(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    class Cancellable(connection):  # type: ignore[misc, valid-type]  # its class depends on the URL
        async def send_packed_command(
            self, command: bytes | str | Iterable[bytes], check_health: bool = True
        ) -> Any:
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            try:
                return await super().send_packed_command(command, check_health)
            except RuntimeError as error:
                if "closed" not in str(error):
                    raise
                raise ConnectionEnded("the connection was closed") from error
            finally:
                if task is not None and task.cancelling() > before:
                    # The answer to what was sent will never be read on this connection. Where it
                    # broke instead, that must not be taken for the end of the call either.
                    await self.disconnect(nowait=True)
                    raise asyncio.CancelledError

    return Cancellable
