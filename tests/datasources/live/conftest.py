"""What the tests of live bars share."""

from __future__ import annotations

from functools import partial

import pytest
from redis.asyncio import Redis

from db.candles import CandleStore
from tests.datasources.live.processes import ProcessOpener, opened_process


@pytest.fixture
def open_process(store: CandleStore, redis: Redis, redis_prefix: str) -> ProcessOpener:
    """Open processes over the shared store and Redis."""
    return partial(opened_process, store=store, redis=redis, prefix=redis_prefix)
