"""What the tests of backfills share."""

from __future__ import annotations

from functools import partial

import asyncpg
import pytest
from redis.asyncio import Redis

from db.candles import CandleStore
from tests.datasources.backfill.stage import StageOpener, opened_stage


@pytest.fixture
def open_stage(
    store: CandleStore, pool: asyncpg.Pool, redis: Redis, redis_prefix: str
) -> StageOpener:
    """Open the backfills of one process over the shared store and Redis."""
    return partial(opened_stage, store=store, pool=pool, redis=redis, prefix=redis_prefix)
