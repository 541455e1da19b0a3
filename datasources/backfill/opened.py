"""Start a backfill by itself for a series that somebody opens and that has no history yet."""

from __future__ import annotations

import logging
from uuid import NAMESPACE_URL, uuid5

from datasources.aggregates import key_of
from datasources.ask import ask_of
from datasources.backfill.service import (
    UNTIL_NOW,
    BackfillService,
    HistoryNotOffered,
    NothingToFill,
)
from datasources.found import Request
from datasources.openings import Openings
from datasources.plan import bases_of
from db.backfills import BackfillRunning, IdempotencyConflict
from db.candles import CandleStore
from market.errors import BadInput, BargraphError
from market.instrument import Listing
from market.window import DAY, Spans, Window
from plugins.registry import Registry

log = logging.getLogger(__name__)

_NO_NEED = (BackfillRunning, IdempotencyConflict, NothingToFill, HistoryNotOffered, BadInput)
_AGAIN_SECONDS = 86_400.0
"""After how long one that failed is started once more."""


class OpenedCharts:
    """Starts one backfill of *days* for each series, ever; what opens it waits for nothing.

    Only one that failed is followed by another, *again_in* seconds later at the earliest.

    A series has no history if no more of that time is known than one request fetches, *max_pages*
    pages. A provider that has everything at hand needs none.
    """

    def __init__(
        self,
        openings: Openings,
        registry: Registry,
        candles: CandleStore,
        service: BackfillService,
        *,
        days: int,
        max_pages: int,
        again_in: float = _AGAIN_SECONDS,
    ) -> None:
        self._openings = openings
        self._registry = registry
        self._candles = candles
        self._service = service
        self._days = days
        self._max_pages = max_pages
        self._again_in = again_in

    async def run(self) -> None:
        """Start what is to be started, until cancelled."""
        while True:
            request = await self._openings.next()
            try:
                await self.consider(request)
            except _NO_NEED as reason:
                log.debug("no backfill of %s: %s", request.series.listing.symbol, reason)
            except BargraphError as failure:
                self._openings.forget(request.series.listing)
                log.info("No backfill of %s yet: %s", request.series.listing.symbol, failure)

    async def consider(self, request: Request) -> None:
        """Start a backfill for what *request* opened, if it has no history.

        Raises what `BackfillService.start` raises.
        """
        series, instrument = request.series, request.instrument
        provider = self._registry.get(series.listing.provider)
        bases = bases_of(series, instrument, provider)
        if not bases:
            return
        ask = ask_of(bases[0], instrument, provider)
        if ask.offer is None or ask.offer.whole:
            return
        now = provider.clock.now()
        window = Window(now - self._days * DAY, now)
        (state,) = await self._candles.states([key_of(ask.base)])
        known = (state.known if state else Spans()).clip(window)
        page = ask.offer.page_of(ask.base.timeframe) * ask.base.timeframe.nominal
        if known.total > self._max_pages * page:
            return
        key = _key(series.listing)
        await self._service.free_key(key, failed_for=self._again_in)
        await self._service.start(
            instrument, series, Window(window.since, UNTIL_NOW), idempotency_key=key
        )


def _key(listing: Listing) -> str:
    """Return a key that every process gives to the one backfill of *listing* that starts so."""
    names = (listing.provider, listing.market, listing.symbol, listing.dataset)
    parts = [*names, listing.adjustment or "", listing.feed or ""]
    return f"opened:{uuid5(NAMESPACE_URL, chr(0).join(parts))}"
