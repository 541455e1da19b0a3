"""Run the feeds that somebody wants and that this process holds the lease of.

Every process of this role looks at what is wanted and takes what nobody holds. A feed ends when its
lease is lost, when nobody wants it any more, or with the process; then another may take it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from datasources.aggregates import key_of
from datasources.live.announcer import LeaseLost
from datasources.live.bars_feed import BarsFeed
from datasources.live.broadcaster import Broadcaster
from datasources.live.interest import Interest
from datasources.live.keys import FeedKey
from datasources.live.leases import Lease, Leases
from datasources.live.redis_away import RedisAway
from db.candles import CandleStore
from market.errors import BargraphError, StoreUnavailable

log = logging.getLogger(__name__)

_LOOK, _RENEW, _HEADS = 0.5, 1.0, 2.0
"""Seconds between two looks at what is wanted, two renewals, two repetitions of where feeds are."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
MOST_FEEDS = 5_000


class Feed(Protocol):
    """One upstream at work."""

    def head(self) -> tuple[str, bytes]:
        """Return the channel and what repeats where the feed stands."""
        ...

    async def run(self) -> None:
        """Feed until cancelled. May raise an `ExceptionGroup` with `LeaseLost` in it."""
        ...


@dataclass(slots=True)
class _Running:
    feed: Feed
    lease: Lease
    task: asyncio.Task[None]


class FeedKeeper:
    """Keeps at most *most* feeds running; `run` does the work until it is cancelled.

    *open_feed* builds the feed of a key under a lease; it raises `LookupError` or `BargraphError`
    for a key that this process cannot feed.
    """

    def __init__(
        self,
        *,
        interest: Interest,
        leases: Leases,
        broadcaster: Broadcaster,
        store: CandleStore,
        open_feed: Callable[[FeedKey, Lease], Awaitable[Feed]],
        most: int = MOST_FEEDS,
    ) -> None:
        self._interest = interest
        self._leases = leases
        self._broadcaster = broadcaster
        self._store = store
        self._open_feed = open_feed
        self._most = most
        self._running: dict[FeedKey, _Running] = {}
        self._pauses: dict[FeedKey, tuple[float, float]] = {}
        self._away = False

    @property
    def feeds(self) -> int:
        """How many feeds this process runs."""
        return len(self._running)

    @property
    def held_bars(self) -> int:
        """How many closed bars wait for the store to come back."""
        feeds = (running.feed for running in self._running.values())
        return sum(feed.held for feed in feeds if isinstance(feed, BarsFeed))

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look_again(), name="feeds: look")
                tasks.create_task(self._renew_again(), name="feeds: renew")
                tasks.create_task(self._repeat_heads(), name="feeds: heads")
        finally:
            await self._stop(list(self._running))

    async def _look_again(self) -> None:
        async with self._broadcaster.listen(Interest.POKED) as pokes:
            while True:
                try:
                    await self._look()
                    self._note_back()
                except RedisAway as away:
                    self._note_away(away)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await anext(pokes)

    async def _look(self) -> None:
        wanted = {
            key for packed in await self._interest.wanted() if (key := FeedKey.unpacked(packed))
        }
        await self._stop([key for key in self._running if key not in wanted])
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in wanted}
        now = asyncio.get_running_loop().time()
        for key in wanted - self._running.keys():
            if len(self._running) >= self._most:
                break
            if self._pauses.get(key, (0.0, 0.0))[0] <= now:
                await self._take(key)

    async def _take(self, key: FeedKey) -> None:
        lease = await self._leases.acquire(key.name)
        if lease is None:
            return
        try:
            feed = await self._open_feed(key, lease)
        except (BargraphError, LookupError) as failure:
            log.warning("Cannot feed %s %s: %s", key.listing.symbol, key.kind, failure)
            self._pause(key)
            await self._leases.release(lease)
            return
        task = asyncio.create_task(self._feed(key, feed), name=f"feed {key.name}")
        self._running[key] = _Running(feed, lease, task)

    async def _feed(self, key: FeedKey, feed: Feed) -> None:
        """Run *feed*; whatever ends it but a cancellation gives the key up for a while."""
        try:
            await feed.run()
        except BaseExceptionGroup as failures:
            lost, others = failures.split(LeaseLost)
            if lost is not None:
                log.warning("Another process feeds %s %s now", key.listing.symbol, key.kind)
            if others is not None:
                log.error("Feed %s %s failed", key.listing.symbol, key.kind, exc_info=others)
        except Exception:
            log.exception("Feed %s %s failed", key.listing.symbol, key.kind)
        running = self._running.pop(key, None)
        self._pause(key)
        if running is not None:
            await self._leases.release(running.lease)

    def _pause(self, key: FeedKey) -> None:
        _, last = self._pauses.get(key, (0.0, _FIRST_PAUSE / 2))
        pause = min(2 * last, _LONGEST_PAUSE)
        self._pauses[key] = (asyncio.get_running_loop().time() + pause, pause)

    async def _stop(self, keys: Sequence[FeedKey]) -> None:
        stopped = [self._running.pop(key) for key in keys if key in self._running]
        for running in stopped:
            running.task.cancel()
        await asyncio.gather(*(running.task for running in stopped), return_exceptions=True)
        await asyncio.gather(*(self._leases.release(running.lease) for running in stopped))

    async def _renew_again(self) -> None:
        while True:
            await asyncio.sleep(_RENEW)
            held = {running.lease for running in self._running.values()}
            try:
                still = await self._leases.renew(held)
            except RedisAway:
                # Nobody else can take them while it is away; afterwards they have ended.
                continue
            gone = held - still
            lost = [key for key, running in self._running.items() if running.lease in gone]
            for key in lost:
                log.warning("The lease of %s %s has ended", key.listing.symbol, key.kind)
            await self._stop(lost)

    async def _repeat_heads(self) -> None:
        while True:
            await asyncio.sleep(_HEADS)
            await self._note_states()
            await self._broadcaster.publish_many(
                [running.feed.head() for running in self._running.values()]
            )

    async def _note_states(self) -> None:
        """Look once, for all feeds, whether others wrote what they must announce."""
        bars = [
            (key, running.feed)
            for key, running in self._running.items()
            if isinstance(running.feed, BarsFeed)
        ]
        if not bars:
            return
        try:
            states = await self._store.states([key_of(key.base) for key, _ in bars])
        except StoreUnavailable:
            return
        for (_, feed), state in zip(bars, states, strict=True):
            feed.note(state)

    def _note_away(self, away: RedisAway) -> None:
        if not self._away:
            log.warning("Redis is away, no feed can be taken: %s", away)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.warning("Redis is back, feeds are taken again")
        self._away = False
