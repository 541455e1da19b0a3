"""What reading costs: the chain, cold and warm, beside SQL written by hand for the same bars."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TypeVar

import asyncpg
from redis.asyncio import Redis

from benchmarks.store.listed import Listed
from benchmarks.store.made import END, PROVIDER, START, Scale
from datasources.found import Answer, Request
from datasources.health import HealthBoard
from datasources.meter import NoMeter
from db.candles import CandleStore
from market.clock import FixedClock
from market.instrument import Series
from market.timeframe import Timeframe
from market.window import DAY
from plugins.registry import Entry, Registry
from web.bootstrap import open_chain
from web.live_wiring import Links
from web.settings import load_settings

T = TypeVar("T")

_NOW = END + DAY
_TURNS = 15
_ROLLUPS = {
    "1h": "(SELECT * FROM rollup WHERE level = 4)",
    "1d": "(SELECT * FROM rollup WHERE level = 6)",
}
_AGGREGATES = {"1h": "rollup_1h", "1d": "rollup_1d"}
"""The same with TimescaleDB, where `rollup` is a view of all continuous aggregates together."""
_BY_HAND = """
    SELECT "timestamp", open, high, low, close, volume FROM {relation} b
    WHERE series_id = (SELECT id FROM series WHERE provider = $1 AND symbol = {symbol}
                       AND market = 'crypto' AND timeframe = '1m')
      AND NOT void AND "timestamp" < $3 AND "timestamp" >= $4
    ORDER BY "timestamp" DESC LIMIT $5
"""
"""On the tables themselves, by the primary keys; the views of those names plan no better."""


@dataclass(frozen=True, slots=True)
class Reading:
    """*last* bars of each of *symbols*, in one request; *since* bounds it where it is a period."""

    title: str
    timeframe: str
    last: int
    symbols: Sequence[str]
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """Medians in milliseconds, and how many bars were read.

    *behind* is what keeping them in the cache takes after a cold answer.
    """

    by_hand: float
    cold: float
    behind: float
    warm: float
    bars: int


def readings(scale: Scale, seed: int) -> list[Reading]:
    """Return what is read, of series chosen by *seed*."""
    chosen = [random.Random(seed).choice(scale.longs)]
    return [
        Reading("last 1000 of 1m", "1m", 1000, chosen),
        Reading("last 1000 of 1h", "1h", 1000, chosen),
        Reading("last 1000 of 1d", "1d", 1000, chosen),
        Reading("a year of 1h", "1h", 10_000, chosen, since=max(START, END - 365 * DAY)),
        Reading("50 symbols x 100 of 1m", "1m", 100, scale.shorts),
    ]


class Readers:
    """Reads the same both ways, and sees to it that both read the same."""

    def __init__(self, pool: asyncpg.Pool, redis: Redis, scale: Scale, *, timescale: bool) -> None:
        self._relations = _AGGREGATES if timescale else _ROLLUPS
        self._pool = pool
        self._redis = redis
        self._listed = Listed(FixedClock(_NOW), [*scale.longs, *scale.shorts])
        self._registry = Registry([Entry(PROVIDER, self._listed, None)])

    def chain(self, *, cached: bool) -> AbstractAsyncContextManager[Links]:
        # Without room in the process, and with Redis emptied before each turn, nothing is cached.
        settings = load_settings(**({} if cached else {"cache_bytes": 0}))
        health = HealthBoard(self._listed.clock)
        store = CandleStore(self._pool)
        return open_chain(
            settings, self._registry, store, self._redis, meter=NoMeter(), health=health
        )

    async def times(self, seed: int, which: int, scale: Scale) -> Times:
        """Return what one reading takes; turn by turn another series is read."""
        by_hand: list[float] = []
        cold: list[float] = []
        behind: list[float] = []
        warm: list[float] = []
        async with self.chain(cached=False) as uncached, self.chain(cached=True) as cached:
            for turn in range(-2, _TURNS):
                reading = readings(scale, seed + turn)[which]
                requests = [self._request(reading, symbol) for symbol in reading.symbols]
                taken, rows = await _timed(lambda reading=reading: self._by_hand(reading))
                await self._redis.flushdb()
                chain = uncached.chain
                taken_cold, found = await _timed(lambda r=requests, c=chain: c.answer(r))
                kept, _ = await _timed(uncached.cache.sent)
                await cached.chain.answer(requests)
                await cached.cache.sent()
                chain = cached.chain
                taken_warm, again = await _timed(lambda r=requests, c=chain: c.answer(r))
                bars = _checked(rows, found, again)
                if turn >= 0:
                    by_hand.append(taken)
                    cold.append(taken_cold)
                    behind.append(kept)
                    warm.append(taken_warm)
        assert self._listed.calls == 0, "a provider was asked for what is stored"
        return Times(median(by_hand), median(cold), median(behind), median(warm), bars)

    def _request(self, reading: Reading, symbol: str) -> Request:
        instrument = self._listed.instrument(symbol)
        frame = Timeframe.parse(reading.timeframe)
        series = Series(self._listed.listing(symbol), frame, calendar=instrument.calendar)
        return Request(series, instrument, reading.since, END, reading.last)

    async def _by_hand(self, reading: Reading) -> list[list[asyncpg.Record]]:
        since, until = _instant(reading.since or START - DAY), _instant(END)
        if len(reading.symbols) == 1:
            statement = self._statement(reading, "$2")
            return [
                await self._pool.fetch(
                    statement, PROVIDER, reading.symbols[0], until, since, reading.last
                )
            ]
        # One statement for all of them, as whoever cares writes it.
        together = f"""
            SELECT u.symbol, b.* FROM unnest($2::text[]) u(symbol)
            CROSS JOIN LATERAL ({self._statement(reading, "u.symbol")}) b
        """
        found = await self._pool.fetch(
            together, PROVIDER, list(reading.symbols), until, since, reading.last
        )
        by_symbol: dict[str, list[asyncpg.Record]] = {}
        for row in found:
            by_symbol.setdefault(row["symbol"], []).append(row)
        return [by_symbol[symbol] for symbol in reading.symbols]

    def _statement(self, reading: Reading, symbol: str) -> str:
        relation = self._relations.get(reading.timeframe, "bar")
        return _BY_HAND.format(relation=relation, symbol=symbol)


def _checked(
    rows: Sequence[Sequence[asyncpg.Record]],
    cold: Sequence[object],
    warm: Sequence[object],
) -> int:
    """Return how many bars were read. All three ways must have read the same ones."""
    for answers in (cold, warm):
        for some, answer in zip(rows, answers, strict=True):
            assert isinstance(answer, Answer), answer
            times = [round(row["timestamp"].timestamp() * 1000) for row in some]
            assert answer.bars.time.tolist() == sorted(times)
            assert sorted(answer.bars.close.tolist()) == sorted(row["close"] for row in some)
    return sum(len(some) for some in rows)


async def _timed(work: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    started = time.perf_counter()
    result = await work()
    return (time.perf_counter() - started) * 1000, result


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
