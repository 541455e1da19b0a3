"""The one place that wires: every object is built here, and undone in the opposite order."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg
from pydantic import SecretStr
from redis.asyncio import Redis

from datasources.aggregates import Aggregates
from datasources.beginnings import Beginnings
from datasources.cache import Cache
from datasources.chain import Chain
from datasources.fetching import Fetcher
from datasources.flights import Handover
from datasources.health import HealthBoard
from datasources.ingest.counts import IngestCounts
from datasources.ingest.sources import SourceName
from datasources.meter import Meter
from datasources.openings import Openings
from datasources.providers import Providers
from datasources.recent import RecentAnswers
from db.anchors import anchored_at
from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers, embedded_servers
from db.migrations import TIMESCALE, migrate, mode_of
from db.pool import open_pool
from db.pruner import Pruner
from db.timescale import Refresher
from market.clock import Clock
from plugins.alpaca import AlpacaProvider, Keys
from plugins.alpaca.key_check import AlpacaKeyCheck
from plugins.base import Provider
from plugins.ccxt_exchange import CcxtProvider
from plugins.ccxt_exchange.key_check import CcxtKeyCheck
from plugins.credentials import ChecksCredentials, SharesTurns
from plugins.registry import Factory, ProviderContext, Registry, open_registry
from plugins.replay.clock import Anchor, dataset_id
from plugins.replay.provider import ReplayProvider
from plugins.replay.recordings import load
from plugins.sim.provider import SimProvider
from resolvers.directory import Directory
from resolvers.identity.identity import Identity
from resolvers.venue_probe import VenueProbe
from schema.context import Shared
from schema.encoding import BarEncoder
from schema.permissions import Permissions
from web.accounts_wiring import open_accounts
from web.backfill_wiring import BackfillParts, open_backfills
from web.background import Background
from web.ingest_wiring import open_ingest
from web.jobs.engine import JOB_CONNECTIONS, JobQueue
from web.live_wiring import Links, LiveParts, open_live
from web.process_name import process_name
from web.redis_connections import redis_client
from web.retention_wiring import open_pruner
from web.settings import Role, Settings

log = logging.getLogger(__name__)

SQL = Path(__file__).parents[1] / "sql"
_REDIS_SECONDS = 2.0
"""How long one call to Redis may take before the caller goes on without it."""


@dataclass(frozen=True, slots=True)
class Wired:
    """Everything the routes need, open for as long as the server runs."""

    settings: Settings
    embedded: EmbeddedServers | None
    pool: asyncpg.Pool
    redis: Redis
    registry: Registry
    cache: Cache
    shared: Shared
    live: LiveParts
    background: Background
    jobs: JobQueue
    backfills: BackfillParts
    ingest: IngestCounts
    refresher: Refresher | None = None
    pruner: Pruner | None = None


@asynccontextmanager
async def wire(
    settings: Settings,
    *,
    clock: Clock,
    meter: Meter,
    key_checks: Mapping[str, ChecksCredentials] | None = None,
) -> AsyncIterator[Wired]:
    """Open and connect everything, and give it all back at the end.

    *key_checks* are the venues that users' keys may be for, by default those of the settings.
    Raises what keeps it from starting: `EmbeddedStartFailed`, `StoreUnavailable`, `SchemaEdited`
    and its like.
    """
    background = Background()
    async with AsyncExitStack() as stack:
        embedded = None
        if None in (settings.database_url, settings.redis_url):
            embedded = await stack.enter_async_context(embedded_servers(settings.data_dir))
        database_url = _either(settings.database_url, embedded.postgres_url if embedded else "")
        redis_url = _either(settings.redis_url, embedded.redis_url if embedded else "")

        await migrate(database_url, SQL)
        pool = await stack.enter_async_context(
            open_pool(
                database_url,
                max_size=settings.database_pool,
                statement_timeout=settings.statement_timeout,
            )
        )
        redis = await stack.enter_async_context(open_redis(redis_url, settings.redis_pool))
        jobs = JobQueue(
            await stack.enter_async_context(open_redis(redis_url, JOB_CONNECTIONS)),
            prefix=settings.redis_prefix,
            worker=process_name(),
        )
        registry = await stack.enter_async_context(
            open_registry(
                _factories(settings, pool),
                context=ProviderContext(clock),
                disabled=_disabled(settings),
            )
        )
        accounts = await stack.enter_async_context(
            open_accounts(
                settings,
                database_url,
                clock=clock,
                background=background,
                probe=VenueProbe(
                    _key_checks(settings, registry) if key_checks is None else key_checks,
                    clock=clock,
                ),
            )
        )
        shared, cache, live, backfills = await stack.enter_async_context(
            open_shared(
                settings,
                registry,
                pool,
                redis,
                identity=accounts.identity,
                clock=clock,
                meter=meter,
                background=background,
                jobs=jobs,
            )
        )
        ingest = await stack.enter_async_context(
            open_ingest(
                _ingested(settings),
                registry=registry,
                store=shared.store,
                cache=cache,
                redis=redis,
                background=background,
                prefix=settings.redis_prefix,
                settle_ms=int(settings.settle * 1000),
            )
        )
        refresher, pruner = None, None
        if settings.role.runs_jobs:
            await stack.enter_async_context(background.running(jobs.run(), name="jobs"))
            if await mode_of(database_url) == TIMESCALE:
                refresher = Refresher(database_url)
                await stack.enter_async_context(
                    background.running(refresher.run(), name="aggregates")
                )
            if settings.retention is not None:
                pruner = await stack.enter_async_context(
                    open_pruner(
                        database_url,
                        settings.retention,
                        registry=registry,
                        clock=clock,
                        background=background,
                    )
                )
        yield Wired(
            settings,
            embedded,
            pool,
            redis,
            registry,
            cache,
            shared,
            live,
            background,
            jobs,
            backfills,
            ingest,
            refresher,
            pruner,
        )


@dataclass(frozen=True, slots=True)
class Shelves:
    """What a command needs that moves bars and serves nobody."""

    pool: asyncpg.Pool
    registry: Registry
    cache: Cache


@asynccontextmanager
async def open_shelves(settings: Settings, *, clock: Clock, meter: Meter) -> AsyncIterator[Shelves]:
    """Open the store, the providers and the cache that the settings name. Raises as `wire` does."""
    async with AsyncExitStack() as stack:
        database_url, redis_url = await stack.enter_async_context(servers_of(settings))
        await migrate(database_url, SQL)
        pool = await stack.enter_async_context(
            open_pool(
                database_url,
                max_size=settings.database_pool,
                statement_timeout=settings.statement_timeout,
            )
        )
        redis = await stack.enter_async_context(open_redis(redis_url, settings.redis_pool))
        registry = await stack.enter_async_context(
            open_registry(
                _factories(settings, pool),
                context=ProviderContext(clock),
                disabled=_disabled(settings),
            )
        )
        cache = Cache(
            redis,
            prefix=settings.redis_prefix,
            meter=meter,
            forming_ttl=int(settings.forming_ttl * 1000),
            max_bytes=0,
        )
        yield Shelves(pool, registry, cache)


@asynccontextmanager
async def servers_of(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """Yield the URLs of PostgreSQL and Redis: those that are named, else the embedded ones."""
    async with AsyncExitStack() as stack:
        embedded = None
        if None in (settings.database_url, settings.redis_url):
            embedded = await stack.enter_async_context(embedded_servers(settings.data_dir))
        yield (
            _either(settings.database_url, embedded.postgres_url if embedded else ""),
            _either(settings.redis_url, embedded.redis_url if embedded else ""),
        )


@asynccontextmanager
async def open_redis(url: str, connections: int) -> AsyncIterator[Redis]:
    """Yield a client over a bounded pool. It connects when it is used, and gives up soon."""
    async with redis_client(url, connections=connections, seconds=_REDIS_SECONDS) as redis:
        yield redis


@asynccontextmanager
async def open_shared(
    settings: Settings,
    registry: Registry,
    pool: asyncpg.Pool,
    redis: Redis,
    *,
    identity: Identity,
    clock: Clock,
    meter: Meter,
    background: Background,
    jobs: JobQueue,
) -> AsyncIterator[tuple[Shared, Cache, LiveParts, BackfillParts]]:
    """Yield what requests share over the stores and the providers, and the chain's cache."""
    health = HealthBoard(clock)
    store = CandleStore(pool)
    async with AsyncExitStack() as stack:
        links = await stack.enter_async_context(
            open_chain(settings, registry, store, redis, meter=meter, health=health)
        )
        live = await stack.enter_async_context(
            open_live(
                links,
                redis,
                background,
                role=settings.role,
                prefix=settings.redis_prefix,
                grace_ms=int(settings.feed_grace * 1000),
                settle_ms=int(settings.settle * 1000),
            )
        )
        backfills = await stack.enter_async_context(
            open_backfills(links, pool, jobs, background, settings)
        )
        shared = Shared(
            directory=Directory(registry, health),
            answers=links.answers,
            store=store,
            health=health,
            live=live.sources,
            backfills=backfills.service,
            encoder=BarEncoder(max_bytes=settings.encoded_bytes, meter=meter),
            identity=identity,
            permissions=Permissions(public_market_data=settings.public_market_data),
            max_bars=settings.max_bars,
            max_pages=settings.max_pages,
        )
        yield shared, links.cache, live, backfills


