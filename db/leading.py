"""A connection for work that one process does for all: whoever holds the lock leads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from db.errors import store_failures

_CONNECT = 10.0


@asynccontextmanager
async def leading(
    dsn: str, lock: int, *, application_name: str, statement: float, lock_wait: float = 0
) -> AsyncIterator[asyncpg.Connection | None]:
    """Yield a connection that holds the advisory *lock*; None if another one does.

    *statement* and *lock_wait* are the seconds a statement may take and wait for a lock; 0: no end.
    """
    with store_failures():
        connection = await asyncpg.connect(
            dsn,
            timeout=_CONNECT,
            command_timeout=statement,
            server_settings={
                "application_name": application_name,
                "timezone": "UTC",
                "statement_timeout": str(int(statement * 1000)),
                "lock_timeout": str(int(lock_wait * 1000)),
                # That an aggregate is up to date is no news.
                "client_min_messages": "warning",
                "jit": "off",
            },
        )
        try:
            locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock)
            yield connection if locked else None
        finally:
            # The lock goes with the session.
            await connection.close(timeout=_CONNECT)
