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
from datasources.live.pacing import PACING, Pacing
from datasources.live.redis_away import RedisAway
from db.candles import CandleStore
from market.errors import BargraphError, StoreUnavailable

log = logging.getLogger(__name__)

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
    """A feed under its lease; *feed* is None until it was opened."""

    lease: Lease
    task: asyncio.Task[None]
    feed: Feed | None = None


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
        pacing: Pacing = PACING,
    ) -> None:
        self._interest = interest
        self._leases = leases
        self._broadcaster = broadcaster
        self._store = store
        self._open_feed = open_feed
        self._most = most
        self._pacing = pacing
        self._running: dict[FeedKey, _Running] = {}
        self._ending: set[asyncio.Task[None]] = set()
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
                tasks.create_task(self._note_states(), name="feeds: states")
        finally:
            self._stop(list(self._running))
            await asyncio.gather(*self._ending, return_exceptions=True)

    async def _look_again(self) -> None:
        async with self._broadcaster.listen(Interest.POKED) as pokes:
            while True:
                try:
                    await self._look()
                    self._note_back()
                except RedisAway as away:
                    self._note_away(away)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pacing.look):
                        await anext(pokes)

    async def _look(self) -> None:
        wanted = {
            key for packed in await self._interest.wanted() if (key := FeedKey.unpacked(packed))
        }
        self._stop([key for key in self._running if key not in wanted])
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in wanted}
        now = asyncio.get_running_loop().time()
        for key in wanted - self._running.keys():
            if len(self._running) >= self._most:
                break
            if self._pauses.get(key, (0.0, 0.0))[0] <= now:
                await self._take(key)

    async def _take(self, key: FeedKey) -> None:
        lease = await self._leases.acquire(key.name)
        if lease is not None:
            task = asyncio.create_task(self._feed(key, lease), name=f"feed {key.name}")
            self._running[key] = _Running(lease, task)

    async def _feed(self, key: FeedKey, lease: Lease) -> None:
        """Feed *key*; whatever ends that but a cancellation gives the key up for a while."""
        began = asyncio.get_running_loop().time()
        try:
            # A provider may take long to say what it lists: other feeds do not wait for it.
            feed = await self._open_feed(key, lease)
            self._running[key].feed = feed
            await feed.run()
        except (BargraphError, LookupError) as failure:
            log.warning("Cannot feed %s %s: %s", key.listing.symbol, key.kind, failure)
        except BaseExceptionGroup as failures:
            lost, others = failures.split(LeaseLost)
            if lost is not None:
                log.warning("Another process feeds %s %s now", key.listing.symbol, key.kind)
            if others is not None:
                log.error("Feed %s %s failed", key.listing.symbol, key.kind, exc_info=others)
        except Exception:
            log.exception("Feed %s %s failed", key.listing.symbol, key.kind)
        finally:
            # Not before the upstream is closed: two of them would be one too many.
            await self._leases.release(lease)
        self._running.pop(key, None)
        self._pause(key, began)

    def _pause(self, key: FeedKey, began: float) -> None:
        now = asyncio.get_running_loop().time()
        _, last = self._pauses.get(key, (0.0, 0.0))
        if now - began > _LONGEST_PAUSE:
            # It worked, so this is not the failure that there was before.
            last = 0.0
        pause = min(max(2 * last, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._pauses[key] = (now + pause, pause)

    def _stop(self, keys: Sequence[FeedKey]) -> None:
        """End feeds without waiting: a stream that does not close must not cost other leases."""
        for key in keys:
            running = self._running.pop(key, None)
            if running is not None:
                running.task.cancel()
                self._ending.add(running.task)
                running.task.add_done_callback(self._ending.discard)

    async def _renew_again(self) -> None:
        while True:
            await asyncio.sleep(self._pacing.renew)
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
            self._stop(lost)

    async def _repeat_heads(self) -> None:
        while True:
            await asyncio.sleep(self._pacing.heads)
            feeds = [running.feed for running in self._running.values()]
            await self._broadcaster.repeat([feed.head() for feed in feeds if feed])

    async def _note_states(self) -> None:
        """Look again and again, for all feeds at once, whether others wrote what they announce."""
        while True:
            await asyncio.sleep(self._pacing.heads)
            bars = [
                (key, running.feed)
                for key, running in self._running.items()
                if isinstance(running.feed, BarsFeed)
            ]
            if not bars:
                continue
            with suppress(StoreUnavailable):
                states = await self._store.states([key_of(key.base) for key, _ in bars])
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