@asynccontextmanager
async def open_chain(
    settings: Settings,
    registry: Registry,
    store: CandleStore,
    redis: Redis,
    *,
    meter: Meter,
    health: HealthBoard,
) -> AsyncIterator[Links]:
    """Yield the chain over *store*, *redis* and the providers, with its parts."""
    forming_ttl = int(settings.forming_ttl * 1000)
    cache = Cache(
        redis,
        prefix=settings.redis_prefix,
        meter=meter,
        forming_ttl=forming_ttl,
        max_bytes=settings.cache_bytes,
    )
    aggregates = Aggregates(store, registry)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cache.sent)
        fetcher = Fetcher(
            store,
            Handover(redis, prefix=settings.redis_prefix, ttl=30),
            announce=cache.moved,
            meter=meter,
            health=health,
            settle=int(settings.settle * 1000),
            forming_ttl=forming_ttl,
        )
        stack.push_async_callback(fetcher.aclose)
        beginnings = Beginnings(store, max_pages=settings.max_pages, meter=meter)
        stack.push_async_callback(beginnings.aclose)
        providers = Providers(
            registry, aggregates, fetcher, beginnings, max_pages=settings.max_pages
        )
        openings = Openings() if settings.auto_backfill else None
        chain = Chain(registry, cache, aggregates, providers, meter=meter, openings=openings)
        answers = RecentAnswers(chain, registry, forming_ttl=forming_ttl)
        stack.push_async_callback(answers.aclose)
        yield Links(
            chain,
            aggregates,
            fetcher,
            cache,
            answers,
            store,
            registry,
            health,
            beginnings,
            openings,
        )


