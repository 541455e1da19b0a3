"""The one upstream of a listing's trades, order book or ticker: what is pushed is sent on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from datasources.health import HealthBoard
from datasources.live.broadcaster import Broadcaster
from datasources.live.events import FeedState, Status
from datasources.live.keys import FeedKey, Kind
from datasources.live.pacing import Pacing
from datasources.live.quotes import Quote, QuoteEvent
from datasources.live.upstream import Joined, Lost, Upstream, market_closed
from market.instrument import Instrument
from market.lru import LRU
from plugins.base import Provider, Stream, StreamsBooks, StreamsTickers, StreamsTrades, Trade

BOOK_DEPTH = 100
"""Levels a side that are sent on; viewers choose how many of them they see."""
_PAUSE = 0.1
"""Seconds between two states of a book or a ticker: of those in between only the newest counts."""
_MOST_TRADES = 1_000
"""Trades in one message."""
_REMEMBERED = 2_000
"""Trades that are known again when a stream begins with older ones."""


class QuotesFeed:
    """Feeds one key that carries no bars, under one lease, until cancelled."""

    def __init__(
        self,
        key: FeedKey,
        instrument: Instrument,
        provider: Provider,
        *,
        broadcaster: Broadcaster,
        health: HealthBoard,
        pacing: Pacing,
    ) -> None:
        self._key = key
        self._instrument = instrument
        self._provider = provider
        self._broadcaster = broadcaster
        self._health = health
        self._status = Status(FeedState.CATCHING_UP, 0, "The feed is starting.")
        self._wake = asyncio.Event()
        self._joining = False
        self._sent: LRU[str, bool] = LRU(max_count=_REMEMBERED)
        name = f"{key.listing.provider} {key.listing.symbol} {key.kind}"
        self._upstream: Upstream[Any] = Upstream(
            name,
            opening(key, provider),
            quiet=lambda: market_closed(instrument, provider.clock.now()),
            wake=self._wake,
            pacing=pacing,
        )

    def head(self) -> tuple[str, bytes]:
        """Return the channel, and how the feed is doing."""
        return self._key.name, QuoteEvent(None, self._status).packed()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._upstream.run(), name=f"upstream {self._key.name}")
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._send_pushed()
                if self._key.kind is not Kind.TRADES:
                    await asyncio.sleep(_PAUSE)

    async def _send_pushed(self) -> None:
        trades: list[Any] = []
        newest: Quote | None = None
        for _ in range(self._upstream.pushed.qsize()):
            pushed = self._upstream.pushed.get_nowait()
            if isinstance(pushed, Joined):
                self._joining = True
                self._health.answered(self._key.listing.provider)
                await self._say(FeedState.LIVE, "")
            elif isinstance(pushed, Lost):
                self._health.failed(self._key.listing.provider, pushed.reason)
                state = FeedState.STALLED if pushed.stalled else FeedState.DISCONNECTED
                await self._say(state, pushed.reason)
            elif self._key.kind is Kind.TRADES:
                trades += self._news(pushed)
            elif pushed is not None:
                newest = pushed
        quotes = [trades[n : n + _MOST_TRADES] for n in range(0, len(trades), _MOST_TRADES)]
        if newest is not None:
            quotes.append(newest)  # type: ignore[arg-type]  # trades and states never mix
        if quotes:
            await self._broadcaster.publish_many(
                [(self._key.name, QuoteEvent(quote).packed()) for quote in quotes]
            )

    def _news(self, trades: Sequence[Trade]) -> list[Trade]:
        """Return the trades that were not sent before: some exchanges begin with older ones."""
        news = list(trades)
        if self._joining and news:
            news = [trade for trade in news if _name(trade) not in self._sent]
            self._joining = False
        for trade in news:
            self._sent.put(_name(trade), True)
        return news

    async def _say(self, state: FeedState, message: str) -> None:
        if (state, message) != (self._status.state, self._status.message):
            self._status = Status(state, self._provider.clock.now(), message)
            await self._broadcaster.say(*self.head())


def _name(trade: Trade) -> str:
    return trade.id or f"{trade.time} {trade.price} {trade.amount}"


def opening(key: FeedKey, provider: Provider) -> Callable[[], Stream[Any]]:
    """Return what opens the stream of *key*. Raises `LookupError` if the provider has none."""
    if key.kind is Kind.TRADES and isinstance(provider, StreamsTrades):
        return partial(provider.stream_trades, key.listing)
    if key.kind is Kind.BOOK and isinstance(provider, StreamsBooks):
        return partial(provider.stream_book, key.listing, BOOK_DEPTH)
    if key.kind is Kind.TICKER and isinstance(provider, StreamsTickers):
        return partial(provider.stream_ticker, key.listing)
    raise LookupError(f"{key.listing.provider} pushes no {key.kind}")
