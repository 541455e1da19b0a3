"""Find out where a listing begins: its oldest bar, and the minutes that decide coarser bars."""

from __future__ import annotations

import time

from datasources.aggregates import head_of, key_of
from datasources.ask import Ask
from datasources.backfill.holes import decided_from, told_from, whole_day
from datasources.flights import Flights
from datasources.found import Base, Head
from datasources.meter import Meter
from db.candles import CandleStore
from market.errors import ProviderUnavailable, StoreUnavailable, UnknownName, Unlisted
from market.instrument import Listing
from market.lru import LRU
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Spans
from market.zones import ERA
from plugins.base import History

_REMEMBERED = 20_000
NEVER = 2**62
"""Where minutes begin that nobody offers."""


class Beginnings:
    """Asks each provider once per listing, remembers the answer, and stores `minutes_from`."""

    def __init__(self, store: CandleStore, *, max_pages: int, meter: Meter) -> None:
        self._store = store
        self._meter = meter
        self._max_pages = max_pages
        self._flights = Flights(16)
        self._first: LRU[Listing, int] = LRU(max_count=_REMEMBERED)
        self._minutes: LRU[Base, int] = LRU(max_count=_REMEMBERED)

    async def aclose(self) -> None:
        await self._flights.aclose()

    async def first_bar(self, ask: Ask) -> int | None:
        """Return the opening time of the oldest bar offered, None if none is.

        Raises `ProviderUnavailable`.
        """
        listing = ask.base.listing
        first = self._first.get(listing)
        if first is None:
            first = await self._flights.join(
                ("first", listing), lambda: self._ask_first(ask), lane=listing.provider
            )
            if first is not None:
                self._first.put(listing, first)
        return first

    async def first_since(self, ask: Ask, since: int) -> int | None:
        """Return the oldest opening of the base at or after *since* that is offered now.

        None if none is. Raises `ProviderUnavailable`.
        """
        return await self._first_time(ask, ask.base.timeframe, since)

    async def minutes_from(self, ask: Ask) -> tuple[int, Head | None]:
        """Return the oldest minute that decides coarser bars, settled at first use, and the head.

        It is the oldest one the provider offers within `MAX_PAGES` pages, or the oldest imported
        one that is known without a break up to it: an import counts the same before and after.
        `NEVER` if the provider offers none. Raises `ProviderUnavailable`.
        """
        return await self._flights.join(
            ("minutes", ask.base),
            lambda: self._settle_minutes(ask),
            lane=ask.base.listing.provider,
        )

    async def _settle_minutes(self, ask: Ask) -> tuple[int, Head | None]:
        known = Spans()
        try:
            (state,) = await self._store.states([key_of(ask.base)])
            if state is not None and state.minutes_from is not None:
                return state.minutes_from, head_of(state)
            known = state.known if state else known
        except StoreUnavailable:
            pass
        first = self._minutes.get(ask.base)
        if first is None:
            offer = ask.offer
            since = ERA.since
            if offer is not None and not offer.whole:
                reach = self._max_pages * offer.page_of(MINUTE_FRAME) * MINUTE
                since = ask.provider.clock.now() // MINUTE * MINUTE - reach
            first = await self._first_time(ask, MINUTE_FRAME, since)
            if first is None:
                return NEVER, None
            self._minutes.put(ask.base, first)
        try:
            (series_id,) = await self._store.ensure([(key_of(ask.base), ask.facts)])
            since = await self._with_imports(ask, series_id, known, first)
            state = await self._store.set_minutes_from(series_id, since)
            assert state.minutes_from is not None
            since = await self._with_imports(ask, series_id, state.known, state.minutes_from)
            if since < state.minutes_from:
                # An import ended in between, and saw nothing yet that it could move.
                state = await self._store.set_minutes_from(series_id, since)
        except StoreUnavailable:
            return first, None
        assert state.minutes_from is not None
        return state.minutes_from, head_of(state)

    async def _with_imports(self, ask: Ask, series_id: int, known: Spans, first: int) -> int:
        if told_from(whole_day(ask), known, first) == first:
            return first
        imported = await self._store.imported(series_id)
        return decided_from(whole_day(ask), known, first, imported=imported)

    async def _ask_first(self, ask: Ask) -> int | None:
        offer = ask.offer
        if offer is None or not offer.frames:
            return None
        # The longest frame that is a day at most reaches back furthest and begins at midnight.
        frame = max(
            (f.timeframe for f in offer.frames if f.timeframe.nominal <= 24 * 60 * MINUTE),
            key=lambda timeframe: timeframe.nominal,
            default=offer.frames[0].timeframe,
        )
        firsts = [await self._first_time(ask, frame, ERA.since)]
        if offer.whole:
            firsts += [await self._first_time(ask, f.timeframe, ERA.since) for f in offer.frames]
        return min((first for first in firsts if first is not None), default=None)

    async def _first_time(self, ask: Ask, timeframe: Timeframe, since: int) -> int | None:
        name = ask.base.listing.provider
        if not isinstance(ask.provider, History):
            raise ProviderUnavailable(name, "it has no history")
        started, failed = time.perf_counter(), True
        try:
            first = await ask.provider.first_time(ask.base.listing, timeframe, since)
            failed = False
        except UnknownName as error:
            raise Unlisted(name, str(error)) from error
        finally:
            seconds = time.perf_counter() - started
            self._meter.call(name, "first", seconds=seconds, failed=failed)
        return first
