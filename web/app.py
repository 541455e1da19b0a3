"""The ASGI application: which route answers what."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route

from schema.build import build_schema
from schema.context import Context
from schema.errors import format_error
from web.bootstrap import Wired
from web.documents import Documents
from web.graphiql import graphiql_routes
from web.graphql_http import GraphQLEndpoint
from web.health import health_routes
from web.hot import HotRequests
from web.meter import ChainMeter
from web.metrics import Metrics, metrics_route
from web.persisted import PersistedQueries

BUNDLE = Path(__file__).parents[1] / "frontend" / "dist"
_PERSISTED_FOR = timedelta(days=7)


def build_app(wired: Wired, metrics: Metrics) -> Starlette:
    """Return the application over what is wired."""
    documents = Documents()
    prefix = wired.settings.redis_prefix
    schema = build_schema([documents.extension])
    meter = ChainMeter(metrics)
    endpoint = GraphQLEndpoint(
        schema=schema,
        documents=documents,
        context=lambda _: Context(wired.shared, takes_fragments=True),
        format_error=format_error,
        persisted=PersistedQueries(wired.redis, prefix=f"{prefix}persisted:", ttl=_PERSISTED_FOR),
        metrics=metrics,
        hot=HotRequests(wired.shared, documents, schema.core, meter=meter),
        max_body=wired.settings.max_body,
    )
    _watch(wired, metrics)
    return Starlette(
        routes=[
            Route("/graphql", endpoint),
            *graphiql_routes(BUNDLE),
            *health_routes(wired),
            metrics_route(metrics),
        ]
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
    metrics.watch_cache("encoded", lambda: wired.shared.encoder.kept_bytes)
