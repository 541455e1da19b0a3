"""What the tests of live bars share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from db.candles import CandleStore
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.datasources.live.processes import ProcessOpener, opened_process


@pytest.fixture
def open_process(store: CandleStore, redis: Redis, redis_prefix: str) -> ProcessOpener:
    """Open processes over the shared store and Redis."""
    return partial(opened_process, store=store, redis=redis, prefix=redis_prefix)


@pytest.fixture
async def redis_proxy(redis_url: str, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    """A way to Redis that a test can cut."""
    async with cutting_proxy(redis_url, tmp_path / "redis.sock") as proxy:
        yield proxy
