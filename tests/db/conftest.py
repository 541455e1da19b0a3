"""A database of our own on the server that `TEST_POSTGRES_URL` names, gone when the tests are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from db.candles import CandleStore
from db.migrations import migrate
from db.pool import open_pool

SQL = Path(__file__).parents[2] / "sql"


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"bargraph_test_{uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name}"))
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def server_url() -> str:
    url = os.environ.get("TEST_POSTGRES_URL")
    if not url:
        pytest.skip("TEST_POSTGRES_URL names no PostgreSQL server")
    return url


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """A database without a schema."""
    with _database(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def store_url(server_url: str) -> Iterator[str]:
    """A migrated database; each test keeps to series of its own."""
    with _database(server_url) as url:
        asyncio.run(migrate(url, SQL))
        yield url


@pytest.fixture
async def pool(store_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(store_url) as pool:
        yield pool


@pytest.fixture
def store(pool: asyncpg.Pool) -> CandleStore:
    return CandleStore(pool)
