"""The whole application over the embedded servers, asked in memory as a client asks over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from pydantic import SecretStr
from starlette.applications import Starlette

from datasources.ingest.counts import IngestCounts
from db.embedded.servers import EmbeddedServers
from db.encryption import key_text, new_key
from db.pool import open_pool
from market.clock import Clock
from plugins.registry import Factory, ProviderContext, open_registry
from web.accounts_wiring import NoVenues, open_accounts
from web.app import build_app
from web.background import Background
from web.bootstrap import Wired, open_redis, open_shared, wire
from web.clock import SystemClock
from web.jobs.engine import JobQueue
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client got: the HTTP status and the GraphQL response."""

    status: int
    body: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The data of an answer that has no errors."""
        assert "errors" not in self.body, self.body["errors"]
        return self.body["data"]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return self.body.get("errors", [])

    @property
    def error(self) -> dict[str, Any]:
        """The one error there is."""
        (error,) = self.errors
        return error

    @property
    def codes(self) -> list[str]:
        return [error["extensions"]["code"] for error in self.errors]


class Api:
    """A client of the application."""

    def __init__(self, client: httpx.AsyncClient, wired: Wired) -> None:
        self.client = client
        self.wired = wired

    async def ask(self, query: str, **variables: Any) -> Asked:
        response = await self.client.post("/graphql", json={"query": query, "variables": variables})
        return Asked(response.status_code, response.json())

    async def text(self, path: str) -> str:
        return (await self.client.get(path)).text


def settings_over(embedded: EmbeddedServers, database_url: str, **others: Any) -> Settings:
    """Return settings that name a database of our own and keys under a prefix of our own.

    The environment has no say: a test must not depend on who runs it.
    """
    given: dict[str, Any] = {
        name: field.get_default() for name, field in Settings.model_fields.items()
    }
    given |= {
        "database_url": database_url,
        "redis_url": embedded.redis_url,
        "redis_prefix": f"bargraph-test-{uuid4().hex}:",
        "ccxt_exchanges": (),
        "rate_queries": 0,  # tests ask faster than anybody may
        # Keys of the settings leave no files behind.
        "encryption_keys": SecretStr(key_text(new_key())),
        "token_keys": SecretStr(key_text(new_key())),
    }
    return Settings(_env_file=None, **(given | others))


@asynccontextmanager
async def served(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Api]:
    """Yield a client of the application that the real wiring builds."""
    metrics = Metrics()
    async with (
        wire(settings, clock=clock or SystemClock(), meter=ChainMeter(metrics)) as wired,
        client_of(build_app(wired, metrics), wired) as api,
    ):
        yield api
        await forget(wired)


@asynccontextmanager
async def served_with(
    settings: Settings, providers: Mapping[str, Factory], *, clock: Clock
) -> AsyncIterator[Api]:
    """Yield a client of the application over *providers* of the test's own, else wired the same."""
    metrics = Metrics()
    meter = ChainMeter(metrics)
    assert settings.database_url is not None
    assert settings.redis_url is not None
    background = Background()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(settings.database_url.get_secret_value(), connect_timeout=1)
        )
        redis = await stack.enter_async_context(
            open_redis(settings.redis_url.get_secret_value(), settings.redis_pool)
        )
        registry = await stack.enter_async_context(
            open_registry(providers, context=ProviderContext(clock), installed=())
        )
        jobs = JobQueue(redis, prefix=settings.redis_prefix, worker="this")
        accounts = await stack.enter_async_context(
            open_accounts(
                settings,
                settings.database_url.get_secret_value(),
                clock=clock,
                background=background,
                probe=NoVenues(),
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
        wired = Wired(
            settings,
            None,
            pool,
            redis,
            registry,
            cache,
            shared,
            live,
            background,
            jobs,
            backfills,
            IngestCounts(),
        )
        yield await stack.enter_async_context(client_of(build_app(wired, metrics), wired))
        await forget(wired)


@asynccontextmanager
async def client_of(app: Starlette, wired: Wired) -> AsyncIterator[Api]:
    # What the application raises is its failure, not ours: a client would get a 500.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://bargraph") as client:
        yield Api(client, wired)


async def forget(wired: Wired) -> None:
    """Delete what the application kept in Redis."""
    async for key in wired.redis.scan_iter(f"{wired.settings.redis_prefix}*", count=1000):
        await wired.redis.delete(key)


def write_recording(folder: Path, name: str, rows: list[tuple[float, ...]]) -> Path:
    """Write *rows* of (timestamp_ms, open, high, low, close, volume) as a recording."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.csv"
    lines = ["timestamp_ms,open,high,low,close,volume"]
    lines += [",".join(map(repr, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
