"""One base at its provider: how it is cut into chunks, asked for and marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasources.found import Base
from datasources.plan import native_grid
from db.stored import SeriesFacts
from market.bars import CLOSED, FROM_TRADES, NATIVE, Bars
from market.buckets import Grid
from market.calendars import calendar
from market.errors import InvalidBars
from market.instrument import Instrument
from market.resample import trades_to_bars
from market.window import HOUR, MINUTE, Spans, Window
from plugins.base import History, HistoryOffer, Page, Provider, TradesHistory

_TRADES_CHUNK = HOUR


@dataclass(frozen=True, slots=True)
class Ask:
    """A base at a provider, and the grid its bars stand on."""

    base: Base
    instrument: Instrument
    provider: Provider
    grid: Grid

    @property
    def offer(self) -> HistoryOffer | None:
        if isinstance(self.provider, History):
            return self.provider.history(self.instrument)
        return None

    @property
    def whole(self) -> bool:
        """Whether the provider has everything at hand, so that asking costs nothing."""
        return self.offer is not None and self.offer.whole

    @property
    def from_trades(self) -> bool:
        return not self.base.native and self.base.timeframe.nominal < MINUTE

    @property
    def facts(self) -> SeriesFacts:
        return SeriesFacts(
            self.instrument.base,
            self.instrument.quote,
            calendar(self.instrument.calendar).around_the_clock,
        )

    def chunks(self, spans: Spans) -> list[Window]:
        """Return the chunks that *spans* touch, the newest first."""
        length = _TRADES_CHUNK
        if self.offer is not None and not self.from_trades:
            length = self.offer.page_of(self.base.timeframe) * self.base.timeframe.nominal
        numbers = {
            number
            for span in spans
            for number in range(span.since // length, (span.until - 1) // length + 1)
        }
        return [Window(n * length, (n + 1) * length) for n in sorted(numbers, reverse=True)]

    def closed_until(self, now: int) -> int:
        """Return the opening time of the bar that runs at *now*: those before it are over."""
        running = self.grid.at(now)
        return running.since if running else now

    async def page(self, window: Window, now: int) -> Page:
        """Ask the provider. Raises `ProviderUnavailable`, `InvalidBars`."""
        if self.from_trades:
            assert isinstance(self.provider, TradesHistory)
            trades = await self.provider.trades(self.base.listing, window)
            bars = trades_to_bars(
                np.array([trade.time for trade in trades], dtype=np.int64),
                np.array([trade.price for trade in trades], dtype=np.float64),
                np.array([trade.amount for trade in trades], dtype=np.float64),
                buckets=self.grid.opening_in(window),
                now=now,
            )
            return Page(bars, Spans((window,)))
        assert isinstance(self.provider, History)
        page = await self.provider.bars(self.base.listing, self.base.timeframe, window)
        bars = page.bars.checked().slice(window)
        off = ~np.isin(bars.time, self.grid.opening_in(window).opens)
        if off.any():
            at = int(bars.time[np.argmax(off)])
            raise InvalidBars(f"no bar of {self.base.timeframe} opens at {at}")
        return Page(bars, page.covered.clip(window), page.not_offered.clip(window))

    def flagged(self, bars: Bars, now: int) -> Bars:
        """Return *bars* marked by where they come from and whether they were over at *now*."""
        mark = FROM_TRADES if self.from_trades else NATIVE if self.base.native else 0
        closed = bars.time < self.closed_until(now)
        flags = np.where(closed, mark | CLOSED, mark).astype(np.uint8)
        return bars.with_columns(flags=flags, updated=np.full(len(bars), now))


def ask_of(base: Base, instrument: Instrument, provider: Provider) -> Ask:
    """Return how *base* is asked for at *provider*."""
    grid = Grid(base.timeframe, zone="UTC", calendar=calendar("24/7"))
    if isinstance(provider, History):
        grid = native_grid(base, instrument, provider.history(instrument))
    return Ask(base, instrument, provider, grid)
