"""How tests read streams from the local exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from market.clock import FixedClock
from plugins.base import Stream
from plugins.ccxt_exchange import CcxtProvider
from tests.exchange_server.server import ExchangeServer

T = TypeVar("T")


@asynccontextmanager
async def provider_at(
    server: ExchangeServer, exchange_id: str, change: Callable[[Any], None] | None = None
) -> AsyncIterator[CcxtProvider]:
    """Give the provider of *exchange_id* at *server*; *change* may change ccxt's exchange."""

    def configure(exchange: Any) -> None:
        server.configure(exchange)
        if change is not None:
            change(exchange)

    provider = CcxtProvider(
        exchange_id, clock=FixedClock(server.now), configure=configure, timeout=5
    )
    try:
        yield provider
    finally:
        await provider.aclose()


async def told(stream: Stream[T]) -> T:
    """Return the next batch, or fail in bounded time."""
    async with asyncio.timeout(20):
        return await anext(aiter(stream))


async def told_until(stream: Stream[T], last: Callable[[T], bool]) -> list[T]:
    """Return batches up to the first of which *last* is true."""
    batches = [await told(stream)]
    while not last(batches[-1]):
        batches.append(await told(stream))
    return batches
