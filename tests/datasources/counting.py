"""Count what reaches the servers: SQL statements, and round trips to Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import UnixDomainSocketConnection

from db.pool import open_pool


@asynccontextmanager
async def counted_pool(url: str) -> AsyncIterator[tuple[asyncpg.Pool, list[str]]]:
    """Yield a pool of one connection, and the statements it has been sent so far.

    What asyncpg sends by itself, whenever a connection goes back to the pool, is left out.
    """
    seen: list[str] = []

    def note(record: asyncpg.connection.LoggedQuery) -> None:
        if not record.query.startswith("SELECT pg_advisory_unlock_all()"):
            seen.append(record.query)

    async with open_pool(url, max_size=1) as pool:
        async with pool.acquire() as connection:
            connection.add_query_logger(note)
        yield pool, seen


class CountedConnection(UnixDomainSocketConnection):
    """A connection to an embedded Redis that notes what is sent, one entry a round trip."""

    def __init__(self, *, sent: list[int], **options: Any) -> None:
        super().__init__(**options)
        self._sent = sent

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        # Whatever is sent in one piece, a whole pipeline too, is answered in one.
        self._sent.append(len(command))
        await super().send_packed_command(command, check_health)


@asynccontextmanager
async def counted_redis(url: str) -> AsyncIterator[tuple[Redis, list[int]]]:
    """Yield a client of the embedded server at *url*, and its round trips so far."""
    sent: list[int] = []
    pool = BlockingConnectionPool(
        connection_class=CountedConnection,
        path=url.removeprefix("unix://").partition("?")[0],
        sent=sent,
        protocol=3,
    )
    async with Redis.from_pool(pool) as redis:
        yield redis, sent
