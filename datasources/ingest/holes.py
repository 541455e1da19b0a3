"""Fill the holes of what was told, from the past of a provider that keeps its trades."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import chained
from datasources.ingest.normalizer import InvalidTrades, Normalizer
from datasources.ingest.outbox import Outbox
from datasources.ingest.pacing import IngestPacing
from datasources.ingest.sources import Source
from datasources.ingest.stream import TradeStream
from datasources.live.redis_away import RedisAway
from db.raw_trades import Telling
from db.told import US
from market.errors import ProviderUnavailable, StoreUnavailable
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import TradesHistory

log = logging.getLogger(__name__)

_REACH = DAY
"""How far back holes are filled with trades; what is older is left to the bars of history."""
_BUSY_MS = 60_000
"""Entries that wait for so long would look like holes."""


class HoleFiller:
    """Fills holes of one source after each join, and now and then whatever was lost since."""

    def __init__(
        self,
        source: Source,
        past: TradesHistory,
        *,
        told: Callable[[], Awaitable[Spans]],
        stream: TradeStream,
        counts: IngestCounts,
        pacing: IngestPacing,
    ) -> None:
        self._source = source
        self._past = past
        self._told = told
        self._stream = stream
        self._counts = counts
        self._pacing = pacing
        self._name = f"{source.listing.provider} {source.listing.symbol}: past trades"
        self._outbox = Outbox(self._name, stream, counts)
        self._joined_at: int | None = None
        self._joined = asyncio.Event()

    def joined(self, at: int) -> None:
        """From *at* on, in microseconds, the stream tells everything."""
        self._joined_at = at
        self._joined.set()

    async def run(self) -> None:
        """Go on until cancelled."""
        await self._joined.wait()
        while True:
            self._joined.clear()
            assert self._joined_at is not None
            until = self._joined_at
            # The past takes a moment to have what was traded, and so do writers to store it.
            await asyncio.sleep(self._pacing.late)
            await self._fill(until)
            while not self._joined.is_set():
                try:
                    async with asyncio.timeout(self._pacing.patrol):
                        await self._joined.wait()
                except TimeoutError:
                    young = int(self._pacing.patrol * 1000)
                    await self._fill((self._source.provider.clock.now() - young) * US)

    async def _fill(self, until: int) -> None:
        """Tell what was not told before *until*, in microseconds."""
        try:
            for hole in await self._holes(until):
                for piece in _pieces(hole):
                    await self._tell(piece)
        except (ProviderUnavailable, StoreUnavailable, RedisAway) as failure:
            log.warning("%s: %s; it is tried again later", self._name, failure)

    async def _holes(self, until: int) -> list[Window]:
        """Return the holes in ms, oldest first."""
        if (await self._stream.lag()).oldest_ms > _BUSY_MS:
            return []
        told = await self._told()
        now = self._source.provider.clock.now()
        # Of the time before anything was told, only the minute that was running.
        first = (told.hull.since if told else until) // (MINUTE * US) * MINUTE * US
        holes = Spans.of(max(first, (now - _REACH) * US), until) - told
        return [Window(hole.since // US, -(-hole.until // US)) for hole in holes]

    async def _tell(self, piece: Window) -> None:
        trades = await self._past.trades(self._source.listing, piece)
        inside = [trade for trade in trades if piece.since <= trade.time < piece.until]
        try:
            columns = Normalizer(self._source.provider.clock).columns(inside)
        except InvalidTrades as wrong:
            # It may be wrong for good: what is younger does not wait for it.
            log.warning("%s: %s; it stays a hole, and is looked at again", self._name, wrong)
            return
        whole = Window(piece.since * US, piece.until * US)
        # An entry at a time: an hour may hold more than an outbox does.
        for part in chained(Telling(self._source.key, self._source.facts, columns, whole)):
            self._outbox.put(part)
            await self._outbox.send_all(retry=self._pacing.retry)
        self._counts.filled += len(columns)


def _pieces(hole: Window) -> list[Window]:
    """Return *hole* in pieces of an hour at the most, oldest first."""
    cuts = range(hole.since // HOUR * HOUR, hole.until, HOUR)
    return [Window(cut, cut + HOUR).clip(hole) for cut in cuts]
