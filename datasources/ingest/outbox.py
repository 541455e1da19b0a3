"""Put what one source tells into the stream, and hold it while there is no room, up to a bound."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import chained, packed
from datasources.ingest.stream import TradeStream
from datasources.live.redis_away import RedisAway
from db.raw_trades import Telling

log = logging.getLogger(__name__)

_HELD = 20_000
"""Trades of a source that wait for room, about a megabyte; the newest of more are let go."""
_AT_ONCE = 100


class Outbox:
    """What waits to be put into the stream, in order."""

    def __init__(
        self, name: str, stream: TradeStream, counts: IngestCounts, *, held: int = _HELD
    ) -> None:
        self._name = name
        self._stream = stream
        self._counts = counts
        self._most = held
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._held = 0
        self._stuck = False
        self._shed: int | None = None
        """Trades let go since there was no room; None while there is."""

    @property
    def empty(self) -> bool:
        return not self._waiting

    def put(self, telling: Telling) -> bool:
        """Take *telling* in; False if there was no room for its end, which is one hole then."""
        parts = deque(chained(telling))
        while parts and self._held + len(parts[0].trades) < self._most:
            part = parts.popleft()
            # An entry without trades takes room too.
            weight = len(part.trades) + 1
            self._waiting.append((packed(part), weight))
            self._held += weight
        if parts:
            self._let_go(sum(len(part.trades) for part in parts))
        elif self._shed is not None:
            log.error("%s: %d were let go; history has to fill the hole", self._name, self._shed)
            self._shed = None
        return not parts

    def _let_go(self, count: int) -> None:
        if self._shed is None:
            log.error("%s: too many wait for room, so new ones are let go", self._name)
        self._shed = (self._shed or 0) + count
        self._counts.shed += count

    async def send(self) -> bool:
        """Put into the stream what there is room for; return whether that is all."""
        while self._waiting:
            some = [self._waiting[n] for n in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                taken = await self._stream.add([payload for payload, _ in some])
            except RedisAway as away:
                self._note_stuck(str(away))
                return False
            for _ in range(taken):
                _, weight = self._waiting.popleft()
                self._held -= weight
                self._counts.published += weight - 1
            if taken < len(some):
                self._note_stuck("the stream is full")
                return False
        self._stuck = False
        return True

    async def send_all(self, *, retry: float) -> None:
        """Wait until everything has gone, trying again after *retry* seconds."""
        while True:
            if await self.send():
                return
            await asyncio.sleep(retry)

    def _note_stuck(self, reason: str) -> None:
        if not self._stuck:
            log.warning("%s: trades are held back: %s", self._name, reason)
        self._stuck = True
