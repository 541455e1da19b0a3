"""A watchlist costs as many statements and round trips as one chart."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from datasources.found import Answer
from db.candles import CandleStore
from market.clock import FixedClock
from market.window import HOUR
from tests.datasources.chains import NOW, Opener, on_embedded, opened_chain
from tests.datasources.counting import counted_pool, counted_redis
from tests.datasources.recount import assert_says, bars_of
from tests.fakes import FakeProvider, Market, days_before, minutes_between

pytestmark = on_embedded

LISTED = days_before(NOW, 5)


def watched(count: int, *, whole: bool) -> FakeProvider:
    """Listings that trade every third minute."""
    run = uuid4().hex
    market = Market.of(minutes_between(LISTED, NOW, every=3))
    markets = {f"{run}-{n}": market for n in range(count)}
    return FakeProvider(
        FixedClock(NOW), markets, offered_from=LISTED, page_limit=15_000, whole=whole
    )


@pytest.mark.parametrize("timeframe", ["1h", "5m"])
@pytest.mark.parametrize(
    ("until", "whole"),
    [
        pytest.param(NOW // HOUR * HOUR, False, id="closed bars of a provider over a network"),
        pytest.param(None, True, id="up to now, of a provider at hand"),
    ],
)
async def test_fifty_symbols_from_a_full_store_and_an_empty_cache_take_three_statements(
    open_process: Opener,
    redis_prefix: str,
    store_url: str,
    redis_url: str,
    timeframe: str,
    until: int | None,
    whole: bool,
) -> None:
    provider = watched(51, whole=whole)
    *watchlist, warm_up = provider.markets
    async with open_process(provider) as filler:
        await filler.chain.answer(
            [filler.request(timeframe, symbol=s, last=100) for s in provider.markets]
        )
        await filler.flush()
    async with (
        counted_pool(store_url) as (pool, statements),
        counted_redis(redis_url) as (counted, round_trips),
        opened_chain(provider, CandleStore(pool), counted, redis_prefix) as opened,
    ):
        # The first request of a process opens connections and learns what views there are.
        await opened.get(timeframe, symbol=warm_up, until=until, last=100)
        await asyncio.sleep(0)  # asyncpg's log comes a turn of the loop late
        statements.clear()
        round_trips.clear()

        answers = await opened.chain.answer(
            [opened.request(timeframe, symbol=s, until=until, last=100) for s in watchlist]
        )
        await opened.cache.sent()
        await asyncio.sleep(0)

    rows = provider.markets[warm_up].seen_at(NOW)
    expected = bars_of(rows, timeframe, "UTC", now=NOW, minutes_from=LISTED)
    expected = [bar for bar in expected if until is None or bar.time < until]
    for answer in answers:
        assert isinstance(answer, Answer), answer
        assert_says(answer, expected[-100:])
        assert answer.has_earlier
    assert 1 <= len(statements) <= 3
    assert 1 <= len(round_trips) <= 2


async def test_fifty_symbols_from_a_warm_cache_take_one_round_trip_and_no_statement(
    redis_prefix: str, store_url: str, redis_url: str
) -> None:
    provider = watched(50, whole=False)
    async with (
        counted_pool(store_url) as (pool, statements),
        counted_redis(redis_url) as (counted, round_trips),
        opened_chain(provider, CandleStore(pool), counted, redis_prefix) as opened,
    ):
        requests = [opened.request("1h", symbol=symbol, last=90) for symbol in provider.markets]
        before = await opened.chain.answer(requests)
        await opened.cache.sent()
        await asyncio.sleep(0)
        statements.clear()
        round_trips.clear()
        calls = len(provider.calls)

        after = await opened.chain.answer(requests)
        await asyncio.sleep(0)

    assert [a.bars for a in after if isinstance(a, Answer)] == [
        a.bars for a in before if isinstance(a, Answer)
    ]
    assert statements == []
    assert len(round_trips) == 1
    assert len(provider.calls) == calls


async def test_with_no_room_in_the_process_answers_are_kept_in_redis_all_the_same(
    redis_prefix: str, store_url: str, redis_url: str
) -> None:
    provider = watched(1, whole=False)
    day = {"since": NOW - 25 * HOUR, "until": NOW - HOUR}
    async with (
        counted_pool(store_url) as (pool, statements),
        counted_redis(redis_url) as (counted, round_trips),
        opened_chain(provider, CandleStore(pool), counted, redis_prefix, cache_bytes=0) as opened,
    ):
        before = await opened.get("1m", **day)
        await asyncio.sleep(0)
        statements.clear()
        round_trips.clear()

        after = await opened.get("1m", **day)
        await asyncio.sleep(0)

        assert opened.cache.held_bytes == 0
    assert after.bars == before.bars
    assert statements == []
    assert len(round_trips) == 1
