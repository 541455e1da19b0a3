"""Backfills as callers see them: start, cancel, look up, and watch until they are over.

The failures besides those here: `BackfillRunning`, `IdempotencyConflict`, `TooManyBackfills`
(`db.backfills`), `ProviderDisabled`, `UnknownName` and `StoreUnavailable`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar
from uuid import UUID

from datasources.aggregates import key_of
from datasources.ask import Ask, ask_of
from datasources.backfill.holes import (
    MOST_BARS,
    fillable,
    has_minutes,
    missing_of,
    told_from,
    whole_day,
)
from datasources.backfill.watching import Watches
from datasources.plan import bases_of
from db.backfills import Backfill, BackfillStore, NewBackfill
from db.candles import CandleStore
from market.errors import BadInput, BargraphError
from market.instrument import Instrument, Series
from market.window import Spans, Window
from plugins.registry import Registry

log = logging.getLogger(__name__)

UNTIL_NOW = 2**62
"""As the end of a window: the provider's now, when the job runs."""

_LONGEST_KEY = 200


class NothingToFill(BargraphError):
    """The window has no hole: everything in it that can have traded is told."""

    code: ClassVar[str] = "NOTHING_TO_FILL"


class HistoryNotOffered(BargraphError):
    """The provider gives no past bars from which the series could be built."""

    code: ClassVar[str] = "HISTORY_NOT_OFFERED"


class BackfillService:
    """Jobs over all processes. *enqueue* hands the id of a new job to whoever runs jobs.

    It may fail with an `OSError` or a `BargraphError`: the sweeper finds the job later. *settle*
    is in ms.
    """

    def __init__(
        self,
        registry: Registry,
        candles: CandleStore,
        backfills: BackfillStore,
        *,
        enqueue: Callable[[UUID], Awaitable[None]],
        settle: int,
    ) -> None:
        self._registry = registry
        self._candles = candles
        self._backfills = backfills
        self._enqueue = enqueue
        self._settle = settle
        self._watches = Watches(backfills)

    async def start(
        self, instrument: Instrument, series: Series, window: Window, *, idempotency_key: str
    ) -> Backfill:
        """Add a job that closes the holes of the base of *series* in *window*, and return it.

        A window may end at `UNTIL_NOW`. The same key with the same input returns the first job,
        whatever became of it. Raises `BadInput` for a window or a key that cannot be, and
        `HistoryNotOffered`, `NothingToFill`, `IdempotencyConflict`, `BackfillRunning`,
        `TooManyBackfills`.
        """
        if not 1 <= len(idempotency_key) <= _LONGEST_KEY or "\0" in idempotency_key:
            raise BadInput(
                f"An idempotency key has 1 to {_LONGEST_KEY} characters.", field="idempotencyKey"
            )
        asked = _asked(series, window)
        if (before := await self._backfills.keyed(idempotency_key, asked=asked)) is not None:
            return before
        ask = self._ask(instrument, series)
        fillable = self._fillable(ask, window)
        await self._check_holes(ask, fillable)
        base = ask.base
        new = NewBackfill(base.listing, base.timeframe, base.native, fillable, asked)
        backfill = await self._backfills.add(new, key=idempotency_key)
        try:
            await self._enqueue(backfill.id)
        except (OSError, BargraphError) as failure:
            log.warning("Backfill %s waits to be found: %s", backfill.id, failure)
        return backfill

    async def free_key(self, idempotency_key: str, *, failed_for: float) -> None:
        """Let the key count as new if its job failed longer ago than so many seconds."""
        await self._backfills.free_key(idempotency_key, failed_for=failed_for)

    async def cancel(self, id: UUID) -> Backfill | None:
        """End the job if it is not over, in whichever process it runs, and return it as it is.

        What was stored stays. None if there is no such job.
        """
        return await self._backfills.cancel(id)

    async def get(self, id: UUID) -> Backfill | None:
        return await self._backfills.get(id)

    async def page(self, *, first: int, after: int | None = None) -> list[Backfill]:
        """Return at most *first* jobs, the newest first, with a lower `number` than *after*."""
        return await self._backfills.page(first=first, after=after)

    def watch(self, id: UUID) -> AsyncIterator[Backfill]:
        """Yield the job as it is, then after each change, until it is over.

        Changes close together come as one. Yields nothing if there is no such job.
        """
        return self._watches.watch(id)

    async def aclose(self) -> None:
        """End all watching."""
        await self._watches.aclose()

    def _ask(self, instrument: Instrument, series: Series) -> Ask:
        provider = self._registry.get(series.listing.provider)
        bases = bases_of(series, instrument, provider)
        if not bases:
            raise HistoryNotOffered(
                f"{instrument.provider} offers no history of {instrument.symbol} at "
                f"{series.timeframe}."
            )
        return ask_of(bases[0], instrument, provider)

    def _fillable(self, ask: Ask, window: Window) -> Window:
        if window.empty:
            raise BadInput("since must be before until.", field="since")
        fitting = fillable(ask, window, settle=self._settle)
        if fitting.empty:
            raise BadInput("since must lie before the newest settled bar.", field="since")
        length = ask.base.timeframe.nominal
        if fitting.length > MOST_BARS * length:
            raise BadInput(
                f"A window may hold at most {MOST_BARS:,} bars of {ask.base.timeframe}.",
                field="since",
            )
        return fitting

    async def _check_holes(self, ask: Ask, window: Window) -> None:
        (state,) = await self._candles.states([key_of(ask.base)])
        known, beyond = (state.known, state.beyond_asking) if state else (Spans(), Spans())
        if missing_of(ask, window, beyond):
            return
        begin = state.minutes_from if state and has_minutes(ask) else None
        if begin is not None and told_from(whole_day(ask), known, begin) < begin:
            return
        raise NothingToFill(
            "Everything in the window is stored, known not to exist, or older than is kept."
        )


def _asked(series: Series, window: Window) -> str:
    """Return the input in a form that is equal for equal input."""
    listing = series.listing
    names = (listing.provider, listing.market, listing.symbol, listing.dataset)
    cut = (series.timeframe, series.timezone, series.session, window.since, window.until)
    return json.dumps([*names, listing.adjustment, listing.feed, *map(str, cut)])
