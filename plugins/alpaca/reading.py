"""Read the bars and trades of a window, in as few pages as it takes, and say what these prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from market.bars import Bars
from market.buckets import Buckets, Grid
from market.clock import Clock
from market.errors import ImpossibleAnswer, InvalidBars, ProviderUnavailable
from market.lru import LRU
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, MINUTE, Spans, Times, Window
from plugins.alpaca.client import AlpacaClient, RecentRefused
from plugins.alpaca.instruments import PAGE_LIMIT, name_of
from plugins.alpaca.rows import bars_of, times_of, trades_of
from plugins.base import Page, Trade

PUBLISHED_AFTER = 10_000
"""Milliseconds after its close in which a bar may still be missing, or miss its last minute."""
DELAY = 15 * MINUTE
"""How old bars must be for an account whose data subscription excludes the newest."""
MAX_BAR_PAGES = 10
MAX_TRADE_PAGES = 20
_NO_BAR_BEFORE = 1_262_304_000_000
"""2010-01-01: Alpaca has nothing older."""
_DELAY_AGE = 60 * MINUTE
_READ = (KeyError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Source:
    """What is asked about. *feed* and *adjustment* are None where there is no choice."""

    market: str
    symbol: str
    feed: str | None = None
    adjustment: str | None = None

    def parameters(self) -> dict[str, str | int]:
        named = {"symbols": self.symbol, "feed": self.feed, "adjustment": self.adjustment}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows oldest first; *whole* unless pages were left unread. *until* is what they reach to."""

    rows: list[Any]
    time: Times
    until: int
    whole: bool


