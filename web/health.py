"""Tell whether the process lives, and whether it can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import asyncpg
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from web.bootstrap import Wired

_SECONDS = 2.0


def health_routes(wired: Wired) -> list[Route]:
    """Return `/livez` and `/readyz`.

    Only what stops answers makes the server not ready. Without Redis or PostgreSQL candles still
    come from the providers, so that is said and no more; without PostgreSQL and any provider
    there is nothing to answer from.
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        store, cache = await asyncio.gather(
            _answers(wired.pool.fetchval("SELECT 1")), _answers(wired.redis.ping())
        )
        providers = [entry for entry in wired.registry.entries() if entry.provider]
        answers = store or bool(providers)
        status = "ok" if store and cache else "degraded" if answers else "unavailable"
        return JSONResponse(
            {
                "status": status,
                "postgres": _word(store),
                "redis": _word(cache),
                "providers": len(providers),
            },
            status_code=200 if answers else 503,
        )

    return [Route("/livez", live), Route("/readyz", ready)]


async def _answers(call: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            await call
    except (OSError, RedisError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _word(answered: bool) -> str:
    return "ok" if answered else "away"
