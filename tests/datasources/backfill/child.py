"""A process that runs one backfill, for tests that kill it.

Arguments: the URLs of PostgreSQL and Redis, the prefix, the symbol, the job's id, and a file to
which a line is added for each call to the provider. The market is `market_of`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import UUID

from db.candles import CandleStore
from db.pool import open_pool
from market.clock import FixedClock
from market.window import DAY
from tests.datasources.backfill.stage import opened_stage
from tests.datasources.chains import NOW, RUNNING
from tests.fakes import Call, FakeProvider, Market, minutes_between
from web.bootstrap import open_redis

PAGE = 60
SINCE = RUNNING // DAY * DAY - DAY


def market_of(symbol: str) -> FakeProvider:
    rows = Market.of(minutes_between(SINCE, NOW, every=2))
    return FakeProvider(FixedClock(NOW), {symbol: rows}, page_limit=PAGE, offered_from=SINCE)


async def run(
    postgres: str, redis_url: str, prefix: str, symbol: str, id: UUID, calls: Path
) -> None:
    provider = market_of(symbol)

    def note(call: Call) -> bool:
        if not call.window.empty:
            with calls.open("a") as file:
                file.write(f"{call.window.since} {call.window.until}\n")
        return False

    provider.failing = note
    async with open_pool(postgres) as pool, open_redis(redis_url, 10) as redis:
        stage = opened_stage(provider, CandleStore(pool), pool, redis, prefix, lease=1.0)
        async with stage as opened:
            await opened.runner.run(id)


if __name__ == "__main__":
    own, where, names, symbol_, job, log = sys.argv[1:]
    asyncio.run(run(own, where, names, symbol_, UUID(job), Path(log)))
