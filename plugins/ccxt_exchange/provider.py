"""A ccxt exchange behind the provider contract: its symbols, its past bars, and what it pushes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self, cast

import numpy as np

from market.bars import Bars
from market.clock import Clock
from market.errors import ImpossibleAnswer, InvalidBars, ProviderUnavailable, UnknownName
from market.instrument import Instrument, Listing
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe, Unit
from market.window import DAY, HOUR, MINUTE, Window
from plugins.base import Description, HistoryOffer, Page
from plugins.ccxt_exchange.catalogue import Pushed, pushed_by, title_of
from plugins.ccxt_exchange.client import Configure, ExchangeClient, Sleep, SymbolRefused
from plugins.ccxt_exchange.clock import VenueClock
from plugins.ccxt_exchange.instruments import MARKET, frames_of, instruments_of, offer_of
from plugins.ccxt_exchange.paging import Answer, Row, find_first, read_window
from plugins.ccxt_exchange.pushes import Pushes
from plugins.ccxt_exchange.streams import CAPABILITIES

SYMBOLS_AGE = HOUR
"""How old the list of symbols may become."""
CLOCK_AGE = 10 * MINUTE
"""How old the measured difference of the clocks may become."""
_TRY_AGAIN = MINUTE
_COARSER = (DAY_FRAME, Timeframe(1, Unit.HOUR), MINUTE_FRAME)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the exchange lists, as of *at* by our own clock."""

    exchange: Any
    instruments: Mapping[str, Instrument]
    frames: Mapping[Timeframe, str]
    at: int


