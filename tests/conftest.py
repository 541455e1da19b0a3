"""The real servers that tests talk to: the embedded pair, and external ones where they answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.accounts import Accounts
from db.accounts.engine import open_engine
from db.accounts.schema import migrate_accounts
from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers, embedded_servers
from db.encryption import KeyRing, new_key
from db.migrations import TIMESCALE, migrate, mode_of, offers_timescale
from db.pool import open_pool
from market.errors import StoreUnavailable
from tests.accounts import SERVERS, mariadb_server, scratch_mariadb
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from web.bootstrap import SQL, open_redis

pytest.register_assert_rewrite("tests.plugins.contract", "tests.plugins.stream_contract")

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("chaos", deadline=None, print_blob=True)
settings.load_profile("chaos" if os.environ.get("BARGRAPH_CHAOS") else "ci")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings."""
    folder = os.environ.get("BARGRAPH_TEST_DATA")
    if not folder:
        pytest.skip("BARGRAPH_TEST_DATA names no folder of recordings")
    return Path(folder)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """The embedded pair in a scratch directory, shared by the whole run."""
    servers = embedded_servers(tmp_path_factory.mktemp("embedded"))
    with asyncio.Runner() as runner:
        yield runner.run(servers.__aenter__())
        runner.run(servers.__aexit__(None, None, None))


@pytest.fixture(scope="session", params=["embedded", "external"])
def server_url(request: pytest.FixtureRequest) -> str:
    """A PostgreSQL server in which databases may be made.

    Tests of the store ask for `timescale` besides (tests/db/conftest.py).
    """
    if request.param == "timescale":
        return timescale_server()
    if request.param == "external":
        url = os.environ.get("TEST_POSTGRES_URL")
        if not url:
            pytest.skip("TEST_POSTGRES_URL names no PostgreSQL server")
        return url
    servers: EmbeddedServers = request.getfixturevalue("embedded")
    return servers.postgres_url


def timescale_server() -> str:
    """Return the first named server that offers TimescaleDB; skip if none does."""
    for variable in ("TIMESCALE_URL", "TEST_POSTGRES_URL"):
        url = os.environ.get(variable)
        with suppress(StoreUnavailable):
            if url and asyncio.run(offers_timescale(url)):
                return url
    pytest.skip("neither TIMESCALE_URL nor TEST_POSTGRES_URL names a server with TimescaleDB")


@contextmanager
def scratch_database(server: str, template: str = "template0") -> Iterator[str]:
    """A database of our own on *server*, gone when the tests are."""
    name = f"bargraph_test_{uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with asyncio.Runner() as runner:
        runner.run(run(f"CREATE DATABASE {name} TEMPLATE {template}"))
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            runner.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """A database without a schema."""
    with scratch_database(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def store_url(server_url: str) -> Iterator[str]:
    """A migrated database; each test keeps to series of its own."""
    with scratch_database(server_url) as url:
        asyncio.run(migrate(url, SQL))
        yield url


@pytest.fixture(scope="session")
def template_url(server_url: str) -> Iterator[str]:
    """A migrated database that nobody writes to."""
    with scratch_database(server_url) as url:
        asyncio.run(migrate(url, SQL))
        yield url


@pytest.fixture
def fresh_store_url(server_url: str, template_url: str) -> Iterator[str]:
    """A migrated database without any series."""
    if asyncio.run(mode_of(template_url)) == TIMESCALE:
        # TimescaleDB's own processes are connected to it, so it cannot be a template.
        with scratch_database(server_url) as url:
            asyncio.run(migrate(url, SQL))
            yield url
        return
    with scratch_database(server_url, urlsplit(template_url).path[1:]) as url:
        yield url


@pytest.fixture
async def pool(store_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(store_url) as pool:
        yield pool


@pytest.fixture
def store(pool: asyncpg.Pool) -> CandleStore:
    return CandleStore(pool)


@pytest.fixture(scope="session", params=["embedded", "external"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """A Redis server; tests keep to keys under `redis_prefix`."""
    if request.param == "external":
        url = os.environ.get("TEST_REDIS_URL")
        if not url:
            pytest.skip("TEST_REDIS_URL names no Redis server")
        return url
    servers: EmbeddedServers = request.getfixturevalue("embedded")
    return servers.redis_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url, 20) as redis:
        yield redis


@pytest.fixture
async def redis_prefix(redis: Redis) -> AsyncIterator[str]:
    """A prefix nobody else has; its keys are deleted after the test."""
    prefix = f"bargraph-test-{uuid4().hex}:"
    yield prefix
    async for key in redis.scan_iter(f"{prefix}*", count=1000):
        await redis.delete(key)


@pytest.fixture
async def redis_proxy(embedded: EmbeddedServers, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    """A way to the embedded Redis that a test can cut."""
    async with cutting_proxy(embedded.redis_url, tmp_path / "redis.sock") as proxy:
        yield proxy


@contextmanager
def scratch_accounts(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without accounts yet on *server*, one of `SERVERS`."""
    if server == "mariadb":
        with scratch_mariadb(mariadb_server()) as url:
            yield url
        return
    url = os.environ.get("TEST_POSTGRES_URL")
    if server == "embedded":
        servers: EmbeddedServers = request.getfixturevalue("embedded")
        url = servers.postgres_url
    if not url:
        pytest.skip("TEST_POSTGRES_URL names no PostgreSQL server")
    with scratch_database(url) as own:
        yield own


@pytest.fixture(params=SERVERS)
def empty_accounts_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without the tables of accounts."""
    with scratch_accounts(request.param, request) as url:
        yield url


@contextmanager
def migrated_accounts(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with the tables of accounts on *server*, one of `SERVERS`."""

    async def migrated(url: str) -> None:
        async with open_engine(url) as engine:
            await migrate_accounts(engine)

    with scratch_accounts(server, request) as url:
        asyncio.run(migrated(url))
        yield url


@pytest.fixture(scope="session", params=SERVERS)
def accounts_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database of accounts; each test keeps to users of its own."""
    with migrated_accounts(request.param, request) as url:
        yield url


@pytest.fixture
async def accounts_engine(accounts_url: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(accounts_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def ring() -> KeyRing:
    """Keys that everything encrypted in the tests' databases is under."""
    return KeyRing([new_key()])


@pytest.fixture
def accounts(accounts_engine: AsyncEngine, ring: KeyRing) -> Accounts:
    return Accounts(accounts_engine, ring)
