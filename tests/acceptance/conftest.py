"""The server as a new user starts it over the real recordings, its clock standing at their end."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from db.embedded.servers import EmbeddedServers
from tests.api import Api, served, settings_over
from tests.conftest import scratch_database


@pytest.fixture(scope="module")
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(recordings: Path, embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Api]:
    settings = settings_over(embedded, database_url, replay_dir=recordings, replay_speed=0)
    async with served(settings) as api:
        yield api
