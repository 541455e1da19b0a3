"""The ASGI application: which route answers what."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute

from resolvers.callers import ANYBODY
from schema.build import BargraphSchema, build_schema
from schema.context import Context
from schema.errors import format_error
from web.auth import AccountAttempts, Door
from web.bootstrap import Wired
from web.documents import Documents
from web.graphiql import graphiql_routes
from web.graphql_http import GraphQLEndpoint
from web.headers import middleware
from web.health import health_routes
from web.hot import HotRequests
from web.ingest_metrics import IngestCollector
from web.jobs.metrics import JobsCollector
from web.limits.cost import Costs
from web.limits.gate import Gate
from web.limits.leases import RateLimits
from web.limits.proxies import Proxies
from web.limits.rates import rates_of
from web.limits.windows import RedisWindows
from web.live.counts import LiveCounts
from web.live.endpoint import Live
from web.live.execution import Executions
from web.live.limits import LiveLimits
from web.live.origin import Origins
from web.meter import ChainMeter
from web.metrics import Metrics, metrics_route
from web.persisted import KnownDocuments, PersistedQueries
from web.request_ids import current_request_id
from web.settings import Settings
from web.trusted import trusted_documents

BUNDLE = Path(__file__).parents[1] / "frontend" / "dist"
_PERSISTED_FOR = timedelta(days=7)


def build_app(wired: Wired, metrics: Metrics) -> Starlette:
    """Return the application over what is wired. Its state has `live`, to be drained at the end."""
    settings = wired.settings
    production = settings.in_production
    documents = Documents(introspection=settings.tells_schema, suggestions=not production)
    schema = build_schema([documents.extension], suggestions=not production)
    gate = _gate(wired, schema)
    meter = ChainMeter(metrics)
    persisted = _known_documents(wired, documents, schema, gate)
    https = (settings.public_url or "").startswith("https://")
    door = Door(wired.shared.identity.checks, gate, secure=https)
    attempts = AccountAttempts(gate)
    executions = Executions(
        schema=schema,
        documents=documents,
        context=lambda caller: Context(
            wired.shared, caller, attempts=attempts, takes_fragments=True
        ),
        format_error=told_error,
        persisted=persisted,
        gate=gate,
        door=door,
    )
    live = Live(
        executions,
        limits=live_limits(settings),
        counts=LiveCounts(metrics.registry),
        origins=settings.allowed_origins or (),
        greet=door.of_payload,
        gate=gate,
    )
    endpoint = GraphQLEndpoint(
        schema=schema,
        documents=documents,
        context=lambda _: executions.context(ANYBODY),
        format_error=told_error,
        persisted=persisted,
        metrics=metrics,
        hot=HotRequests(wired.shared, documents, schema.core, meter=meter, gate=gate),
        live=live,
        gate=gate,
        door=door,
        origins=Origins(settings.allowed_origins or ()),
        max_body=settings.max_body,
    )
    _watch(wired, metrics)
    told = [*health_routes(wired), metrics_route(metrics)]
    served: list[BaseRoute] = [Route("/graphql", endpoint), WebSocketRoute("/graphql", live)]
    if not settings.role.answers:
        served = []
    elif settings.shows_graphiql:
        served += graphiql_routes(BUNDLE)
    around = middleware(settings.allowed_origins or (), strict_transport=production)
    app = Starlette(routes=[*served, *told], middleware=around)
    app.state.live = live
    return app


def told_error(error: GraphQLError) -> dict[str, Any]:
    """Return *error* as the client may see it; one that says nothing names its request."""
    shown = format_error(error)
    extensions = shown.get("extensions")
    if extensions and "errorId" in extensions and (named := current_request_id()) is not None:
        extensions["requestId"] = named
    return shown


def live_limits(settings: Settings) -> LiveLimits:
    """Return the limits of live transport that *settings* say."""
    return LiveLimits(
        init_timeout=settings.connection_init_timeout,
        connections=settings.max_connections,
        connections_per_address=settings.max_connections_per_address,
        operations=settings.max_operations,
        message_bytes=settings.max_body,
    )


def _gate(wired: Wired, schema: BargraphSchema) -> Gate:
    settings = wired.settings
    rates = rates_of(
        queries=settings.rate_queries,
        mutations=settings.rate_mutations,
        sockets=settings.rate_sockets,
        logins=settings.rate_logins,
    )
    windows = RedisWindows(wired.redis, prefix=f"{settings.redis_prefix}rates")
    return Gate(
        RateLimits(rates, windows),
        Costs(schema.core, available=settings.max_cost, max_bars=settings.max_bars),
        proxies=Proxies(settings.trusted_proxies or ()),
        seconds=settings.execution_timeout,
    )


def _known_documents(
    wired: Wired, documents: Documents, schema: BargraphSchema, gate: Gate
) -> KnownDocuments:
    settings = wired.settings
    if settings.trusted_documents is not None:
        return trusted_documents(settings.trusted_documents, documents, schema.core)
    prefix = f"{settings.redis_prefix}persisted:"
    return PersistedQueries(wired.redis, prefix=prefix, ttl=_PERSISTED_FOR, admit=gate.registers)


def _watch(wired: Wired, metrics: Metrics) -> None:
    """Show how much of each bounded resource is in use."""
    pool = wired.pool
    metrics.watch_pool(
        "postgres",
        {
            "used": lambda: pool.get_size() - pool.get_idle_size(),
            "open": pool.get_size,
            "limit": pool.get_max_size,
        },
    )
    connections = wired.redis.connection_pool
    metrics.watch_pool(
        "redis",
        {
            "used": lambda: connections.get_connection_count()[1][0],
            "open": lambda: sum(count for count, _ in connections.get_connection_count()),
            "limit": lambda: connections.max_connections,
        },
    )
    metrics.watch_cache("candles", lambda: wired.cache.held_bytes)
    live = wired.live
    metrics.watch_live("series", lambda: live.tails.count)
    metrics.watch_live("connected", lambda: float(live.broadcaster.connected))
    if (keeper := live.keeper) is not None:
        metrics.watch_live("feeds", lambda: keeper.feeds)
        metrics.watch_live("held_bars", lambda: keeper.held_bars)
    backfills = wired.backfills.runner
    metrics.watch_backfills("running", lambda: backfills.running)
    metrics.watch_backfills("bars", lambda: backfills.bars)
    metrics.watch_backfills("seconds_left", lambda: backfills.holes_left / 1000)
    metrics.registry.register(JobsCollector(wired.jobs))
    metrics.registry.register(IngestCollector(wired.ingest))
    if (refresher := wired.refresher) is not None:
        metrics.watch_aggregates("marks", lambda: refresher.standing.marks)
        metrics.watch_aggregates("oldest_mark_seconds", lambda: refresher.standing.oldest)
        metrics.watch_aggregates("lagging", lambda: refresher.standing.lagging)
        metrics.watch_aggregates("failing_jobs", lambda: refresher.standing.failing_jobs)
        metrics.watch_aggregates("refreshed", lambda: refresher.refreshes)
        metrics.watch_aggregates("failed", lambda: refresher.failures)
    store = wired.shared.store
    metrics.watch_retention("too_old", lambda: store.too_old)
    if (pruner := wired.pruner) is not None:
        metrics.watch_retention("bars", lambda: pruner.bars)
        metrics.watch_retention("chunks", lambda: pruner.chunks)
        metrics.watch_retention("postponed", lambda: pruner.postponed)
        metrics.watch_retention("failed", lambda: pruner.failures)
    metrics.watch_cache("encoded", lambda: wired.shared.encoder.kept_bytes)
