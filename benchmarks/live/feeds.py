"""What happens in the market of a run: one bar that grows, told to a server as it expects it.

Its volume is when it was told, by the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol
from uuid import uuid4

from redis.asyncio import Redis

from benchmarks.live.asked import CHANNEL, SYMBOL, update
from datasources.aggregates import key_of
from datasources.cursors import CandleCursor
from datasources.found import Base
from datasources.live.broadcaster import Broadcaster
from datasources.live.events import BaseEvent, FeedState, Status
from datasources.live.keys import FeedKey
from datasources.live.pacing import PACING
from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from db.pool import open_pool
from market.bars import Bars
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE
from plugins.sim.provider import SimProvider
from web.bootstrap import SQL, open_redis
from web.clock import SystemClock
from web.settings import Settings

_PRICES = {"open": 64012.31, "high": 64102.47, "low": 63990.08, "close": 64055.9}


class Feed(Protocol):
    """Where events begin."""

    async def join(self) -> None:
        """Get ready to speak to a server that was started."""

    async def tell(self) -> bytes:
        """Let the bar grow now, and return the `update` that viewers must see."""


class PeerFeed:
    """Publishes the update itself, for servers that do nothing but send it on."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._store = uuid4()

    async def join(self) -> None:
        """Nothing has to be known."""

    async def tell(self) -> bytes:
        bar = _bar_now()
        message = update(bar, str(CandleCursor(self._store, {1: 1}, bar["time"])))
        await self._redis.publish(CHANNEL, message)
        return message


class OurFeed:
    """Speaks as a feed process does: the same bytes through the same broadcaster."""

    def __init__(self, broadcaster: Broadcaster, store: CandleStore) -> None:
        dataset = SimProvider(clock=SystemClock()).description.dataset
        listing = Listing("sim", "crypto", SYMBOL, dataset=dataset)
        self._base = Base(listing, MINUTE_FRAME, native=False)
        self._channel = FeedKey.of(self._base).name
        self._broadcaster = broadcaster
        self._store = store
        self._head: BaseEvent | None = None

    async def join(self) -> None:
        """Take what the store holds of the base as all that was told, so that nobody sees a hole.

        What closes during a run is not told: the store has it for whoever asks.
        """
        store = await self._store.store_id()
        (state,) = await self._store.states([key_of(self._base)])
        series, position = (state.id, state.position) if state else (None, 0)
        now = _minute_now()
        self._head = BaseEvent(store, series, position, position, now, now)
        await self._say(self._head)

    async def tell(self) -> bytes:
        assert self._head is not None
        bar = _bar_now()
        forming = Bars.of(
            *([bar[name]] for name in ("time", "open", "high", "low", "close", "volume"))
        )
        head = self._head = replace(self._head, told=bar["time"], forming=forming)
        await self._broadcaster.publish(self._channel, head.packed())
        positions = {} if head.series is None else {head.series: head.position}
        return update(bar, str(CandleCursor(head.store, positions, head.told)))

    async def repeat(self) -> None:
        """Say where the base stands as often as feeds do, until cancelled."""
        while True:
            await asyncio.sleep(PACING.heads)
            if self._head is not None:
                await self._say(replace(self._head, told=_minute_now()))

    async def _say(self, head: BaseEvent) -> None:
        status = Status(FeedState.LIVE, head.told, "")
        await self._broadcaster.publish(self._channel, replace(head, status=status).packed())


@asynccontextmanager
async def open_feeds(stores: EmbeddedServers) -> AsyncIterator[tuple[OurFeed, PeerFeed]]:
    """Yield the feeds of a run over the servers it uses."""
    prefix = Settings.model_fields["redis_prefix"].default
    await migrate(stores.postgres_url, SQL)
    async with (
        open_pool(stores.postgres_url, max_size=1) as pool,
        open_redis(stores.redis_url, 4) as redis,
        Broadcaster(redis, prefix=prefix) as broadcaster,
    ):
        ours = OurFeed(broadcaster, CandleStore(pool))
        repeating = asyncio.create_task(ours.repeat(), name="heads")
        try:
            yield ours, PeerFeed(redis)
        finally:
            repeating.cancel()
            await asyncio.gather(repeating, return_exceptions=True)


def _bar_now() -> dict[str, Any]:
    """Return the running bar, as clients see it."""
    return {
        "time": _minute_now(),
        **_PRICES,
        "volume": round(time.monotonic(), 6),
        "isClosed": False,
    }


def _minute_now() -> int:
    return SystemClock().now() // MINUTE * MINUTE
