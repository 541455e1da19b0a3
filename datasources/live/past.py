"""What history says of one base, for the feed that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasources.aggregates import key_of
from datasources.ask import Ask
from datasources.compose import closed_hours
from datasources.fetching import Fetcher
from db.candles import CandleStore
from db.stored import SeriesState
from market.bars import Bars
from market.errors import StoreUnavailable
from market.instrument import Series
from market.window import Spans, Window

_CHUNKS = 5
"""Pages that one look reads at the most, the newest first."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Bars at the provider's time *as_of*, and since when they were asked for.

    Inside *vouched* a time without a bar had no trades, or its bar is stored.
    """

    bars: Bars
    vouched: Spans
    since: int
    as_of: int


class Past:
    """Asks history for a base. What it says is stored by whoever asks the provider."""

    def __init__(self, ask: Ask, store: CandleStore, fetcher: Fetcher) -> None:
        self._ask = ask
        self._store = store
        self._fetcher = fetcher
        base = ask.base
        self._whole_day = Series(base.listing, base.timeframe, calendar=ask.instrument.calendar)

    @property
    def askable(self) -> bool:
        return self._ask.offer is not None or self._ask.from_trades

    async def state(self) -> SeriesState | None:
        """Return where the store says the base stands; None also while it is away."""
        try:
            (state,) = await self._store.states([key_of(self._ask.base)])
        except StoreUnavailable:
            return None
        return state

    async def look(self, window: Window) -> Looked:
        """Return what history has of *window*, or of as much of its end as one look reads.

        Raises `ProviderUnavailable` if a part could not be had.
        """
        return await self._read(self._ask.chunks(Spans((window,)))[:_CHUNKS], window)

    async def settle(self, window: Window) -> bool:
        """Read what is not settled of *window* once more; return whether there was any.

        Raises `ProviderUnavailable`.
        """
        state = await self.state()
        known = state.beyond_asking if state else Spans()
        left = Spans((window,)) - known - closed_hours(self._whole_day, window)
        if left:
            await self._read(self._ask.chunks(left)[:_CHUNKS], left.hull)
        return bool(left)

    async def _read(self, chunks: Sequence[Window], window: Window) -> Looked:
        state = await self.state()
        known = state.known if state else Spans()
        bars, vouched, as_of = Bars.empty(), known | closed_hours(self._whole_day, window), None
        for chunk in chunks:
            part = await self._fetcher.fetch(self._ask, chunk, known, Bars.empty())
            if part.failure is not None:
                raise part.failure
            bars = bars.merge(part.bars)
            vouched |= part.fresh | part.not_offered
            # The newest chunk comes first; what later ones know of it is later.
            as_of = part.as_of if as_of is None else as_of
        assert as_of is not None
        return Looked(bars, vouched, max(window.since, chunks[-1].since), as_of)
