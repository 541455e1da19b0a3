"""Connections to PostgreSQL: one bounded pool, with its timeouts and session settings stated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

_CLOSING = 5.0
"""Seconds that connections in use get to finish when the pool closes."""


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    max_size: int = 10,
    statement_timeout: float = 30.0,
    connect_timeout: float = 5.0,
    application_name: str = "bargraph",
) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool of at most *max_size* connections, opened as they are needed.

    It opens while PostgreSQL is away, so a server can start before its store. Times are seconds:
    *statement_timeout* is kept by PostgreSQL, and a little later by us for a server that hangs;
    a transaction left idle is ended after as long.
    """
    milliseconds = str(int(statement_timeout * 1000))
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        timeout=connect_timeout,
        command_timeout=statement_timeout + 5,
        server_settings={
            "application_name": application_name,
            "timezone": "UTC",
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            # Statements are short and often run: compiling them costs more than it saves.
            "jit": "off",
            # A plan kept from when a table was small would scan it once it is large.
            "plan_cache_mode": "force_custom_plan",
        },
        reset=_nothing,
    )
    async with _closing(pool):
        yield pool


@asynccontextmanager
async def _closing(pool: asyncpg.Pool) -> AsyncIterator[None]:
    await pool
    try:
        yield
    finally:
        try:
            await asyncio.wait_for(pool.close(), _CLOSING)
        except TimeoutError:
            pool.terminate()


async def _nothing(_: asyncpg.Connection) -> None:
    """Spare every release a round trip: nothing here changes a session, and asyncpg itself ends a
    transaction that was left open.
    """
