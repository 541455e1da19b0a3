"""One process that ingests, over real servers, with a provider that a test directs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from datasources.health import HealthBoard
from datasources.ingest.counts import IngestCounts
from datasources.ingest.pacing import IngestPacing
from datasources.ingest.sources import SourceName
from datasources.ingest.stream import TradeStream
from datasources.meter import NoMeter
from db.candles import CandleStore
from db.raw_trades import RawTradeStore
from db.stored import SeriesKey, SeriesState
from db.told import Proof
from market.bars import Bars
from market.clock import FixedClock
from market.errors import ProviderUnavailable
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import Spans, Window
from plugins.base import Trade
from plugins.registry import Entry, Registry
from tests.datasources.chains import SETTLE
from tests.datasources.live.processes import PATIENCE, QUICK, until
from tests.datasources.live.streaming import Polled, Streams
from tests.db.minutes import stored
from tests.db.trades import LATE, Deal
from web.background import Background
from web.bootstrap import open_chain
from web.ingest_wiring import open_ingest
from web.live_wiring import Links
from web.settings import load_settings

HASTY = IngestPacing(
    linger=0.01,
    retry=0.02,
    poll=0.05,
    late=0.02,
    patrol=0.2,
    look=0.05,
    renew=0.2,
    batch=0.02,
    claim=0.1,
    idle=0.5,
    sample=0.05,
)


def deals_of(trades: Sequence[Trade]) -> list[Deal]:
    return sorted(Deal.of(one.id, one.time, one.price, one.amount) for one in trades)


class Pushing(Polled):
    """A provider that pushes trades and keeps none."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        super().__init__(clock, **others)
        self.streams: Streams[Sequence[Trade]] = Streams(())
        self.executed: list[Trade] = []

    @property
    def symbol(self) -> str:
        return next(iter(self.markets))

    @property
    def deals(self) -> list[Deal]:
        """All that was executed, as the store should hold it."""
        return deals_of(self.executed)

    def stream_trades(self, listing: Listing) -> Any:
        return self.streams.stream()

    def execute(self, at: int, price: float, amount: float = 1.0, *, told: bool = True) -> None:
        """Let somebody trade *at*; the clock is then that late at least."""
        self.clock.at = max(at, self.clock.at)
        trade = Trade(str(len(self.executed)), at, price, amount)
        self.executed.append(trade)
        if told:
            self.streams.push([trade])


class _Past:
    """What a provider adds that keeps its trades."""

    clock: FixedClock
    executed: list[Trade]
    asked_trades: list[Window]
    unable: bool

    async def trades(self, listing: Listing, window: Window) -> Sequence[Trade]:
        self.asked_trades.append(window)
        if self.unable:
            raise ProviderUnavailable("fake", "told to fail")
        now = self.clock.now()
        return [t for t in self.executed if window.since <= t.time < min(window.until, now + 1)]


class PushingWithPast(_Past, Pushing):
    """A provider that pushes trades and can be asked for those of the past."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        super().__init__(clock, **others)
        self.asked_trades = []
        self.unable = False


class Asked(_Past, Polled):
    """A provider that can be asked for trades and pushes nothing."""

    def __init__(self, clock: FixedClock, **others: object) -> None:
        super().__init__(clock, **others)
        self.executed = []
        self.asked_trades = []
        self.unable = False

    @property
    def deals(self) -> list[Deal]:
        return deals_of(self.executed)

    def execute(self, at: int, price: float) -> None:
        """Let somebody trade *at*; the clock is then that late at least."""
        self.clock.at = max(at, self.clock.at)
        self.executed.append(Trade(str(len(self.executed)), at, price, 1.0))


@dataclass(slots=True)
class Stage:
    """What one process has that ingests."""

    provider: Any
    store: CandleStore
    links: Links
    stream: TradeStream
    counts: IngestCounts
    raw: RawTradeStore

    @property
    def key(self) -> SeriesKey:
        symbol = next(iter(self.provider.markets))
        listing = Listing("fake", "crypto", symbol)
        return SeriesKey(listing, MINUTE_FRAME)

    async def bars(self) -> Bars:
        return await stored(self.store, self.key)

    async def state(self) -> SeriesState | None:
        (state,) = await self.store.states([self.key])
        return state

    async def told(self) -> Spans:
        return await self.raw.told(self.key)


@asynccontextmanager
async def opened_stage(
    provider: Any,
    store: CandleStore,
    redis: Redis,
    prefix: str,
    *,
    pacing: IngestPacing = HASTY,
    others: tuple[SourceName, ...] = (),
) -> AsyncIterator[Stage]:
    """Yield a process that ingests the one symbol of *provider*, and *others*."""
    registry = Registry([Entry(provider.description.name, provider, None)])
    settings = load_settings(redis_prefix=prefix)
    background = Background()
    async with AsyncExitStack() as stack:
        links = await stack.enter_async_context(
            open_chain(
                settings,
                registry,
                store,
                redis,
                meter=NoMeter(),
                health=HealthBoard(provider.clock),
            )
        )
        counts = await stack.enter_async_context(
            open_ingest(
                (*others, SourceName("fake", next(iter(provider.markets)))),
                registry=registry,
                store=store,
                cache=links.cache,
                redis=redis,
                background=background,
                prefix=prefix,
                settle_ms=SETTLE,
                pacing=pacing,
                upstream_pacing=QUICK,
            )
        )
        raw = RawTradeStore(store, proof=Proof(late=LATE, settle=SETTLE))
        yield Stage(provider, store, links, TradeStream(redis, prefix=prefix), counts, raw)


async def eventually(
    met: Callable[[], Awaitable[Any]],
    what: str = "what was waited for",
    *,
    patience: float = PATIENCE,
) -> Any:
    """Return what *met* returns once that is true; *patience* in seconds."""
    try:
        async with asyncio.timeout(patience):
            while not (value := await met()):
                await asyncio.sleep(0.01)
            return value
    except TimeoutError:
        raise AssertionError(f"{what} did not come") from None


async def joined(provider: Pushing) -> None:
    """Wait until a stream is open, and let there be the first trade that it tells."""
    await until(
        lambda: provider.streams.open and provider.streams.open[-1].drained, "an open stream"
    )
    provider.execute(provider.clock.now(), 55.0)


StageOpener = Callable[..., AbstractAsyncContextManager[Stage]]
