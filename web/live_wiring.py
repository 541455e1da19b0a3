"""Wire what is live: the broadcaster, the tails that viewers read, and the feeds of this process.

A part of `web.bootstrap`, which calls it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from datasources.aggregates import Aggregates
from datasources.beginnings import Beginnings
from datasources.cache import Cache
from datasources.chain import Chain
from datasources.fetching import Fetcher
from datasources.health import HealthBoard
from datasources.live.base_tail import TailTools
from datasources.live.broadcaster import Broadcaster
from datasources.live.interest import Interest
from datasources.live.keeper import FeedKeeper
from datasources.live.leases import Leases
from datasources.live.opening import FeedOpener
from datasources.live.quote_tails import QuoteTails
from datasources.live.resumption import Resumption
from datasources.live.tail_reading import TailReads
from datasources.live.tails import Tails, Wishes
from datasources.live.writer import BatchWriter
from datasources.openings import Openings
from datasources.recent import RecentAnswers
from db.candles import CandleStore
from plugins.registry import Registry
from resolvers.live_bars import LiveSources
from web.background import Background
from web.process_name import process_name
from web.settings import Role

_LEASE_MS = 3_000
"""A feed whose process died is taken by another after this time and half a second."""


@dataclass(frozen=True, slots=True)
class Links:
    """The parts of the chain that live bars and backfills need by themselves."""

    chain: Chain
    aggregates: Aggregates
    fetcher: Fetcher
    cache: Cache
    answers: RecentAnswers
    store: CandleStore
    registry: Registry
    health: HealthBoard
    beginnings: Beginnings
    openings: Openings | None
    """None where nobody wants to know what is opened."""


@dataclass(frozen=True, slots=True)
class LiveParts:
    """What is live in this process. *keeper* is None where it feeds nothing."""

    sources: LiveSources
    broadcaster: Broadcaster
    tails: Tails
    keeper: FeedKeeper | None


@asynccontextmanager
async def open_live(
    links: Links,
    redis: Redis,
    background: Background,
    *,
    role: Role,
    prefix: str,
    grace_ms: int,
    settle_ms: int,
) -> AsyncIterator[LiveParts]:
    """Yield what is live over *links* and *redis*; what runs by itself runs in *background*."""
    async with AsyncExitStack() as stack:
        broadcaster = await stack.enter_async_context(Broadcaster(redis, prefix=prefix))
        interest = Interest(redis, prefix=prefix, grace_ms=grace_ms)
        keeper = None
        if role.feeds:
            writer = BatchWriter(links.store)
            stack.push_async_callback(writer.aclose)
            leases = Leases(redis, prefix=prefix, owner=process_name(), ttl_ms=_LEASE_MS)
            opener = FeedOpener(
                links.registry,
                store=links.store,
                writer=writer,
                fetcher=links.fetcher,
                health=links.health,
                moved=links.cache.moved,
                broadcaster=broadcaster,
                settle=settle_ms,
            )
            keeper = FeedKeeper(
                interest=interest,
                leases=leases,
                broadcaster=broadcaster,
                store=links.store,
                open_feed=opener.open,
            )
            await stack.enter_async_context(background.running(keeper.run(), name="feeds"))
        wishes = Wishes(interest)
        await stack.enter_async_context(background.running(wishes.run(), name="wishes"))
        reads = TailReads(links.aggregates, links.answers.answer)
        resumption = Resumption(links.store, reads, links.answers.answer)
        tails = Tails(
            links.registry,
            wishes,
            TailTools(broadcaster, links.store, reads, links.health, resumption.snapshot),
        )
        stack.push_async_callback(tails.aclose)
        quotes = QuoteTails(broadcaster, wishes)
        stack.push_async_callback(quotes.aclose)
        yield LiveParts(LiveSources(tails, quotes, resumption), broadcaster, tails, keeper)
