"""Wire ingestion: who publishes trades, who stores them, and what is counted of both.

A part of `web.bootstrap`, which calls it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from redis.asyncio import Redis

from datasources.cache import Cache
from datasources.ingest.counts import IngestCounts
from datasources.ingest.keeper import SourceKeeper
from datasources.ingest.pacing import INGEST_PACING, IngestPacing
from datasources.ingest.publisher import TradePublisher
from datasources.ingest.sources import SourceName, find
from datasources.ingest.stream import TradeStream
from datasources.ingest.writer import TradeWriter
from datasources.live.leases import Leases
from datasources.live.pacing import PACING, Pacing
from datasources.live.redis_away import RedisAway
from db.candles import CandleStore
from db.raw_trades import RawTradeStore
from db.told import Proof
from market.clock import Clock
from market.errors import BargraphError
from plugins.registry import Registry
from web.background import Background
from web.process_name import process_name

log = logging.getLogger(__name__)

_LATE_MS = 2_000
"""After the end of a minute until it is taken for told. The same in all processes of a store."""


@asynccontextmanager
async def open_ingest(
    names: tuple[SourceName, ...],
    *,
    registry: Registry,
    store: CandleStore,
    cache: Cache,
    redis: Redis,
    background: Background,
    prefix: str,
    settle_ms: int,
    pacing: IngestPacing = INGEST_PACING,
    upstream_pacing: Pacing = PACING,
) -> AsyncIterator[IngestCounts]:
    """Yield what is counted of ingesting *names*; what runs by itself runs in *background*."""
    counts = IngestCounts()
    if not names:
        yield counts
        return
    stream = TradeStream(redis, prefix=prefix)
    raw = RawTradeStore(store, proof=Proof(late=_LATE_MS, settle=settle_ms))
    owner = process_name()

    async def open_source(name: SourceName) -> TradePublisher:
        return TradePublisher(
            await find(registry, name),
            stream=stream,
            store=raw,
            counts=counts,
            pacing=pacing,
            upstream_pacing=upstream_pacing,
        )

    def clock_of(provider: str) -> Clock | None:
        with suppress(BargraphError):
            return registry.get(provider).clock
        return None

    keeper = SourceKeeper(
        names,
        leases=Leases(redis, prefix=prefix, owner=owner, ttl_ms=round(pacing.lease * 1000)),
        open_source=open_source,
        counts=counts,
        pacing=pacing,
    )
    writer = TradeWriter(
        owner,
        stream=stream,
        store=raw,
        moved=cache.moved,
        clock_of=clock_of,
        counts=counts,
        pacing=pacing,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(writer.leave)
        works = {
            "sources of trades": keeper.run(),
            "writer of trades": writer.run(),
            "lag of trades": _sample(stream, counts, every=pacing.sample),
        }
        for name, work in works.items():
            await stack.enter_async_context(background.running(work, name=name))
        yield counts


async def _sample(stream: TradeStream, counts: IngestCounts, *, every: float) -> None:
    """Look again and again how much waits; while Redis is away that is not known anew."""
    warned = False
    while True:
        with suppress(RedisAway):
            counts.lag = await stream.lag()
            if not warned and (policy := await stream.evicts()):
                log.warning(
                    "Redis evicts what is in use (%s): trades may be lost from the stream", policy
                )
                warned = True
        await asyncio.sleep(every)
