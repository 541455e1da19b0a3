"""How fast the candle store is, against plain PostgreSQL in the same run.

    python -m benchmarks.store postgresql://postgres@127.0.0.1:5432/postgres

Makes a database of its own on that server and drops it. Prints medians and ratios.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import numpy as np

from db.binary import Column, copy_rows, to_server_time
from db.candles import CandleStore
from db.migrations import migrate
from db.pool import open_pool
from db.stored import SeriesFacts, SeriesKey, Wanted, Write
from market.bars import CLOSED, Bars
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import HOUR, MINUTE, Spans, Window

SQL = Path(__file__).parents[1] / "sql"
COUNT = 500_000
START = 1_600_000_020_000 // MINUTE * MINUTE
FACTS = SeriesFacts("BTC", "USDT", around_the_clock=True)
FROM_VIEW = """
    SELECT * FROM ohlcv_1h WHERE provider = 'sim' AND market = 'crypto' AND symbol = $1
    ORDER BY "timestamp" DESC LIMIT 1000
"""
FROM_MINUTES = """
    SELECT date_bin('1 hour', "timestamp", '0001-01-01Z') AS hour,
           (array_agg(open ORDER BY "timestamp"))[1], max(high), min(low),
           (array_agg(close ORDER BY "timestamp" DESC))[1], sum(volume)
    FROM ohlcv_data WHERE provider = 'sim' AND market = 'crypto' AND symbol = $1
    GROUP BY 1 ORDER BY 1 DESC LIMIT 1000
"""


@asynccontextmanager
async def scratch(server: str) -> AsyncIterator[str]:
    admin = await asyncpg.connect(server)
    name = f"bargraph_bench_{uuid4().hex}"
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


def made_up(count: int) -> Bars:
    rng = np.random.default_rng(1)
    close = 20_000 + rng.normal(size=count).cumsum()
    opened = np.concatenate((close[:1], close[:-1]))
    times = START + np.arange(count) * MINUTE
    return Bars.of(
        times,
        opened,
        np.maximum(opened, close) + 0.5,
        np.minimum(opened, close) - 0.5,
        close,
        rng.random(count) * 10,
        vwap=(opened + close) / 2,
        trades=rng.integers(1, 100, count),
        updated=times + MINUTE,
        flags=CLOSED,
    )


def table_columns(bars: Bars) -> tuple[Column, ...]:
    times = to_server_time(bars.time)
    same = np.ones(len(bars))
    floats = ("open", "high", "low", "close", "volume", "vwap")
    columns: list[Column] = [(name, ">f8", getattr(bars, name)) for name in floats]
    columns += [("trades", ">i8", bars.trades), ("series_id", ">i4", same)]
    columns += [(name, ">i8", times) for name in ("timestamp", "observed_at", "updated_at")]
    columns += [("revision", ">i4", same), ("source", ">i2", same), ("void", ">i1", same * 0)]
    return tuple(columns)


async def plain_copy(url: str, bars: Bars) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS plain (LIKE bar INCLUDING ALL)")
    await connection.execute("TRUNCATE plain")

    async def rows() -> AsyncIterator[bytes]:
        for chunk in copy_rows(columns):
            yield chunk

    columns = table_columns(bars)
    names = [name for name, _, _ in columns]
    await connection.copy_to_table("plain", source=rows(), columns=names, format="binary")
    await connection.close()


async def timed(work: Callable[[], Awaitable[object]], *, times: int = 1) -> float:
    """Median seconds."""
    taken: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def key(symbol: str) -> SeriesKey:
    return SeriesKey(Listing("sim", "crypto", symbol), MINUTE_FRAME)


async def history(url: str, store: CandleStore, bars: Bars) -> None:
    copies: list[float] = []
    writes: list[float] = []
    whole = Spans.of(START, START + COUNT * MINUTE)
    asked = START + COUNT * MINUTE
    for turn in range(3):
        copies.append(await timed(lambda: plain_copy(url, bars)))
        write = Write(key(f"H{turn}"), FACTS, bars, asked, whole, whole)
        writes.append(await timed(lambda write=write: store.write([write])))
    copy, written = median(copies), median(writes)
    print(f"{COUNT:,} bars by COPY into a table of the same keys   {copy:6.2f} s")
    print(f"{COUNT:,} bars written, nine aggregates included       {written:6.2f} s", end="")
    print(f"  {written / copy:5.1f} x  (at most 10)")
    again = Write(key("H0"), FACTS, bars, asked + 1)
    same = await timed(lambda: store.write([again]))
    print(f"the same bars once more, nothing differs            {same:6.2f} s")


async def aggregates(pool: asyncpg.Pool, store: CandleStore) -> None:
    await pool.execute("ANALYZE")
    view = await timed(lambda: pool.fetch(FROM_VIEW, "H0"), times=9)
    grouped = await timed(lambda: pool.fetch(FROM_MINUTES, "H0"), times=3)
    window = Window(START + COUNT * MINUTE - 1000 * HOUR, START + COUNT * MINUTE)
    wanted = [Wanted(key("H0"), window, Timeframe.parse("1h"))]
    columns = await timed(lambda: store.snapshot(wanted), times=9)
    print(f"last 1000 of 1h grouped from the minutes            {grouped * 1e3:6.0f} ms")
    print(f"last 1000 of 1h from the view                       {view * 1e3:6.1f} ms", end="")
    print(f"  {grouped / view:5.0f} x  (at least 20)")
    print(f"last 1000 of 1h as columns, with the series' state  {columns * 1e3:6.1f} ms", end="")
    print(f"  {grouped / columns:5.0f} x")


async def live(pool: asyncpg.Pool, store: CandleStore, count: int, facts: SeriesFacts) -> None:
    keys = [key(f"L{count}_{n}_{facts.around_the_clock}") for n in range(count)]
    minute = 0

    async def write() -> None:
        nonlocal minute
        opened = START + minute * MINUTE
        minute += 1
        bar = Bars.of([opened], [1.0], [2.0], [0.5], [1.5], [3.0], flags=CLOSED)
        span = Spans.of(opened, opened + MINUTE)
        await store.write([Write(k, facts, bar, opened, Spans(), span) for k in keys])

    await write()
    before = await wal(pool)
    taken = await timed(write, times=7)
    grown = (await wal(pool) - before) / 7 / count
    kept = "with its aggregates" if facts.around_the_clock else "without aggregates "
    print(f"a live minute {kept}, series a write: {count:4}  {taken * 1e3:6.1f} ms", end="")
    print(f"  {taken / count * 1e6:6.0f} us and {grown / 1e3:4.1f} kB of log a series")


async def wal(pool: asyncpg.Pool) -> int:
    return int(await pool.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))


async def watchlist(store: CandleStore) -> None:
    window = Window(START, START + 100 * MINUTE)
    wanted = [Wanted(key(f"H{n % 3}"), window) for n in range(50)]
    taken = await timed(lambda: store.snapshot(wanted), times=9)
    print(f"50 series x 100 minutes in one statement            {taken * 1e3:6.1f} ms")


async def main(server: str) -> None:
    bars = made_up(COUNT)
    async with scratch(server) as url:
        await migrate(url, SQL)
        async with open_pool(url, statement_timeout=300) as pool:
            store = CandleStore(pool)
            await history(url, store, bars)
            await aggregates(pool, store)
            await watchlist(store)
            for count in (1, 50, 1000):
                await live(pool, store, count, SeriesFacts("SPY", "USD"))
                await live(pool, store, count, FACTS)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
