"""A process that stores trades from the stream until it is killed.

python -m tests.datasources.ingest.child STORE REDIS PREFIX NAME
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace

from datasources.found import Base, Head
from datasources.ingest.counts import IngestCounts
from datasources.ingest.stream import TradeStream
from datasources.ingest.writer import TradeWriter
from db.candles import CandleStore
from db.pool import open_pool
from db.raw_trades import RawTradeStore
from tests.datasources.ingest.stage import HASTY
from tests.db.trades import PROOF
from web.bootstrap import open_redis

SMALL_BATCHES = replace(HASTY, rows=2_000, idle=0.3)


async def moved(_: Mapping[Base, Head]) -> None:
    """There is no cache."""


async def main(store_url: str, redis_url: str, prefix: str, name: str) -> None:
    async with open_pool(store_url) as pool, open_redis(redis_url, 10) as redis:
        writer = TradeWriter(
            name,
            stream=TradeStream(redis, prefix=prefix),
            store=RawTradeStore(CandleStore(pool), proof=PROOF),
            moved=moved,
            clock_of=lambda _: None,
            counts=IngestCounts(),
            pacing=SMALL_BATCHES,
        )
        await writer.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
