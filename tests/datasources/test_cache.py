"""What the cache keeps is given for as long as nothing says that it changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from datasources.cache import Cache
from datasources.found import Base, Found, Head, Want
from datasources.meter import NoMeter
from market.bars import CLOSED, Bars
from market.instrument import Instrument, InstrumentType, Listing, Series
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Spans

SETTLED = Spans.of(0, 3 * MINUTE)


@pytest.fixture
async def cache(redis: Redis, redis_prefix: str) -> AsyncIterator[Cache]:
    cache = Cache(redis, prefix=redis_prefix, meter=NoMeter(), forming_ttl=1000)
    yield cache
    await cache.sent()


def wanted() -> Want:
    symbol = uuid4().hex
    series = Series(Listing("fake", "crypto", symbol), MINUTE_FRAME)
    instrument = Instrument("fake", "crypto", symbol, InstrumentType.SPOT)
    return Want(series, instrument, (base_of(series),), SETTLED, now=10 * MINUTE)


def base_of(series: Series) -> Base:
    return Base(series.listing, MINUTE_FRAME, native=False)


def bars(revision: int) -> Bars:
    one = [1.0] * 3
    times = [0, MINUTE, 2 * MINUTE]
    return Bars.of(times, one, one, one, one, one, revision=revision, flags=CLOSED)


async def test_what_was_kept_before_the_store_had_it_is_void_once_it_has(cache: Cache) -> None:
    want = wanted()
    cache.keep([want], [Found(bars(0), SETTLED, SETTLED)])
    (before,) = await cache.fetch([want])

    await cache.moved({want.bases[0]: Head(1, 1, 1)})

    (after,) = await cache.fetch([want])
    assert before.fresh == SETTLED
    assert not after.fresh


async def test_what_the_store_has_is_given_until_its_generation_moves(cache: Cache) -> None:
    want = wanted()
    base = want.bases[0]
    cache.keep([want], [Found(bars(1), SETTLED, SETTLED, heads={base: Head(1, 1, 1)})])
    (before,) = await cache.fetch([want])

    await cache.moved({base: Head(1, 2, 2)})

    (after,) = await cache.fetch([want])
    assert before.fresh == SETTLED
    assert not after.fresh