def _factories(settings: Settings, pool: asyncpg.Pool) -> dict[str, Factory]:
    """Return the built-in providers by name, in the order they are listed."""

    def sim(context: ProviderContext) -> Provider:
        return SimProvider(clock=context.clock, seed=settings.sim_seed)

    def alpaca(context: ProviderContext) -> Provider:
        assert settings.alpaca_key_id is not None
        assert settings.alpaca_secret_key is not None
        keys = Keys(settings.alpaca_key_id, settings.alpaca_secret_key)
        return AlpacaProvider(keys, clock=context.clock, feed=settings.alpaca_feed)

    def exchange(name: str, context: ProviderContext) -> Provider:
        return CcxtProvider(name, clock=context.clock)

    factories: dict[str, Factory] = {}
    if settings.replay_dir is not None:
        factories["replay"] = partial(_replay, settings, pool)
    factories["sim"] = sim
    factories["alpaca"] = alpaca
    for name in settings.ccxt_exchanges:
        factories.setdefault(name, partial(exchange, name))
    return factories


def _key_checks(settings: Settings, registry: Registry) -> dict[str, ChecksCredentials]:
    """Return the venues that users' keys may be for, each with what tries them there.

    Whether the server has keys of its own for market data makes no difference.
    """
    shared = {
        entry.name: entry.provider
        for entry in registry.entries()
        if entry.provider is not None and isinstance(entry.provider, SharesTurns)
    }
    checks: dict[str, ChecksCredentials] = {"alpaca": AlpacaKeyCheck()}
    for name in settings.ccxt_exchanges:
        checks.setdefault(name, CcxtKeyCheck(name, shares=shared.get(name)))
    return checks


def _disabled(settings: Settings) -> dict[str, str]:
    """Return why built-in providers cannot be used, by name."""
    keys = {
        "ALPACA_KEY_ID": settings.alpaca_key_id,
        "ALPACA_SECRET_KEY": settings.alpaca_secret_key,
    }
    absent = [name for name, key in keys.items() if key is None]
    return {"alpaca": f"{' and '.join(absent)} must be set"} if absent else {}


async def _replay(
    settings: Settings, pool: asyncpg.Pool, context: ProviderContext
) -> ReplayProvider:
    """Return the recordings of `REPLAY_DIR`, on the clock that all processes share."""
    assert settings.replay_dir is not None
    recordings = await load(settings.replay_dir)
    for refusal in recordings.refused:
        log.warning("Recording refused: %s", refusal)
    replay_from = recordings.newest_close
    if settings.replay_from is not None:
        replay_from = round(settings.replay_from.timestamp() * 1000)
    dataset = dataset_id(recordings.digest, replay_from, settings.replay_speed)
    anchored = await anchored_at(pool, dataset, context.clock.now())
    anchor = Anchor(replay_from, anchored, settings.replay_speed)
    return ReplayProvider(recordings, base=context.clock, anchor=anchor)


def _ingested(settings: Settings) -> tuple[SourceName, ...]:
    """Return whose trades this process publishes and stores."""
    if settings.role is Role.API:
        return ()
    return tuple(SourceName.parse(name) for name in settings.ingest or ())


def _either(external: SecretStr | None, embedded: str) -> str:
    return external.get_secret_value() if external is not None else embedded
