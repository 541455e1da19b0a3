"""The ASGI application: which route answers what."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from schema.build import build_schema
from schema.context import Context
from schema.errors import format_error
from web.bootstrap import Wired
from web.documents import Documents
from web.graphiql import graphiql_routes
from web.graphql_http import GraphQLEndpoint
from web.health import health_routes
from web.hot import HotRequests
from web.live.counts import LiveCounts
from web.live.endpoint import Live
from web.live.execution import Executions
from web.live.limits import LiveLimits
from web.meter import ChainMeter
from web.metrics import Metrics, metrics_route
from web.persisted import PersistedQueries
from web.settings import Role, Settings

BUNDLE = Path(__file__).parents[1] / "frontend" / "dist"
_PERSISTED_FOR = timedelta(days=7)


def build_app(wired: Wired, metrics: Metrics) -> Starlette:
    """Return the application over what is wired. Its state has `live`, to be drained at the end."""
    documents = Documents()
    prefix = wired.settings.redis_prefix
    schema = build_schema([documents.extension])
    meter = ChainMeter(metrics)
    persisted = PersistedQueries(wired.redis, prefix=f"{prefix}persisted:", ttl=_PERSISTED_FOR)
    executions = Executions(
        schema=schema,
        documents=documents,
        context=lambda: Context(wired.shared, takes_fragments=True),
        format_error=format_error,
        persisted=persisted,
    )
    live = Live(
        executions,
        limits=live_limits(wired.settings),
        counts=LiveCounts(metrics.registry),
        origins=wired.settings.allowed_origins or (),
    )
    endpoint = GraphQLEndpoint(
        schema=schema,
        documents=documents,
        context=lambda _: executions.context(),
        format_error=format_error,
        persisted=persisted,
        metrics=metrics,
        hot=HotRequests(wired.shared, documents, schema.core, meter=meter),
        live=live,
        max_body=wired.settings.max_body,
    )
    _watch(wired, metrics)
    told = [*health_routes(wired), metrics_route(metrics)]
    served = [Route("/graphql", endpoint), WebSocketRoute("/graphql", live)]
    if wired.settings.role is Role.FEEDS:
        app = Starlette(routes=told)
    else:
        app = Starlette(routes=[*served, *graphiql_routes(BUNDLE), *told])
    app.state.live = live
    return app


def live_limits(settings: Settings) -> LiveLimits:
    """Return the limits of live transport that *settings* say."""
    return LiveLimits(
        init_timeout=settings.connection_init_timeout,
        connections=settings.max_connections,
        connections_per_address=settings.max_connections_per_address,
        operations=settings.max_operations,
        message_bytes=settings.max_body,
    )


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
    metrics.watch_cache("encoded", lambda: wired.shared.encoder.kept_bytes)
