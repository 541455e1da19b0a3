"""The Redis that commands work on: the one of the settings, or the embedded one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from web.settings import Settings


@asynccontextmanager
async def connected_redis(settings: Settings) -> AsyncIterator[Redis]:
    """Yield the Redis of *settings*; the embedded one runs for as long as that takes."""
    from db.embedded.servers import embedded_servers  # noqa: PLC0415 - heavy
    from web.bootstrap import open_redis  # noqa: PLC0415

    if settings.redis_url is not None:
        async with open_redis(settings.redis_url.get_secret_value(), 2) as redis:
            yield redis
        return
    async with (
        embedded_servers(settings.data_dir) as embedded,
        open_redis(embedded.redis_url, 2) as redis,
    ):
        yield redis