class Reader:
    """Raises `ProviderUnavailable` only."""

    def __init__(self, provider: str, client: AlpacaClient, *, clock: Clock) -> None:
        self._provider = provider
        self._client = client
        self._clock = clock
        # By source and frame, the opening time of the oldest bar there is.
        self._oldest: LRU[tuple[Source, Timeframe], int] = LRU(max_count=20_000)
        # By feed, when it was last refused its newest minutes.
        self._delayed: dict[str | None, int] = {}

    async def bars(self, source: Source, frame: Timeframe, grid: Grid, window: Window) -> Page:
        """Return the bars that open in *window*, and what of it is known."""
        now = self._clock.now()
        past = Window(window.since, min(window.until, now))
        not_offered = Window(past.since, min(past.until, _NO_BAR_BEFORE))
        buckets = grid.opening_in(Window(max(past.since, _NO_BAR_BEFORE), past.until))
        if not len(buckets):
            return Page(Bars.empty(), Spans(), Spans((not_offered,)))
        found = await self._bars(source, frame, buckets)
        bars = self._checked(found, buckets, now=now)
        young = _young(buckets, bars.time if frame == MINUTE_FRAME else bars.time[:0], now=now)
        bars = bars.take(~young.contains(bars.time))
        first = int(found.time[0]) if len(found.time) else found.until
        known = Spans.of(max(past.since, _NO_BAR_BEFORE), found.until).clip(past)
        known -= young
        if first > buckets.opens[0]:
            # Either nothing was traded until then, or it is where the past begins.
            oldest = await self._oldest_of(source, frame)
            not_offered = Window(past.since, max(not_offered.until, min(oldest, first)))
        nowhere = Spans((not_offered,)) & (known | Spans.of(past.since, _NO_BAR_BEFORE))
        return Page(bars, covered=known - nowhere, not_offered=nowhere.clip(past))

    async def first_time(
        self, source: Source, frame: Timeframe, grid: Grid, since: int
    ) -> int | None:
        """Return when the oldest bar at or after *since* opens, None if there is none."""
        now = self._clock.now()
        since = max(since, _NO_BAR_BEFORE)
        if since >= now:
            return None
        buckets = grid.opening_in(Window(since, min(since + 3 * DAY, now)))
        if not len(buckets):
            return None
        start = int(buckets.opens[0])
        found = await self._rows(
            source, "bars", {"timeframe": name_of(frame)}, Window(start, now), count=1
        )
        return int(found.time[0]) if len(found.time) else None

    async def trades(self, source: Source, window: Window) -> list[Trade]:
        """Return every trade of *window*, oldest first."""
        past = Window(window.since, min(window.until, self._clock.now()))
        if past.empty:
            return []
        found = await self._rows(
            Source(source.market, source.symbol, source.feed), "trades", {}, past
        )
        if not found.whole or found.until < past.until:
            raise ProviderUnavailable(self._provider, "it did not give all trades")
        try:
            return trades_of(found.rows)
        except _READ as error:
            raise self._unreadable() from error

    async def _bars(self, source: Source, frame: Timeframe, buckets: Buckets) -> _Found:
        asked = Window(int(buckets.opens[0]), int(buckets.closes[-1]))
        found = await self._rows(source, "bars", {"timeframe": name_of(frame)}, asked)
        if found.whole and found.until >= asked.until:
            return found
        # What was cut off may belong to the last bar: it is known through its predecessor only.
        newest = int(found.time[-1]) if len(found.time) else asked.since
        end = found.until if found.whole else newest
        whole = int(np.searchsorted(buckets.closes, end, side="right"))
        until = int(buckets.closes[whole - 1]) if whole else asked.since
        kept = int(np.searchsorted(found.time, until))
        return _Found(found.rows[:kept], found.time[:kept], until, whole=False)

    async def _oldest_of(self, source: Source, frame: Timeframe) -> int:
        """Return when the oldest bar opens; the end of time where there is none yet."""
        key = (Source(source.market, source.symbol, source.feed), frame)
        known = self._oldest.get(key)
        if known is not None:
            return known
        everything = Window(_NO_BAR_BEFORE, self._clock.now())
        found = await self._rows(key[0], "bars", {"timeframe": name_of(frame)}, everything, count=1)
        if not len(found.time):
            return 2**62
        self._oldest.put(key, int(found.time[0]))
        return int(found.time[0])

    async def _rows(
        self,
        source: Source,
        kind: str,
        parameters: Mapping[str, str | int],
        window: Window,
        *,
        count: int | None = None,
    ) -> _Found:
        """Return the rows of *window*, or the oldest *count* of them.

        Where the account may not see the newest, *until* of the answer is how far it may.
        """
        until = min(window.until, self._horizon(source.feed))
        try:
            return await self._pages(
                source, kind, parameters, Window(window.since, until), count=count
            )
        except RecentRefused:
            self._delayed[source.feed] = self._clock.now()
            until = min(until, self._horizon(source.feed))
        try:
            return await self._pages(
                source, kind, parameters, Window(window.since, until), count=count
            )
        except RecentRefused:
            reason = "the account's data subscription does not include this feed"
            raise ProviderUnavailable(self._provider, reason) from None

    async def _pages(
        self,
        source: Source,
        kind: str,
        parameters: Mapping[str, str | int],
        window: Window,
        *,
        count: int | None,
    ) -> _Found:
        if window.empty:
            return _Found([], np.empty(0, np.int64), window.until, whole=True)
        asked: dict[str, str | int] = {
            **source.parameters(),
            **parameters,
            "start": f"{_written(window.since)}Z",
            # Alpaca includes the end, and counts nanoseconds.
            "end": f"{_written(window.until - 1)}999999Z",
            "limit": count or PAGE_LIMIT,
            "sort": "asc",
        }
        rows: list[Any] = []
        token = None
        for _ in range(MAX_BAR_PAGES if kind == "bars" else MAX_TRADE_PAGES):
            page = await self._client.page(source.market, kind, asked)
            try:
                rows.extend((page[kind] or {}).get(source.symbol, ()))
                token = page.get("next_page_token")
            except (AttributeError, *_READ) as error:
                raise self._unreadable() from error
            if not token or (count is not None and len(rows) >= count):
                break
            asked["page_token"] = str(token)
        try:
            time = times_of(rows)
        except (AttributeError, *_READ) as error:
            raise self._unreadable() from error
        if np.any(time[1:] < time[:-1]) or np.any((time < window.since) | (time >= window.until)):
            raise ProviderUnavailable(self._provider, "it sent rows that were not asked for")
        return _Found(rows, time, window.until, whole=not token)

    def _checked(self, found: _Found, buckets: Buckets, *, now: int) -> Bars:
        if not np.isin(found.time, buckets.opens).all():
            raise ImpossibleAnswer(
                self._provider, "it sent bars that do not open on the grid of their timeframe"
            )
        closes = buckets.closes[np.searchsorted(buckets.opens, found.time)]
        try:
            return bars_of(found.rows, found.time, updated=np.minimum(closes, now))
        except InvalidBars as error:
            reason = f"it sent bars that cannot be true: {error}"
            raise ImpossibleAnswer(self._provider, reason) from error
        except _READ as error:
            raise self._unreadable() from error

    def _horizon(self, feed: str | None) -> int:
        """Return up to when the account may see *feed*, the far future if all of it."""
        refused_at, now = self._delayed.get(feed), self._clock.now()
        if refused_at is None or now - refused_at > _DELAY_AGE:
            return 2**62
        return now - DELAY

    def _unreadable(self) -> ProviderUnavailable:
        return ProviderUnavailable(self._provider, "its answer could not be read")


def _young(buckets: Buckets, whole: Times, *, now: int) -> Spans:
    """Return the buckets that are over since so short a time that more of them may come.

    Those whose bars are *whole* are left out. So is the one that runs: of it Alpaca tells what is
    over by the minute, and nobody takes it for final.
    """
    over = (buckets.closes <= now) & (now < buckets.closes + PUBLISHED_AFTER)
    young = over & ~np.isin(buckets.opens, whole)
    return Spans.from_edges(buckets.opens[young], buckets.closes[young])


def _written(time: int) -> str:
    written = datetime.fromtimestamp(time // 1000, UTC).replace(tzinfo=None).isoformat()
    return f"{written}.{time % 1000:03d}"
