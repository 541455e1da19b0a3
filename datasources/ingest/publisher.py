"""Put the trades of one source into the stream, in order, with the time that they complete.

What is told hangs together from the first batch of a stream on. Whatever breaks it (a lost
connection, a trade that cannot be true, no room) leaves a hole; no minute in it counts as whole.
"""

from __future__ import annotations

import asyncio
import logging

from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import parts_of
from datasources.ingest.following import Following
from datasources.ingest.holes import HoleFiller
from datasources.ingest.normalizer import InvalidTrades, Normalizer
from datasources.ingest.outbox import Outbox
from datasources.ingest.pacing import IngestPacing
from datasources.ingest.sources import Source, Told, told_by
from datasources.ingest.stream import TradeStream
from datasources.live.pacing import Pacing
from datasources.live.upstream import Joined, Lost, Upstream, market_closed
from db.raw_trades import RawTradeStore, Telling
from market.trades import Trades
from market.window import Window

log = logging.getLogger(__name__)

_AT_ONCE = 5_000
"""Trades that are taken from a provider's stream before they are sent on."""


class TradePublisher:
    """Publishes one source until cancelled."""

    def __init__(
        self,
        source: Source,
        *,
        stream: TradeStream,
        store: RawTradeStore,
        counts: IngestCounts,
        pacing: IngestPacing,
        upstream_pacing: Pacing,
    ) -> None:
        self._source = source
        self._counts = counts
        self._pacing = pacing
        self._name = f"{source.listing.provider} {source.listing.symbol} trades"
        self._wake = asyncio.Event()
        clock, instrument = source.provider.clock, source.instrument
        self._upstream: Upstream[Told] = Upstream(
            self._name,
            told_by(source, poll=pacing.poll, late=int(pacing.late * 1000)),
            quiet=lambda: market_closed(instrument, clock.now()),
            wake=self._wake,
            pacing=upstream_pacing,
        )
        self._outbox = Outbox(self._name, stream, counts)
        self._holes = None
        if source.past is not None:
            self._holes = HoleFiller(
                source,
                source.past,
                told=lambda: store.told(source.key),
                stream=stream,
                counts=counts,
                pacing=pacing,
            )
        self._normalizer = Normalizer(clock)
        self._following = Following()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._upstream.run(), name=f"upstream {self._name}")
            if self._holes is not None:
                tasks.create_task(self._holes.run(), name=f"holes of {self._name}")
            while True:
                await self._wait()
                more = True
                while more:
                    more = self._take_pushed()
                    await self._outbox.send()

    async def _wait(self) -> None:
        """Wait for news, and a moment longer, so that many trades share an entry."""
        if self._outbox.empty:
            await self._wake.wait()
            await asyncio.sleep(self._pacing.linger)
        else:
            await asyncio.sleep(self._pacing.retry)
        self._wake.clear()

    def _take_pushed(self) -> bool:
        """Take some of what was pushed to the outbox; return whether there is more."""
        parts: list[Trades] = []
        since, taken = self._following.reached, 0
        while taken < _AT_ONCE and not self._upstream.pushed.empty():
            pushed = self._upstream.pushed.get_nowait()
            if isinstance(pushed, Joined):
                continue
            if isinstance(pushed, Lost) or (trades := self._columns(pushed)) is None:
                self._put(parts, since)
                self._cut()
                parts, since = [], None
                continue
            if self._follow(pushed, trades):
                since = self._following.reached
            parts.append(trades)
            taken += len(trades)
        self._put(parts, since)
        return not self._upstream.pushed.empty()

    def _columns(self, told: Told) -> Trades | None:
        """Return the trades as columns, None if one of them cannot be true."""
        try:
            return self._normalizer.columns(told.trades)
        except InvalidTrades as wrong:
            log.warning("%s: %s; the batch is refused", self._name, wrong)
            self._counts.refused += 1
            return None

    def _follow(self, told: Told, trades: Trades) -> bool:
        newest = int(trades.time.max()) if len(trades) else None
        begins = self._following.take(told, newest, now=self._source.provider.clock.now())
        if begins and self._holes is not None and self._following.reached is not None:
            self._holes.joined(self._following.reached)
        return begins

    def _put(self, parts: list[Trades], since: int | None) -> None:
        """Hand on *parts*, and that everything since then was told."""
        trades, until = Trades.concat(parts), self._following.reached
        if since is None or until is None or (not len(trades) and until == since):
            return
        if len(trades):
            # However still time stands, each entry completes some of its own.
            self._following.reach(since + parts_of(len(trades)))
            until = max(until, since + parts_of(len(trades)))
        told = Window(since, until)
        if not self._outbox.put(Telling(self._source.key, self._source.facts, trades, told)):
            self._cut()

    def _cut(self) -> None:
        """From here on something is missing, until a stream begins anew or there is room."""
        self._following.cut()
        self._normalizer = Normalizer(self._source.provider.clock)
