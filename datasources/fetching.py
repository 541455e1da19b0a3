"""Fetch a chunk of one base from its provider, once, and keep what came in the store.

A chunk is a fixed stretch of one page's length, so that overlapping windows share it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datasources.aggregates import head_of, key_of
from datasources.ask import Ask
from datasources.cache import base_name
from datasources.flights import Flights, Handover
from datasources.found import Base, Head
from datasources.health import HealthBoard
from datasources.meter import Meter
from datasources.packing import pack, spans_in, spans_out, unpack
from db.candles import CandleStore
from db.stored import Write
from market.bars import Bars
from market.errors import (
    ImpossibleAnswer,
    InvalidBars,
    ProviderUnavailable,
    StoreUnavailable,
    UnknownName,
    Unlisted,
)
from market.lru import LRU
from market.window import HOUR, Spans, Window
from plugins.base import Page

log = logging.getLogger(__name__)

_BARS_REMEMBERED = 200_000
_REFUSALS_REMEMBERED = 10_000
_HOLES_ASKED = 2
_HANDED_OVER_FOR = 10_000
"""Milliseconds a fetch lies in Redis; whoever takes it looks at its age, and at what it lacked."""
_REFUSED_FOR = HOUR
"""How long, by the provider's clock, what it does not offer is not asked for again."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one flight brought: bars with the revisions the store gave them (0: it is away).

    *asked* is the time the provider was asked about, *fresh* that for which the bars were the
    truth at *as_of*, *settled* for good. *failure* says why the rest of the chunk is unknown.
    """

    bars: Bars
    asked: Spans
    settled: Spans
    fresh: Spans
    not_offered: Spans
    as_of: int
    head: Head | None = None
    failure: ProviderUnavailable | None = None

    def packed(self) -> bytes:
        spans = {name: spans_out(getattr(self, name)) for name in _SPANS}
        return pack(self.bars, {"as_of": self.as_of, **spans})

    @classmethod
    def unpacked(cls, value: bytes) -> Fetched | None:
        if (unpacked := unpack(value)) is None:
            return None
        bars, facts = unpacked
        asked, settled, fresh, not_offered = (spans_in(facts[name]) for name in _SPANS)
        return cls(bars, asked, settled, fresh, not_offered, facts["as_of"])


_SPANS = ("asked", "settled", "fresh", "not_offered")


class Fetcher:
    """Asks providers, each chunk by one flight, and remembers what need not be asked again."""

    def __init__(
        self,
        store: CandleStore,
        handover: Handover,
        *,
        announce: Callable[[Mapping[Base, Head]], Awaitable[None]],
        meter: Meter,
        health: HealthBoard,
        settle: int,
        forming_ttl: int,
        parallel: int = 16,
    ) -> None:
        """*announce* tells other processes where a base stands; times are in ms."""
        self._store = store
        self._handover = handover
        self._announce = announce
        self._meter = meter
        self._health = health
        self._settle = settle
        self._forming_ttl = forming_ttl
        self._flights = Flights(parallel)
        self._recent: LRU[tuple[Base, int], Fetched] = LRU(
            max_count=_BARS_REMEMBERED, max_weight=_BARS_REMEMBERED
        )
        self._refused: LRU[Base, tuple[Spans, int]] = LRU(max_count=_REFUSALS_REMEMBERED)

    async def aclose(self) -> None:
        await self._flights.aclose()

    async def fetch(
        self, ask: Ask, chunk: Window, known: Spans, stored: Bars, *, patient: bool = False
    ) -> Fetched:
        """Return what the provider has of *chunk* outside *known*, the time not to ask about.

        *stored* are rows of the store in that time, as far as the caller read them: what comes
        back equal to them is not written again. A *patient* caller lets everybody else at that
        provider go first.
        """
        provider = ask.base.listing.provider
        if patient and not _is_local(ask):
            await self._handover.rest(provider)
        return await self._flights.join(
            (ask.base, chunk.since),
            lambda: self._fly(ask, chunk, known, stored, patient=patient),
            lane=provider,
            patient=patient,
        )

    async def look_again(self, ask: Ask, chunk: Window, spans: Spans) -> Fetched:
        """Return what the provider has of *spans*, part of *chunk*, known or not. Patient."""
        known = Spans((chunk,)) - spans
        return await self._flights.join(
            (ask.base, chunk.since, spans),
            lambda: self._ask(ask, chunk, known, Bars.empty()),
            lane=ask.base.listing.provider,
            patient=True,
        )

    async def _fly(
        self, ask: Ask, chunk: Window, known: Spans, stored: Bars, *, patient: bool
    ) -> Fetched:
        recent = self._recent.get((ask.base, chunk.since))
        if recent is not None and self._is_fresh(ask, chunk, recent, known):
            return recent
        if _is_local(ask):
            return await self._ask(ask, chunk, known, stored)
        name = f"{base_name(ask.base)}:{chunk.since}"
        busy = None if patient else ask.base.listing.provider
        async with self._handover.hold(name, busy=busy):
            value = await self._handover.take(name)
            given = Fetched.unpacked(value) if value else None
            if given is not None:
                self._note_refused(ask.base, given)
                if self._is_fresh(ask, chunk, given, known):
                    return given
            # Another process may have stored the chunk while this one waited for the lock.
            known |= await self._beyond_asking(ask.base)
            fetched = await self._ask(ask, chunk, known, stored)
            if fetched.failure is None:
                lasting = max(self._forming_ttl, _HANDED_OVER_FOR)
                await self._handover.give(name, fetched.packed(), milliseconds=lasting)
            return fetched

    async def _beyond_asking(self, base: Base) -> Spans:
        try:
            (state,) = await self._store.states([key_of(base)])
        except StoreUnavailable:
            return Spans()
        return state.beyond_asking if state else Spans()

    async def _ask(self, ask: Ask, chunk: Window, known: Spans, stored: Bars) -> Fetched:
        now = ask.provider.clock.now()
        refused = self.refused(ask.base, now)
        missing = Spans.of(chunk.since, min(chunk.until, now)) - known - refused
        pages: list[Page] = []
        failure: ProviderUnavailable | None = None
        # A chunk is one page: all of it costs no more than one of many holes.
        for window in missing if len(missing) <= _HOLES_ASKED else (missing.hull,):
            try:
                pages.append(await self._page(ask, window, now))
            except ProviderUnavailable as error:
                self._health.failed(error.provider, error.reason)
                log.warning("%s", error)
                failure = error
                break
            self._health.answered(ask.base.listing.provider)
        # Whatever else came is known: it stands, be it the bars that trades proved.
        pages = [_inside(page, missing) for page in pages]
        bars, settled, head = await self._keep(ask, pages, now, stored)
        not_offered = Spans(window for page in pages for window in page.not_offered)
        fetched = Fetched(
            bars=bars,
            asked=missing,
            settled=settled,
            fresh=_covered(pages),
            not_offered=not_offered | refused.clip(chunk),
            as_of=now,
            head=head,
            failure=failure,
        )
        self._remember(ask.base, chunk, fetched)
        return fetched

    def refused(self, base: Base, now: int) -> Spans:
        """Return the time that the provider lately said it does not offer."""
        spans, at = self._refused.get(base) or (Spans(), now)
        return spans if now - at < _REFUSED_FOR else Spans()

    async def _page(self, ask: Ask, window: Window, now: int) -> Page:
        name = ask.base.listing.provider
        started, failed = time.perf_counter(), True
        try:
            page = await ask.page(window, now)
            failed = False
        except InvalidBars as error:
            raise ImpossibleAnswer(name, str(error)) from error
        except UnknownName as error:
            # A symbol may be taken off the list after it was looked up.
            raise Unlisted(name, str(error)) from error
        finally:
            seconds = time.perf_counter() - started
            self._meter.call(name, "history", seconds=seconds, failed=failed)
        return page

    async def _keep(
        self, ask: Ask, pages: Sequence[Page], now: int, stored: Bars
    ) -> tuple[Bars, Spans, Head | None]:
        """Write the closed bars of *pages*.

        Return all bars with their revisions, the time that is settled, and where the base stands
        if something was written.
        """
        bars = ask.flagged(Bars.concat([page.bars for page in pages]), now)
        fresh = _covered(pages)
        over = Spans.of(fresh.hull.since, ask.closed_until(now))
        settled = fresh & Spans.of(fresh.hull.since, ask.closed_until(now - self._settle))
        known_rows = stored.take((fresh & over).contains(stored.time))
        head = None
        if settled or not same_values(bars.closed(), known_rows.visible()):
            write = Write(
                key=key_of(ask.base),
                facts=ask.facts,
                bars=bars.closed(),
                observed_at=now,
                covered=fresh & over,
                settled=settled,
            )
            try:
                (written,) = await self._store.write([write])
            except StoreUnavailable as away:
                log.debug("not stored: %s", away)
            else:
                head = head_of(written.state)
                bars = _as_stored(bars, written.bars, kept_from=head.retained_from)
                await self._announce({ask.base: head})
        else:
            bars = _as_stored(bars, known_rows)
        return bars, settled, head

    def _is_fresh(self, ask: Ask, chunk: Window, fetched: Fetched, known: Spans) -> bool:
        now = ask.provider.clock.now()
        told_all = fetched.as_of >= chunk.until or now < chunk.until
        if fetched.failure is not None or not told_all:
            return False
        # What was known then was not asked for; if the store is away now, nobody else tells it.
        missing = Spans.of(chunk.since, min(chunk.until, fetched.as_of)) - known
        asked = fetched.asked | fetched.not_offered
        return not missing - asked and 0 <= now - fetched.as_of < self._forming_ttl

    def _remember(self, base: Base, chunk: Window, fetched: Fetched) -> None:
        self._recent.put((base, chunk.since), fetched, weight=len(fetched.bars) + 100)
        self._note_refused(base, fetched)

    def _note_refused(self, base: Base, fetched: Fetched) -> None:
        if not fetched.not_offered:
            return
        held = self.refused(base, fetched.as_of)
        _, at = self._refused.get(base) or (held, fetched.as_of)
        self._refused.put(base, (held | fetched.not_offered, at if held else fetched.as_of))


def _is_local(ask: Ask) -> bool:
    return ask.offer is not None and ask.offer.local


def _inside(page: Page, missing: Spans) -> Page:
    bars = page.bars.take(missing.contains(page.bars.time))
    return Page(bars, page.covered & missing, page.not_offered)


def _covered(pages: Sequence[Page]) -> Spans:
    return Spans(window for page in pages for window in page.covered)


def same_values(fetched: Bars, stored: Bars) -> bool:
    """Whether a provider's bars say what the store already holds."""
    return all(
        np.array_equal(getattr(fetched, name), getattr(stored, name), equal_nan=name == "vwap")
        for name in ("time", "open", "high", "low", "close", "volume", "vwap", "trades")
    )


def _as_stored(fetched: Bars, stored: Bars, *, kept_from: int | None = None) -> Bars:
    """Return *fetched* with every closed bar as the store holds it, and the forming ones.

    Those before *kept_from* it did not take in; they are true all the same.
    """
    own = ~fetched.is_closed
    if kept_from is not None:
        own |= fetched.time < kept_from
    return stored.merge(fetched.take(own))
