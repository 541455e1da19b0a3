"""What the tests of the chain share."""

from __future__ import annotations

from functools import partial

import pytest
from redis.asyncio import Redis

from db.candles import CandleStore
from tests.datasources.chains import Opener, opened_chain


@pytest.fixture
def open_process(store: CandleStore, redis: Redis, redis_prefix: str) -> Opener:
    """Open a chain of its own over the shared store and Redis, as each process has one."""
    return partial(opened_chain, store=store, redis=redis, prefix=redis_prefix)
