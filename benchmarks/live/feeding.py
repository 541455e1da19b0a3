"""What a process costs that feeds many series: each pushes its running minute once a second.

    python -m benchmarks.live.feeding [--series 1000] [--seconds 120]

One process of the role `feeds` over embedded servers of its own, with a made-up provider inside
that keeps the time of the machine, so its pushing is counted too. No viewer listens. Prints the
process's CPU time a push and a closed minute, and how late minutes are announced.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import uvloop

from datasources.found import Base
from datasources.health import HealthBoard
from datasources.live.broadcaster import Broadcaster
from datasources.live.events import BaseEvent
from datasources.live.interest import Interest
from datasources.live.keys import FeedKey
from datasources.meter import NoMeter
from db.candles import CandleStore
from db.embedded.servers import embedded_servers
from db.migrations import migrate
from db.pool import open_pool
from market.bars import CLOSED, Bars
from market.instrument import Instrument, InstrumentType, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Spans, Window
from plugins.base import Description, HistoryOffer, NativeFrame, Page
from plugins.registry import Entry, Registry
from web.background import Background
from web.bootstrap import SQL, open_chain, open_redis
from web.clock import SystemClock
from web.live_wiring import open_live
from web.settings import Role, load_settings

_NAME = "made"


class Pushing:
    """Pushes the running minute of every symbol once a second; it has no past."""

    def __init__(self, count: int) -> None:
        self.listings = [Listing(_NAME, "crypto", f"S{n}") for n in range(count)]
        self.clock = SystemClock()
        self.pushes = 0
        self._began = self.clock.now()

    @property
    def description(self) -> Description:
        return Description(_NAME, "Made", ("crypto",), "Nobody's prices", simulated=True)

    async def symbols(self) -> Sequence[Instrument]:
        return [Instrument(_NAME, "crypto", x.symbol, InstrumentType.SPOT) for x in self.listings]

    async def aclose(self) -> None:
        """Nothing is open."""

    def history(self, instrument: Instrument) -> HistoryOffer:
        return HistoryOffer((NativeFrame(MINUTE_FRAME),), page_limit=1000, local=True)

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        return max(since, self._began // MINUTE * MINUTE)

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        now = self.clock.now()
        past = Window(window.since, min(window.until, now))
        since = max(past.since, self._began // MINUTE * MINUTE)
        opens = np.arange(-(-since // MINUTE) * MINUTE, past.until, MINUTE)
        ones = np.ones(len(opens))
        return Page(Bars.of(opens, ones, ones, ones, ones, ones), covered=Spans((past,)))

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        return (MINUTE_FRAME,)

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> _Stream:
        return _Stream(self, int(listing.symbol[1:]) / len(self.listings))


class _Stream:
    def __init__(self, provider: Pushing, phase: float) -> None:
        self._provider = provider
        self._phase = phase

    async def __aiter__(self) -> AsyncIterator[Bars]:
        clock = self._provider.clock
        yield Bars.empty()
        told = clock.now() // MINUTE * MINUTE
        while True:
            now = clock.now()
            await asyncio.sleep(1.005 - (now / 1000 - self._phase) % 1)
            running = clock.now() // MINUTE * MINUTE
            times = [told, running] if running > told else [running]
            ones = [1.0] * len(times)
            flags = [CLOSED if time < running else 0 for time in times]
            moving = [1 + (clock.now() % 1000) / 1e6] * len(times)
            self._provider.pushes += 1
            yield Bars.of(times, ones, moving, ones, ones, moving, flags=flags)
            told = running

    async def aclose(self) -> None:
        """Nothing is open."""


async def main(count: int, seconds: float) -> None:
    provider = Pushing(count)
    keys = [FeedKey.of(Base(listing, MINUTE_FRAME, native=False)) for listing in provider.listings]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        embedded = await stack.enter_async_context(embedded_servers(folder))
        await migrate(embedded.postgres_url, SQL)
        pool = await stack.enter_async_context(open_pool(embedded.postgres_url))
        redis = await stack.enter_async_context(open_redis(embedded.redis_url, 50))
        settings = load_settings()
        registry = Registry([Entry(_NAME, provider, None)])
        health = HealthBoard(provider.clock)
        links = await stack.enter_async_context(
            open_chain(settings, registry, CandleStore(pool), redis, meter=NoMeter(), health=health)
        )
        background = Background()
        live = await stack.enter_async_context(
            open_live(
                links,
                redis,
                background,
                role=Role.FEEDS,
                prefix=settings.redis_prefix,
                grace_ms=3_600_000,
                settle_ms=120_000,
            )
        )
        assert live.keeper is not None
        interest = Interest(redis, prefix=settings.redis_prefix, grace_ms=3_600_000)
        refused = await interest.want([key.packed() for key in keys])
        assert not refused
        while provider.pushes < 5 * count:
            await asyncio.sleep(0.5)
        # Whole minutes: each sees one close of every series.
        await asyncio.sleep(60 - time.time() % 60 + 10)
        delays: list[float] = []
        listening = asyncio.create_task(_listen(live.broadcaster, keys[::50], delays))
        process = psutil.Process()
        before, pushes, at = time.process_time(), provider.pushes, time.monotonic()
        await asyncio.sleep(seconds)
        used, pushes = time.process_time() - before, provider.pushes - pushes
        share = used / (time.monotonic() - at)
        listening.cancel()
        minutes = round(seconds / 60) * count
        stored = await pool.fetchval("SELECT count(*) FROM bar")
        print(f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        print(f"- {count} series, {pushes / seconds:.0f} pushes a second, {minutes} minutes closed")
        print(f"- one process used {share:.0%} of a core: {used / pushes * 1e6:.0f} us a push")
        print(f"- {process.memory_info().rss / 1e6:.0f} MB; {stored} bars stored in all")
        delays.sort()
        if delays:
            late = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
            print(
                f"- announced {late[0]:.0f} ms after the close at the median, {late[1]:.0f} at p99"
            )


async def _listen(broadcaster: Broadcaster, keys: Sequence[FeedKey], delays: list[float]) -> None:
    async def one(key: FeedKey) -> None:
        async with broadcaster.listen(key.name) as inbox:
            told = 0
            async for message in inbox:
                event = BaseEvent.unpacked(message) if isinstance(message, bytes) else None
                if event is not None and event.told > told:
                    if told:
                        delays.append(time.time() * 1000 - event.told)
                    told = event.told

    await asyncio.gather(*(one(key) for key in keys))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    chosen = parser.parse_args()
    uvloop.run(main(chosen.series, chosen.seconds))
