"""What the tests of ingestion share."""

from __future__ import annotations

from functools import partial

import pytest
from redis.asyncio import Redis

from datasources.ingest.stream import TradeStream
from db.candles import CandleStore
from tests.datasources.ingest.stage import StageOpener, opened_stage
from tests.datasources.live.processes import ProcessOpener, opened_process


@pytest.fixture
def open_stage(store: CandleStore, redis: Redis, redis_prefix: str) -> StageOpener:
    """Open processes that ingest, over the shared store and Redis."""
    return partial(opened_stage, store=store, redis=redis, prefix=redis_prefix)


@pytest.fixture
def stream(redis: Redis, redis_prefix: str) -> TradeStream:
    return TradeStream(redis, prefix=redis_prefix)


@pytest.fixture
def open_process(store: CandleStore, redis: Redis, redis_prefix: str) -> ProcessOpener:
    """Open processes that feed viewers, over the shared store and Redis."""
    return partial(opened_process, store=store, redis=redis, prefix=redis_prefix)
