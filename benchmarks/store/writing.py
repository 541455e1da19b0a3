"""What writing costs: history in bulk beside a COPY, and live minutes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median

import asyncpg
import numpy as np

from benchmarks.store.made import END, FACTS, LONG, PROVIDER, START, key, minutes
from db.binary import Column, copy_rows, to_server_time
from db.candles import CandleStore
from db.stored import SeriesFacts, Write
from market.bars import CLOSED, Bars
from market.window import MINUTE, Spans

_TURNS = 3


async def writing(url: str, pool: asyncpg.Pool, store: CandleStore) -> None:
    """Print what bulk and live writes cost."""
    await _history(url, store)
    for count in (1, 50, 1000):
        await _live(pool, store, count, SeriesFacts("SPY", "USD"))
        await _live(pool, store, count, FACTS)
    # What is read later is measured beside the rows that its scale says, and no others.
    await _forget(pool)


def _table_columns(bars: Bars) -> tuple[Column, ...]:
    times = to_server_time(bars.time)
    same = np.ones(len(bars))
    floats = ("open", "high", "low", "close", "volume", "vwap")
    columns: list[Column] = [(name, ">f8", getattr(bars, name)) for name in floats]
    columns += [("trades", ">i8", bars.trades), ("series_id", ">i4", same)]
    columns += [(name, ">i8", times) for name in ("timestamp", "observed_at", "updated_at")]
    columns += [("revision", ">i4", same), ("source", ">i2", same), ("void", ">i1", same * 0)]
    return tuple(columns)


async def _plain_copy(url: str, bars: Bars) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS plain (LIKE bar INCLUDING ALL)")
    await connection.execute("TRUNCATE plain")

    async def rows() -> AsyncIterator[bytes]:
        for chunk in copy_rows(columns):
            yield chunk

    columns = _table_columns(bars)
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


async def _history(url: str, store: CandleStore) -> None:
    copies: list[float] = []
    writes: list[float] = []
    bars, whole = minutes(LONG), Spans.of(END - LONG * MINUTE, END)
    for turn in range(_TURNS):
        copies.append(await timed(lambda: _plain_copy(url, bars)))
        write = Write(key(f"H{turn}"), FACTS, bars, END, whole, whole)
        writes.append(await timed(lambda write=write: store.write([write])))
    copy, written = median(copies), median(writes)
    print(f"{LONG:,} bars by COPY into a table of the same keys   {copy:6.2f} s")
    print(f"{LONG:,} bars written, nine aggregates included       {written:6.2f} s", end="")
    print(f"  {written / copy:5.1f} x  (at most 10)")
    again = Write(key("H0"), FACTS, bars, END + 1)
    same = await timed(lambda: store.write([again]))
    print(f"the same bars once more, nothing differs            {same:6.2f} s")


async def _live(pool: asyncpg.Pool, store: CandleStore, count: int, facts: SeriesFacts) -> None:
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
    before = await _wal(pool)
    taken = await timed(write, times=7)
    grown = (await _wal(pool) - before) / 7 / count
    kept = "with its aggregates" if facts.around_the_clock else "without aggregates "
    print(f"a live minute {kept}, series a write: {count:4}  {taken * 1e3:6.1f} ms", end="")
    print(f"  {taken / count * 1e6:6.0f} us and {grown / 1e3:4.1f} kB of log a series")


async def _wal(pool: asyncpg.Pool) -> int:
    return int(await pool.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))


async def _forget(pool: asyncpg.Pool) -> None:
    ids = await pool.fetchval("SELECT array_agg(id) FROM series WHERE provider = $1", PROVIDER)
    for table in await _tables(pool):
        await pool.execute(f"DELETE FROM {table} WHERE series_id = ANY ($1)", ids)
    await pool.execute("DELETE FROM series WHERE id = ANY ($1)", ids)
    await pool.execute("DROP TABLE plain")


async def _tables(pool: asyncpg.Pool) -> list[str]:
    """Return the tables with rows of series."""
    found = await pool.fetch("""
        SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
          AND a.attname = 'series_id' AND c.relname <> 'plain'
    """)
    return [row["relname"] for row in found]