class CcxtProvider:
    """One exchange, named by its ccxt id.

    Nothing is imported and no connection made before the first call. Make one object an exchange
    and process: it holds the throttle that everyone must share. The object is of a class that has
    the capabilities to push which ccxt has for the exchange, and no others: coinbase streams no
    bars.
    """

    def __new__(cls, exchange_id: str, **_: Any) -> Self:
        own: Any = cls
        return cast("Self", object.__new__(_composed(own, pushed_by(exchange_id))))

    def __init__(
        self,
        exchange_id: str,
        *,
        clock: Clock,
        configure: Configure | None = None,
        timeout: float = 10.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """*configure* may change the ccxt exchange before its first call; *timeout* in seconds.

        Raises `UnknownName` for an id that ccxt does not have.
        """
        title = title_of(exchange_id)
        self._description = Description(
            name=exchange_id,
            title=title,
            markets=(MARKET,),
            attribution=f"Prices from {title}",
        )
        self._own_clock = clock
        self._clock = VenueClock(clock)
        self._measured_at: int | None = None
        self._client = ExchangeClient(
            exchange_id, clock=clock, configure=configure, timeout=timeout, sleep=sleep
        )
        self._pushes = Pushes(
            self._client, name=exchange_id, clock=self._clock, resolve=self._frames
        )
        self._listed: _Listed | None = None
        self._listing: asyncio.Task[_Listed] | None = None
        self._list_again_at = 0

    @property
    def description(self) -> Description:
        return self._description

    @property
    def clock(self) -> Clock:
        return self._clock

    async def symbols(self) -> Sequence[Instrument]:
        """Return everything listed, sorted by symbol, at most `SYMBOLS_AGE` old.

        An older list goes on to be served while the exchange does not give a newer one.
        Raises `ProviderUnavailable` where there is none at all.
        """
        return tuple((await self._ready()).instruments.values())

    def history(self, instrument: Instrument) -> HistoryOffer:
        """Return the frames on the UTC grid (see `frames_of`) and the rows a call.

        Raises `ProviderUnavailable` before `symbols` has answered once: ccxt is not loaded yet.
        """
        if self._listed is None:
            raise self._unavailable("its symbols must be asked for before its history")
        return offer_of(self._listed.exchange, instrument, frames=self._listed.frames)

    async def turn(self, cost: float | None = None) -> None:
        """Wait at the throttle for a call that somebody else makes (see `SharesTurns`)."""
        exchange = await self._client.ready()
        await exchange.throttle(cost)

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        """Return the opening time of the oldest bar offered at or after *since*, None if none is.

        A timeframe that is not offered has none. It takes one call, but for exchanges that answer
        only for the stretch asked about; of one that ignores *since* it is the oldest bar returned.
        Raises `ProviderUnavailable`, `UnknownName`.
        """
        listed, offer = await self._resolved(listing)
        if timeframe not in _names(offer):
            return None
        searched = {
            _step(frame): partial(self._rows, listing.symbol, listed.frames[frame])
            for frame in (*_COARSER, timeframe)
            if frame in listed.frames and _step(frame) >= _step(timeframe)
        }
        try:
            return await find_first(searched, since, limit=offer.page_limit, now=self._clock.now())
        except LookupError as error:
            raise self._unavailable(str(error)) from error

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        """Return the bars of *window*, in as few calls as its pages take.

        Bars are updated at their close, a forming one at the moment before the call. A row with a
        value missing is left out of what is covered. Raises `ProviderUnavailable`, `UnknownName`.
        """
        listed, offer = await self._resolved(listing)
        if timeframe not in (frames := _names(offer)):
            raise UnknownName("timeframe", str(timeframe), frames.values(), field="timeframe")
        asked_at = self._clock.now()
        answer = await read_window(
            partial(self._rows, listing.symbol, listed.frames[timeframe]),
            window,
            step=_step(timeframe),
            limit=offer.page_limit,
            now=asked_at,
        )
        bars = self._checked(answer, step=_step(timeframe), asked_at=asked_at)
        return Page(bars=bars, covered=answer.covered, not_offered=answer.not_offered)

    async def aclose(self) -> None:
        """End all streams and close the connections to the exchange."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        await self._pushes.aclose()
        await self._client.aclose()

    async def _resolved(self, listing: Listing) -> tuple[_Listed, HistoryOffer]:
        """Return what is listed and what of *listing* is offered. Raises `UnknownName`."""
        listed = await self._ready()
        instrument = listed.instruments.get(listing.symbol)
        if instrument is None:
            raise UnknownName("symbol", listing.symbol, listed.instruments, field="symbol")
        return listed, offer_of(listed.exchange, instrument, frames=listed.frames)

    async def _frames(self, listing: Listing) -> Mapping[Timeframe, str]:
        listed, offer = await self._resolved(listing)
        return {native.timeframe: listed.frames[native.timeframe] for native in offer.frames}

    async def _rows(
        self, symbol: str, frame: str, since: int, count: int, until: int | None = None
    ) -> Mapping[int, Row | None]:
        try:
            rows = await self._client.candles(symbol, frame, since=since, count=count, until=until)
            return {int(time): _row(values) for time, *values in rows}
        except SymbolRefused as error:
            known = self._listed.instruments if self._listed else ()
            raise UnknownName("symbol", symbol, known, field="symbol") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise self._unavailable("it sent rows that are not bars") from error

    def _checked(self, answer: Answer, *, step: int, asked_at: int) -> Bars:
        time = np.fromiter(answer.rows, dtype=np.int64, count=len(answer.rows))
        if np.any(time % step):
            raise self._impossible("it sent bars that do not open on the grid of their timeframe")
        columns = np.array(list(answer.rows.values()), dtype=np.float64).reshape(-1, 5).T
        try:
            bars = Bars.of(time, *columns, updated=np.minimum(time + step, asked_at)).checked()
        except InvalidBars as error:
            raise self._impossible(f"it sent bars that cannot be true: {error}") from error
        return bars

    async def _ready(self) -> _Listed:
        """Return what is listed, read anew when old. Callers share one reading, and may leave."""
        now = self._own_clock.now()
        if self._listed is None or now >= max(self._listed.at + SYMBOLS_AGE, self._list_again_at):
            if self._listing is None:
                self._listing = asyncio.create_task(self._list())
            try:
                return await asyncio.shield(self._listing)
            except ProviderUnavailable:
                if self._listed is None:
                    raise
        await self._measure_clock()
        return self._listed

    async def _list(self) -> _Listed:
        try:
            exchange = await self._client.load_markets()
            instruments = instruments_of(exchange, provider=self._description.name)
            await self._measure_clock()
        except ProviderUnavailable as error:
            self._list_again_at = self._own_clock.now() + _TRY_AGAIN
            _log.warning("symbols not read: %s", error)
            raise
        finally:
            self._listing = None
        self._listed = _Listed(
            exchange=exchange,
            instruments={instrument.symbol: instrument for instrument in instruments},
            frames=frames_of(exchange),
            at=self._own_clock.now(),
        )
        return self._listed

    async def _measure_clock(self) -> None:
        now = self._own_clock.now()
        if self._measured_at is not None and now - self._measured_at < CLOCK_AGE:
            return
        # Set before asking, so that one caller asks and the others go on.
        self._measured_at = now
        try:
            told = await self._client.time()
        except ProviderUnavailable as error:
            # Bars can be had without; the old difference stays until the next look.
            _log.warning("clock not compared: %s", error)
            return
        if told:
            time, round_trip = told
            self._clock.measure(time, answered=self._own_clock.now(), round_trip=round_trip)

    def _unavailable(self, reason: str) -> ProviderUnavailable:
        return ProviderUnavailable(self._description.name, reason)

    def _impossible(self, reason: str) -> ImpossibleAnswer:
        return ImpossibleAnswer(self._description.name, reason)


@cache
def _composed(provider: type[Any], pushed: frozenset[Pushed]) -> type[Any]:
    """Return the class *provider* with the capabilities to push."""
    capabilities = (CAPABILITIES[one] for one in sorted(pushed))
    return type(provider.__name__, (provider, *capabilities), {"__doc__": provider.__doc__})


def _names(offer: HistoryOffer) -> Mapping[Timeframe, str]:
    return {native.timeframe: str(native.timeframe) for native in offer.frames}


def _step(frame: Timeframe) -> int:
    """Return the length of a frame on the UTC grid, where every day has 24 hours."""
    return frame.step or frame.count * DAY


def _row(values: Sequence[Any]) -> Row | None:
    open_, high, low, close, volume = values
    if None in values:
        return None
    row = (float(open_), float(high), float(low), float(close), float(volume))
    return None if any(map(math.isnan, row)) else row
