"""A provider that lists what the store holds and must never be asked for a bar."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.store.made import PROVIDER, START
from market.clock import FixedClock
from market.instrument import Instrument, InstrumentType, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import Window
from plugins.base import Description, HistoryOffer, NativeFrame, Page


class Listed:
    """Counts the calls for bars."""

    def __init__(self, clock: FixedClock, symbols: Sequence[str]) -> None:
        self._clock = clock
        self._symbols = symbols
        self.calls = 0

    @property
    def description(self) -> Description:
        return Description(PROVIDER, "Made", ("crypto",), "Nobody's prices", simulated=True)

    @property
    def clock(self) -> FixedClock:
        return self._clock

    def instrument(self, symbol: str) -> Instrument:
        return Instrument(PROVIDER, "crypto", symbol, InstrumentType.SPOT)

    def listing(self, symbol: str) -> Listing:
        return Listing(PROVIDER, "crypto", symbol)

    async def symbols(self) -> Sequence[Instrument]:
        return tuple(map(self.instrument, self._symbols))

    async def aclose(self) -> None:
        """Nothing is open."""

    def history(self, instrument: Instrument) -> HistoryOffer:
        return HistoryOffer((NativeFrame(MINUTE_FRAME),), page_limit=1000)

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        # Where a series begins is asked when fewer bars are there than were asked for.
        return max(since, START)

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        self.calls += 1
        raise AssertionError("what is stored was asked for")
