"""How fast trades come from the stream into the store, against a bare COPY in the same run.

    python -m benchmarks.ingest postgresql://postgres@127.0.0.1:5432/postgres redis://127.0.0.1:6379/0

Makes a database of its own on that server and drops it; keys in Redis get a prefix of their own.
One process writes: from the read of an entry to its acknowledgement after the commit, minutes with
nine aggregates included. Prints medians and the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from statistics import median
from uuid import uuid4

import asyncpg
import numpy as np

from benchmarks.store.made import scratch
from datasources.found import Base, Head
from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import chained, packed
from datasources.ingest.pacing import INGEST_PACING
from datasources.ingest.stream import TradeStream
from datasources.ingest.writer import TradeWriter
from db.binary import Column, copy_rows, to_server_time
from db.candles import CandleStore
from db.migrations import migrate
from db.pool import open_pool
from db.raw_trades import RawTradeStore, Telling
from db.stored import SeriesFacts, SeriesKey
from db.told import US, Proof
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.trades import Trades
from market.window import MINUTE, Window
from web.bootstrap import SQL, open_redis

START = 1_700_000_040_000
FACTS = SeriesFacts("BTC", "USDT", around_the_clock=True)
A_BATCH = 250
"""Trades of a series that are told at a time."""


def made_up(series: int, trades: int, turn: int) -> dict[SeriesKey, Trades]:
    """Return *trades* of each of *series*, oldest first, 600 a minute."""
    rng = np.random.default_rng(turn)
    made: dict[SeriesKey, Trades] = {}
    for n in range(series):
        times = START + np.arange(trades) * 100
        prices = 20_000 + rng.normal(size=trades).cumsum().round(2)
        ids = (4_000_000_000 + np.arange(trades)).astype("S10")
        key = SeriesKey(Listing("sim", "crypto", f"B{turn}-{n}"), MINUTE_FRAME)
        made[key] = Trades.of(times, prices, rng.random(trades).round(5), ids)
    return made


def entries(made: Mapping[SeriesKey, Trades]) -> list[bytes]:
    """Return what publishers of all series would put into the stream, in order."""
    payloads: list[bytes] = []
    count = len(next(iter(made.values())))
    for first in range(0, count, A_BATCH):
        for key, trades in made.items():
            some = trades[first : first + A_BATCH]
            since = START + first * 100
            until = since + len(some) * 100
            if first + A_BATCH >= count:
                until += 5 * MINUTE
            telling = Telling(key, FACTS, some, Window(since * US, until * US))
            payloads += [packed(part) for part in chained(telling)]
    return payloads


async def bare_copy(url: str, made: Mapping[SeriesKey, Trades]) -> float:
    """Return the seconds that COPY takes for the same rows into the same table, as one stream."""
    connection = await asyncpg.connect(url)
    all_trades = Trades.concat(list(made.values()))
    # Series that there are none of.
    own = np.repeat(-1 - np.arange(len(made)), [len(trades) for trades in made.values()])
    order = np.argsort(all_trades.time, kind="stable")
    columns: tuple[Column, ...] = (
        ("timestamp", ">i8", to_server_time(all_trades.time[order])),
        ("price", ">f8", all_trades.price[order]),
        ("amount", ">f8", all_trades.amount[order]),
        ("series_id", ">i4", own[order]),
        ("trade_id", "S10", all_trades.id[order]),
    )
    names = [name for name, _, _ in columns]

    async def rows() -> AsyncIterator[bytes]:
        for chunk in copy_rows(columns):
            yield chunk

    started = time.perf_counter()
    await connection.copy_to_table("raw_trades", source=rows(), columns=names, format="binary")
    taken = time.perf_counter() - started
    await connection.execute("DELETE FROM raw_trades WHERE series_id < 0")
    await connection.execute("VACUUM raw_trades")
    await connection.close()
    return taken


async def ingested(
    store: CandleStore, redis_url: str, made: Mapping[SeriesKey, Trades]
) -> tuple[float, int]:
    """Return the seconds from the first read to the last acknowledgement, and how many entries."""
    payloads = entries(made)
    prefix = f"bargraph-bench-{uuid4().hex}:"

    async def moved(_: Mapping[Base, Head]) -> None:
        """There is no cache."""

    async with open_redis(redis_url, 10) as redis:
        stream = TradeStream(redis, prefix=prefix, most_bytes=1 << 30, most_entries=1 << 30)
        for n in range(0, len(payloads), 200):
            await stream.add(payloads[n : n + 200])
        counts = IngestCounts()
        writer = TradeWriter(
            "bench",
            stream=stream,
            store=RawTradeStore(store, proof=Proof(2_000, 120_000)),
            moved=moved,
            clock_of=lambda _: None,
            counts=counts,
            pacing=INGEST_PACING,
        )
        started = time.perf_counter()
        writing = asyncio.create_task(writer.run())
        while (await stream.lag()).entries:
            if writing.done():
                writing.result()
            await asyncio.sleep(0.02)
        taken = time.perf_counter() - started
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await redis.delete(f"{prefix}trades", f"{prefix}trades:bytes", f"{prefix}trades:dead")
    return taken, len(payloads)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("postgres")
    parser.add_argument("redis")
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--trades", type=int, default=25_000, help="of each series")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    rows = chosen.series * chosen.trades
    copies: list[float] = []
    stored: list[float] = []
    async with scratch(chosen.postgres) as url:
        await migrate(url, SQL)
        async with open_pool(url) as pool:
            store = CandleStore(pool)
            for turn in range(chosen.turns):
                made = made_up(chosen.series, chosen.trades, turn)
                copies.append(await bare_copy(url, made))
                taken, count = await ingested(store, chosen.redis, made)
                stored.append(taken)
                there = await pool.fetchval("SELECT count(*) FROM raw_trades")
                bars = await pool.fetchval("SELECT sum(trades) FROM ohlcv_data")
                assert there == bars == rows * (turn + 1), (there, bars)
    copy, ingest = median(copies), median(stored)
    print(f"{rows:,} trades of {chosen.series} series, in {count:,} entries")
    print(f"bare COPY into the same table               {copy:6.2f} s {rows / copy:9,.0f} rows/s")
    print(
        f"from the stream to the commit, with minutes {ingest:6.2f} s {rows / ingest:9,.0f} rows/s"
    )
    print(f"of the rows per second of COPY              {copy / ingest:6.0%}  (at least 10 %)")


if __name__ == "__main__":
    asyncio.run(main())
