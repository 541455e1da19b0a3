"""Take trades from the stream, store them in batches, and acknowledge what is committed.

Whatever is delivered again is stored again, which changes nothing. What cannot be stored is tried
by itself a few times and then put among the dead letters, so that it stands in nobody's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from datasources.aggregates import head_of
from datasources.found import Base, Head
from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import unpacked
from datasources.ingest.pacing import IngestPacing
from datasources.ingest.stream import Abandoned, Message, TradeStream
from datasources.live.redis_away import RedisAway
from db.raw_trades import Ingested, RawTradeStore, Telling
from market.clock import Clock
from market.errors import BargraphError, StoreUnavailable
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE

log = logging.getLogger(__name__)

TRIES = 3
"""How often an entry that cannot be stored is tried by itself."""
_ALONE_FROM = 3
"""An entry given out so often is taken by itself: it may be what its readers died of."""
MOST_DELIVERIES = 20
"""An entry given out more often is not tried again."""
_READ_AT_ONCE = 100
_WAIT_SECONDS = 1.0
"""How long a reader waits for an entry before it looks for abandoned ones."""
_BATCHES_AHEAD = 1
"""Batches read while one is being stored."""


@dataclass(slots=True)
class _Batch:
    """Entries for one transaction."""

    messages: list[Message] = field(default_factory=list)
    tellings: list[Telling] = field(default_factory=list)
    rows: int = 0

    def add(self, message: Message, telling: Telling) -> None:
        self.messages.append(message)
        self.tellings.append(telling)
        self.rows += len(telling.trades)


class TradeWriter:
    """One reader of the stream, called *name* like no other; `run` does the work.

    *moved* tells the cache of a write. *clock_of* returns a provider's clock, None where this
    process does not have it.
    """

    def __init__(
        self,
        name: str,
        *,
        stream: TradeStream,
        store: RawTradeStore,
        moved: Callable[[Mapping[Base, Head]], Awaitable[None]],
        clock_of: Callable[[str], Clock | None],
        counts: IngestCounts,
        pacing: IngestPacing,
    ) -> None:
        self._name = name
        self._stream = stream
        self._store = store
        self._moved = moved
        self._clock_of = clock_of
        self._counts = counts
        self._pacing = pacing
        self._batches: asyncio.Queue[_Batch] = asyncio.Queue(_BATCHES_AHEAD)
        self._in_hand: dict[bytes, Message] = {}
        """Read, and neither acknowledged nor given up."""
        self._failure = ""
        """Of the batch that failed last."""
        self._claim_at = 0.0
        self._away = self._store_away = False

    async def run(self) -> None:
        """Go on until cancelled. What is in hand then is given to another reader after a while."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_again(), name="trades: read")
            tasks.create_task(self._write_again(), name="trades: write")

    async def leave(self) -> None:
        """Say that this reader is gone, if nothing is left to it."""
        try:
            await self._stream.leave(self._name)
        except RedisAway as away:
            log.debug("%s", away)

    async def _read_again(self) -> None:
        while True:
            try:
                await self._stream.join()
                # Who was killed could not say that it left.
                await self._stream.leave(self._name)
                while True:
                    claimed = await self._claim()
                    await self._gather(0 if claimed else _WAIT_SECONDS)
                    self._note_back()
            except RedisAway as away:
                self._note_away(away)
                await asyncio.sleep(self._pacing.retry)

    async def _claim(self) -> bool:
        """Take over what readers left behind, and what could not be acknowledged.

        Return whether there was any, and so may be more.

        What was given out often is taken and stored one by one: what was only beside an entry that
        kills its readers must not be counted as if it did.
        """
        if _loop_time() < self._claim_at:
            return False
        idle = int(self._pacing.idle * 1000)
        found = await self._stream.abandoned(idle_ms=idle, most=_READ_AT_ONCE)
        found = [entry for entry in found if entry.id not in self._in_hand]
        if not found:
            self._claim_at = _loop_time() + self._pacing.claim
        await self._take_over([entry for entry in found if entry.deliveries < _ALONE_FROM])
        for entry in found:
            if entry.deliveries >= _ALONE_FROM:
                await self._batches.join()
                await self._take_over([entry])
        return bool(found)

    async def _take_over(self, entries: Sequence[Abandoned]) -> None:
        idle, batch = int(self._pacing.idle * 1000), _Batch()
        for message in await self._stream.claim(self._name, entries, idle_ms=idle):
            if message.deliveries > MOST_DELIVERIES:
                await self._bury(message, f"given out {message.deliveries} times, never stored")
            else:
                await self._take(message, batch)
        await self._hand_on(batch)

    async def _gather(self, patience: float) -> None:
        """Read until there is enough for a transaction, or the first has waited long enough.

        *patience* in seconds: how long to wait for the first.
        """
        batch, since = _Batch(), 0.0
        while batch.rows < self._pacing.rows:
            left = since + self._pacing.batch - _loop_time() if batch.messages else patience
            if batch.messages and left <= 0:
                break
            wait = max(1, int(left * 1000))
            messages = await self._stream.read(self._name, most=_READ_AT_ONCE, wait_ms=wait)
            if not messages:
                break
            since = since or _loop_time()
            for message in messages:
                await self._take(message, batch)
        await self._hand_on(batch)

    async def _take(self, message: Message, batch: _Batch) -> None:
        self._in_hand[message.id] = message
        try:
            batch.add(message, unpacked(message.payload))
        except BargraphError as unreadable:
            await self._bury(message, str(unreadable))

    async def _hand_on(self, batch: _Batch) -> None:
        if batch.messages:
            await self._batches.put(batch)

    async def _write_again(self) -> None:
        while True:
            batch = await self._batches.get()
            if not await self._stored(batch):
                for message, telling in zip(batch.messages, batch.tellings, strict=True):
                    alone = _Batch()
                    alone.add(message, telling)
                    await self._try_alone(alone)
            self._batches.task_done()

    async def _try_alone(self, batch: _Batch) -> None:
        for _ in range(TRIES):
            if await self._stored(batch):
                return
            await asyncio.sleep(self._pacing.retry)
        await self._bury(batch.messages[0], self._failure)

    async def _stored(self, batch: _Batch) -> bool:
        """Store *batch* and acknowledge it; False if something in it cannot be stored.

        While the store is away it waits.
        """
        while True:
            try:
                answers = await self._store.write(batch.tellings)
            except StoreUnavailable as away:
                await self._wait_for_store(away)
            except Exception as failure:
                self._failure = f"{type(failure).__name__}: {failure}"
                log.warning("%d entries of trades: %s", len(batch.messages), self._failure)
                return False
            else:
                break
        self._store_away = False
        await self._tell(answers)
        self._counts.stored += batch.rows
        try:
            await self._stream.done(batch.messages)
        except RedisAway as gone:
            # It is given out again, which does no harm.
            log.warning("%s", gone)
        self._forget(batch.messages)
        return True

    async def _wait_for_store(self, away: StoreUnavailable) -> None:
        if not self._store_away:
            log.warning("Trades wait in the stream: %s", away)
        self._store_away = True
        await asyncio.sleep(self._pacing.retry)
        try:
            await self._stream.hold(self._name, list(self._in_hand.values()))
        except RedisAway as gone:
            log.debug("%s", gone)

    async def _tell(self, answers: Sequence[Ingested]) -> None:
        """Tell the cache, also of a state that a writer who died may not have told."""
        await self._moved({_base(one.key.listing): head_of(one.state) for one in answers})
        delays = []
        for one in answers:
            clock = self._clock_of(one.key.listing.provider)
            if clock is not None and one.newest_bar is not None:
                delays.append(clock.now() - one.newest_bar - MINUTE)
        if delays:
            self._counts.bar_delay_ms = max(delays)

    async def _bury(self, message: Message, reason: str) -> None:
        log.error("An entry of trades goes to the dead letters: %s", reason)
        try:
            await self._stream.bury(message, reason)
            self._counts.buried += 1
        except RedisAway as gone:
            log.warning("%s", gone)
        self._forget([message])

    def _forget(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._in_hand.pop(message.id, None)

    def _note_away(self, away: RedisAway) -> None:
        if not self._away:
            log.warning("No trades can be read: %s", away)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.warning("Trades can be read again")
        self._away = False


def _base(listing: Listing) -> Base:
    return Base(listing, MINUTE_FRAME, native=False)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
