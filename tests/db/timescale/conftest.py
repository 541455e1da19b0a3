"""A store of its own for each parity test, on each server."""

from collections.abc import AsyncIterator

import pytest

from db.pool import open_pool
from tests.db.timescale.kept import Kept, kept

on_timescale = pytest.mark.parametrize("server_url", ["timescale"], indirect=True, scope="session")


@pytest.fixture
async def own(fresh_store_url: str) -> AsyncIterator[Kept]:
    async with open_pool(fresh_store_url) as pool:
        yield await kept(fresh_store_url, pool)
