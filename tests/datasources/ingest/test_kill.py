"""The process that stores trades is killed again and again: each trade once, each bar exact."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import numpy as np

from datasources.ingest.entry import chained, packed
from datasources.ingest.stream import TradeStream
from db.candles import CandleStore
from db.raw_trades import Telling
from db.stored import SeriesKey
from db.told import US
from market.trades import Trades
from market.window import MINUTE, Window
from tests.datasources.chains import on_each
from tests.datasources.ingest.stage import eventually
from tests.db.minutes import AROUND, T0, assert_views_exact, fresh_key, stored
from tests.db.trades import LATE

pytestmark = on_each

SERIES, EACH = 5, 40_000
DEATHS = 50 if os.environ.get("BARGRAPH_CHAOS") else 3
PATIENCE = 120.0
"""Seconds; what was given out often is stored one by one."""
A_BATCH = 150 if DEATHS == 3 else 20
"""Trades told at a time; the more deaths, the more entries there must be to die over."""


@dataclass(frozen=True)
class Made:
    """All trades of one series, and the time through which they are told."""

    key: SeriesKey
    trades: Trades
    until: int


def made_up(rng: np.random.Generator) -> Made:
    """Return about 100 minutes of trades, many of which share a millisecond."""
    times = T0 + np.sort(rng.integers(0, 100 * MINUTE, EACH))
    prices = (20_000 + rng.normal(size=EACH).cumsum()).round(2)
    ids = np.array([str(n + 9_990_000).encode() for n in range(EACH)])
    amounts = rng.random(EACH).round(5)
    trades = Trades(times, prices, amounts, ids)
    return Made(fresh_key(), trades, T0 + 100 * MINUTE + LATE)


def entries(made: Made, rng: np.random.Generator) -> list[bytes]:
    """Return how the trades are told: in batches, some late, some twice."""
    trades = made.trades
    late = rng.random(EACH) < 0.02
    batch = np.arange(EACH) // A_BATCH + np.where(late, rng.integers(1, 30, EACH), 0)
    count = -(-EACH // A_BATCH)
    batch = np.minimum(batch, count - 1)
    ends = [int(trades.time[min((n + 1) * A_BATCH, EACH) - 1]) * US + n for n in range(count)]
    ends[-1] = made.until * US
    payloads: list[bytes] = []
    since = T0 * US
    for n, until in enumerate(ends):
        own = batch == n
        some = Trades(trades.time[own], trades.price[own], trades.amount[own], trades.id[own])
        telling = Telling(made.key, AROUND, some, Window(since, until))
        payloads += [packed(part) for part in chained(telling)] * (2 if rng.random() < 0.05 else 1)
        since = until
    return payloads


async def test_a_killed_writer_loses_nothing_and_repeats_nothing(
    store: CandleStore,
    pool: asyncpg.Pool,
    stream: TradeStream,
    store_url: str,
    redis_url: str,
    redis_prefix: str,
) -> None:
    rng = np.random.default_rng(5)
    all_made = [made_up(rng) for _ in range(SERIES)]
    told = [entries(made, rng) for made in all_made]
    # Series take turns; within a series the order stays.
    order = [n for n, payloads in enumerate(told) for _ in payloads]
    random.Random(5).shuffle(order)
    waiting = [iter(payloads) for payloads in told]
    payloads = [next(waiting[n]) for n in order]
    portion = -(-len(payloads) // (DEATHS + 1))

    @asynccontextmanager
    async def child(name: str) -> AsyncIterator[None]:
        """Run a writer inside the block; at its end it is killed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.datasources.ingest.child"),
            *(store_url, redis_url, redis_prefix, name),
        )
        try:
            yield
        finally:
            process.kill()
            await process.wait()

    async def left(most: int) -> bool:
        return (await stream.lag()).entries <= most

    over_work = 0
    for n in range(0, len(payloads), 200):
        assert await stream.add(payloads[n : n + 200]) == len(payloads[n : n + 200])
    for death in range(DEATHS):
        # Each dies when it has stored a little, so that all of them have work to do.
        goal = max(0, (await stream.lag()).entries - portion // 4)
        async with child(f"child-{death}"):
            await eventually(lambda goal=goal: left(goal), "some stored", patience=PATIENCE)
        over_work += not await left(0)
    async with child("last"):
        await eventually(lambda: left(0), "the rest", patience=PATIENCE)

    assert over_work > DEATHS / 2
    assert (await stream.lag()).dead == 0
    for made in all_made:
        await assert_each_once(pool, made)
        assert_exact(await stored(store, made.key), made.trades)
        await assert_views_exact(pool, made.key)


async def assert_each_once(pool: asyncpg.Pool, made: Made) -> None:
    """Every trade is stored, and none twice."""
    rows = await pool.fetch(
        """
        SELECT trade_id, (extract(epoch FROM r."timestamp") * 1000)::bigint AS time, price, amount
        FROM raw_trades r JOIN series s ON s.id = r.series_id WHERE s.symbol = $1
        """,
        made.key.listing.symbol,
    )
    trades = made.trades
    columns = (trades.id.astype(str), trades.time, trades.price, trades.amount)
    expected = list(zip(*(column.tolist() for column in columns), strict=True))
    assert sorted(map(tuple, rows)) == sorted(expected)


def assert_exact(bars, trades: Trades) -> None:
    """Each minute equals its trades recomputed with numpy, in order of time and number."""
    order = np.lexsort((trades.id.astype(np.int64), trades.time))
    minute = trades.time[order] // MINUTE * MINUTE
    price, amount = trades.price[order], trades.amount[order]
    opens, first, count = np.unique(minute, return_index=True, return_counts=True)
    volume = np.add.reduceat(amount, first)
    np.testing.assert_array_equal(bars.time, opens)
    np.testing.assert_array_equal(bars.open, price[first])
    np.testing.assert_array_equal(bars.close, price[first + count - 1])
    np.testing.assert_array_equal(bars.high, np.maximum.reduceat(price, first))
    np.testing.assert_array_equal(bars.low, np.minimum.reduceat(price, first))
    np.testing.assert_array_equal(bars.trades, count)
    np.testing.assert_allclose(bars.volume, volume, rtol=1e-12)
    vwap = np.add.reduceat(price * amount, first) / volume
    np.testing.assert_allclose(bars.vwap, vwap, rtol=1e-12)
