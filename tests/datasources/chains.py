"""Whole chains over a real store and a real Redis, with providers that tests write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from datasources.aggregates import head_of
from datasources.cache import Cache
from datasources.chain import Chain
from datasources.found import Answer, Base, Request
from datasources.health import HealthBoard
from datasources.meter import Meter, NoMeter
from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, Write
from market.bars import CLOSED
from market.calendars import calendar
from market.clock import FixedClock
from market.errors import BargraphError
from market.instrument import Instrument, Listing, Series, Session
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Spans
from plugins.registry import Entry, Registry
from tests.fakes import Row, to_bars
from web.bootstrap import open_chain
from web.settings import load_settings

NOW = 1_712_327_841_000
"""Friday 2024-04-05, 14:37:21 UTC: Berlin and New York changed their clocks in the month before."""
RUNNING = NOW // MINUTE * MINUTE
"""Where the minute that runs at `NOW` opened."""
SETTLE = 2 * MINUTE

on_embedded = pytest.mark.parametrize(
    ("server_url", "redis_url"), [("embedded", "embedded")], indirect=True, scope="session"
)
on_each = pytest.mark.parametrize(
    ("server_url", "redis_url"),
    [("embedded", "embedded"), ("external", "external"), ("timescale", "external")],
    indirect=True,
    scope="session",
)


def listing_of(instrument: Instrument) -> Listing:
    return Listing(instrument.provider, instrument.market, instrument.symbol)


@dataclass(slots=True)
class Opened:
    """One process's chain over one provider, and what it stands on."""

    chain: Chain
    cache: Cache
    store: CandleStore
    redis: Redis
    provider: Any
    prefix: str
    health: HealthBoard

    @property
    def clock(self) -> FixedClock:
        return self.provider.clock

    @property
    def symbol(self) -> str:
        """The provider's first symbol."""
        return next(iter(self.provider.markets))

    async def get(self, timeframe: str, **cut: Any) -> Answer:
        """Return the answer to one request; a failure is raised."""
        answer = await self.try_get(timeframe, **cut)
        if isinstance(answer, BargraphError):
            raise answer
        return answer

    async def try_get(self, timeframe: str, **cut: Any) -> Answer | BargraphError:
        (answer,) = await self.chain.answer([self.request(timeframe, **cut)])
        await self.cache.sent()
        return answer

    def request(
        self,
        timeframe: str,
        *,
        symbol: str | None = None,
        zone: str | None = None,
        session: Session = Session.ALL,
        since: int | None = None,
        until: int | None = None,
        last: int = 10_000,
        include_forming: bool = True,
    ) -> Request:
        instrument = self.provider.instrument(symbol or self.symbol)
        series = Series(
            listing=listing_of(instrument),
            timeframe=Timeframe.parse(timeframe),
            timezone=zone or calendar(instrument.calendar).zone,
            session=session,
            calendar=instrument.calendar,
        )
        return Request(series, instrument, since, until, last, include_forming)

    @property
    def key(self) -> SeriesKey:
        """The stored minutes of the first symbol."""
        return SeriesKey(listing_of(self.provider.instrument(self.symbol)), MINUTE_FRAME)

    async def correct(self, minute: int, row: Row | None) -> None:
        """Let the provider change or withdraw a closed minute, and a backfill store that."""
        market = self.provider.markets[self.symbol]
        if row is None:
            market.rows.pop(minute, None)
        else:
            market.rows[minute] = row
        # What is asked for in the same millisecond as the stored bar proves no withdrawal.
        self.clock.at += 1000
        now = self.clock.now()
        write = Write(
            key=self.key,
            facts=SeriesFacts(around_the_clock=self.provider.calendar.around_the_clock),
            bars=to_bars({minute: row} if row else {}, now, flags=CLOSED),
            observed_at=now,
            covered=Spans.of(minute, minute + MINUTE),
        )
        (written,) = await self.store.write([write])
        base = Base(self.key.listing, MINUTE_FRAME, native=False)
        await self.cache.moved({base: head_of(written.state)})

    async def flush(self) -> None:
        """Empty the cache in Redis, as its eviction may at any time."""
        await self.cache.sent()
        async for key in self.redis.scan_iter(f"{self.prefix}*", count=1000):
            await self.redis.delete(key)


Opener = Callable[..., AbstractAsyncContextManager[Opened]]


@asynccontextmanager
async def opened_chain(
    provider: Any,
    store: CandleStore,
    redis: Redis,
    prefix: str,
    *,
    meter: Meter | None = None,
    **settings: Any,
) -> AsyncIterator[Opened]:
    """Yield what one process has: a chain of its own over what all of them share."""
    name = provider.description.name
    registry = Registry([Entry(name, provider, None)])
    health = HealthBoard(provider.clock)
    async with open_chain(
        load_settings(redis_prefix=prefix, **settings),
        registry,
        store,
        redis,
        meter=meter or NoMeter(),
        health=health,
    ) as links:
        yield Opened(links.chain, links.cache, store, redis, provider, prefix, health)
