"""How fast the candle store and the chain over it are, beside PostgreSQL asked by hand.

    python -m benchmarks.store                      # a server of its own: 1 and 5 million rows
    SCALE=50M python -m benchmarks.store            # 50 million too: about 11 GB, half an hour
    python -m benchmarks.store postgresql://...     # another server, such as one with TimescaleDB

Makes a database on the server and drops it. Prints Markdown for `docs/benchmarks.md`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from benchmarks.store.made import LONG, SHORT, SPARSE, Scale, fill, scratch
from benchmarks.store.reading import Readers, Times, readings
from benchmarks.store.writing import writing
from db.candles import CandleStore
from db.embedded.servers import embedded_servers
from db.migrations import migrate
from db.pool import open_pool
from db.timescale import Refresher
from web.bootstrap import SQL, open_redis

_SCALES = {"1M": Scale(1), "5M": Scale(9), "50M": Scale(99)}
_ROUNDS = 3


async def main(server: str | None) -> None:
    biggest = os.environ.get("SCALE", "5M")
    scales = [scale for scale in _SCALES.values() if scale.count <= _SCALES[biggest].count]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        embedded = await stack.enter_async_context(embedded_servers(folder))
        url = await stack.enter_async_context(scratch(server or embedded.postgres_url))
        await migrate(url, SQL)
        pool = await stack.enter_async_context(open_pool(url, statement_timeout=600))
        redis = await stack.enter_async_context(open_redis(embedded.redis_url, 10))
        timescale = await _say_where(pool, server)
        refresher = Refresher(url) if timescale else None
        await writing(url, pool, CandleStore(pool))
        found = {}
        held: Scale | None = None
        for scale in scales:
            await _grow(pool, held, scale, refresher)
            held = scale
            readers = Readers(pool, redis, scale, timescale=timescale)
            found[scale] = await _read(readers, scale)
        _report(found)


async def _say_where(pool: asyncpg.Pool, server: str | None) -> bool:
    """Print what is measured; return whether it is TimescaleDB."""
    version = (await pool.fetchval("SHOW server_version")).split()[0]
    timescale = await pool.fetchval(
        "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
    )
    kind = f"TimescaleDB {timescale}" if timescale else "plain tables"
    where = "embedded" if server is None else "external"
    print(f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(f"- Store: {where} PostgreSQL {version}, {kind}; {os.cpu_count()} cores\n")
    return timescale is not None


async def _grow(
    pool: asyncpg.Pool, held: Scale | None, scale: Scale, refresher: Refresher | None
) -> None:
    store = CandleStore(pool)
    if held is None:
        await fill(store, scale.shorts, SHORT)
    await fill(store, scale.longs[held.count if held else 0 :], LONG, sparse_days=SPARSE)
    if refresher is not None:
        await refresher.refresh()
    await pool.execute("VACUUM ANALYZE")
    rows = await pool.fetchval("SELECT count(*) FROM bar")
    assert rows == scale.rows, rows
    size = await pool.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
    print(f"{scale}: {size}", file=sys.stderr)


async def _read(readers: Readers, scale: Scale) -> dict[str, Times]:
    titles = [reading.title for reading in readings(scale, 0)]
    rounds = [
        [await readers.times(100 * round_, which, scale) for which in range(len(titles))]
        for round_ in range(_ROUNDS)
    ]
    return {
        title: sorted((one[which] for one in rounds), key=lambda t: t.cold / t.by_hand)[
            _ROUNDS // 2
        ]
        for which, title in enumerate(titles)
    }


def _report(found: dict[Scale, dict[str, Times]]) -> None:
    for scale, by_title in found.items():
        print(f"\n### {scale}\n")
        print(
            "| | bars | by hand, ms | chain cold, ms | x by hand | behind it, ms "
            "| chain warm, ms | x by hand |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for title, t in by_title.items():
            print(
                f"| {title} | {t.bars:,} | {t.by_hand:.2f} | {t.cold:.2f} | "
                f"{t.cold / t.by_hand:.2f} | {t.behind:.2f} | {t.warm:.2f} | "
                f"{t.warm / t.by_hand:.2f} |"
            )
    first, last = next(iter(found)), list(found)[-1]
    print(f"\n### From {first} to {last}\n")
    print("| | by hand | chain cold |")
    print("| --- | ---: | ---: |")
    for title, before in found[first].items():
        after = found[last][title]
        print(
            f"| {title} | {after.by_hand / before.by_hand - 1:+.0%} | "
            f"{after.cold / before.cold - 1:+.0%} |"
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
