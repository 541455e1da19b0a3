"""All tails of this process: one for each base and series watched, however many watch.

While a tail is watched its feed is wanted, in whichever process that runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from datasources.found import Base
from datasources.live.base_tail import BaseTail, TailTools
from datasources.live.interest import Interest
from datasources.live.keys import FeedKey
from datasources.live.pacing import PACING, Pacing
from datasources.live.redis_away import RedisAway
from datasources.live.series_tail import SeriesTail
from datasources.plan import bases_of
from market.errors import BargraphError
from market.instrument import Instrument, Series
from plugins.registry import Registry

log = logging.getLogger(__name__)


class NotLive(BargraphError):
    """Nothing ever follows: the provider has no bars from which the series could be built."""

    code = "BAD_USER_INPUT"


class TooManyFeeds(BargraphError):
    """As many upstreams as this server runs are wanted already."""

    code = "RATE_LIMITED"


@dataclass(slots=True)
class _Followed:
    tail: BaseTail
    task: asyncio.Task[None]
    users: int = 0


@dataclass(slots=True)
class _Watched:
    tail: SeriesTail
    users: int = 0


class Wishes:
    """Says again and again which feeds are wanted, for as long as somebody wants them."""

    def __init__(self, interest: Interest, *, pacing: Pacing = PACING) -> None:
        self._interest = interest
        self._pacing = pacing
        self._users: dict[FeedKey, int] = {}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(self._pacing.want)
            try:
                await self._interest.want([key.packed() for key in self._users])
            except RedisAway as away:
                log.debug("%s", away)

    @asynccontextmanager
    async def wanting(self, key: FeedKey) -> AsyncIterator[None]:
        """Want the feed of *key* inside the block. Raises `TooManyFeeds`."""
        self._users[key] = self._users.get(key, 0) + 1
        try:
            if self._users[key] == 1:
                await self._say(key)
            yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                # The feed goes on for a while: whoever comes back soon finds it running.
                del self._users[key]

    async def _say(self, key: FeedKey) -> None:
        try:
            if await self._interest.want([key.packed()]):
                raise TooManyFeeds("This server follows as many series as it can; try again later.")
        except RedisAway as away:
            log.debug("%s", away)


class Tails:
    """Opens tails for viewers and closes them after the last one."""

    def __init__(self, registry: Registry, wishes: Wishes, tools: TailTools) -> None:
        self._registry = registry
        self._wishes = wishes
        self._tools = tools
        self._bases: dict[Base, _Followed] = {}
        self._series: dict[Series, _Watched] = {}

    @property
    def count(self) -> int:
        """How many series are watched."""
        return len(self._series)

    @asynccontextmanager
    async def open(
        self, series: Series, instrument: Instrument
    ) -> AsyncIterator[tuple[SeriesTail, BaseTail]]:
        """Yield the tail of *series* and that of its base, both followed since before.

        Raises `NotLive`, `TooManyFeeds`.
        """
        provider = self._registry.get(series.listing.provider)
        bases = bases_of(series, instrument, provider)
        if not bases:
            raise NotLive(
                f"{series.listing.provider} has no bars that {series.timeframe} is made of."
            )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._wishes.wanting(FeedKey.of(bases[0])))
            followed = await stack.enter_async_context(self._following(bases[0]))
            watched = self._series.get(series)
            if watched is None:
                watched = self._series[series] = _Watched(SeriesTail(series, instrument, bases))
                followed.add(watched.tail)
            watched.users += 1
            try:
                yield watched.tail, followed
            finally:
                watched.users -= 1
                if not watched.users:
                    del self._series[series]
                    followed.remove(watched.tail)

    async def aclose(self) -> None:
        """Stop following; viewers that are left see their tails end."""
        followed = list(self._bases.values())
        for one in followed:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in followed), return_exceptions=True)
        for watched in self._series.values():
            watched.tail.readers.end()

    @asynccontextmanager
    async def _following(self, base: Base) -> AsyncIterator[BaseTail]:
        one = self._bases.get(base)
        if one is None:
            clock = self._registry.get(base.listing.provider).clock
            tail = BaseTail(base, clock, self._tools)
            task = asyncio.create_task(tail.run(), name=f"tail {base.listing.symbol}")
            one = self._bases[base] = _Followed(tail, task)
        one.users += 1
        try:
            await _ready(one)
            yield one.tail
        finally:
            one.users -= 1
            if not one.users:
                self._bases.pop(base, None)
                one.task.cancel()
                await asyncio.gather(one.task, return_exceptions=True)


async def _ready(followed: _Followed) -> None:
    """Wait until the tail listens; raise what kept it from that."""
    ready = asyncio.ensure_future(followed.tail.ready.wait())
    try:
        await asyncio.wait([ready, followed.task], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            followed.task.result()
    finally:
        ready.cancel()
