"""What tests of the whole server share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from db.embedded.servers import EmbeddedServers
from tests.conftest import scratch_database
from tests.web.doors import Door, opened
from web.limits.leases import RateLimits
from web.persisted import PersistedQueries


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis on a slow machine too, instead of going on without it."""
    for waits in (RateLimits, PersistedQueries):
        monkeypatch.setitem(waits.__init__.__kwdefaults__, "patience", 30.0)


@pytest.fixture(scope="module")
def door_url(embedded: EmbeddedServers) -> Iterator[str]:
    """The database of a module's servers, candles and accounts together."""
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(embedded: EmbeddedServers, door_url: str) -> AsyncIterator[Door]:
    """A server as it is by default, over HTTP and WebSocket."""
    async with opened(embedded, door_url) as door:
        yield door
