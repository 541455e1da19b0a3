"""Where trades come from: pushed by a provider, or asked for again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from db.stored import SeriesFacts, SeriesKey
from market.calendars import calendar
from market.clock import Clock
from market.errors import AmbiguousSymbol, BadInput, UnknownName
from market.instrument import Instrument, Listing
from market.timeframe import MINUTE_FRAME
from market.window import Window
from plugins.base import Provider, Stream, StreamsTrades, Trade, TradesHistory
from plugins.registry import Registry


@dataclass(frozen=True, slots=True)
class SourceName:
    """A provider, and what it calls the symbol whose trades are to be stored."""

    provider: str
    symbol: str

    @classmethod
    def parse(cls, text: str) -> SourceName:
        """Return the name in `provider:SYMBOL`. Symbols may have colons. Raises `ValueError`."""
        provider, colon, symbol = text.partition(":")
        if not (provider and colon and symbol):
            raise ValueError(f"{text!r} is not a provider and a symbol, as in binance:BTC/USDT")
        return cls(provider, symbol)

    def __str__(self) -> str:
        return f"{self.provider}:{self.symbol}"


@dataclass(frozen=True, slots=True)
class Source:
    """One listing whose trades are stored, at its provider."""

    provider: Provider
    instrument: Instrument

    @property
    def listing(self) -> Listing:
        return Listing(
            self.instrument.provider,
            self.instrument.market,
            self.instrument.symbol,
            dataset=self.provider.description.dataset,
        )

    @property
    def key(self) -> SeriesKey:
        return SeriesKey(self.listing, MINUTE_FRAME)

    @property
    def facts(self) -> SeriesFacts:
        return SeriesFacts(
            self.instrument.base,
            self.instrument.quote,
            calendar(self.instrument.calendar).around_the_clock,
        )

    @property
    def past(self) -> TradesHistory | None:
        """Who can be asked for what was missed."""
        return self.provider if isinstance(self.provider, TradesHistory) else None


async def find(registry: Registry, name: SourceName) -> Source:
    """Return what *name* means.

    Raises `BadInput` for what there is not, `ProviderDisabled`, and `ProviderUnavailable` where
    the provider cannot say what it lists.
    """
    provider = registry.get(name.provider)
    listed = await provider.symbols()
    found = [instrument for instrument in listed if instrument.symbol == name.symbol]
    if not found:
        known = [instrument.symbol for instrument in listed]
        raise UnknownName("symbol", name.symbol, known, field="symbol")
    if len(found) > 1:
        raise AmbiguousSymbol(name.symbol, [instrument.market for instrument in found])
    if not isinstance(provider, StreamsTrades | TradesHistory):
        raise BadInput(f"{name.provider} tells no trades.", field="provider")
    return Source(provider, found[0])


@dataclass(frozen=True, slots=True)
class Told:
    """Trades as they came; all of *window*, in ms, where that is known by more than themselves."""

    trades: Sequence[Trade]
    window: Window | None = None


def told_by(source: Source, *, poll: float, late: int) -> Callable[[], Stream[Told]]:
    """Return what opens the stream of *source*; *poll* in seconds, *late* in ms."""
    provider, listing, clock = source.provider, source.listing, source.provider.clock
    if isinstance(provider, StreamsTrades):
        return lambda: PushedTrades(provider.stream_trades(listing))
    assert isinstance(provider, TradesHistory)
    return lambda: PolledTrades(provider, listing, clock, poll=poll, late=late)


class PushedTrades:
    """A provider's stream."""

    def __init__(self, stream: Stream[Sequence[Trade]]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[Told]:
        async for trades in self._stream:
            yield Told(trades)

    async def aclose(self) -> None:
        await self._stream.aclose()


class PolledTrades:
    """The past of a provider that pushes nothing, asked for so late that it is complete."""

    def __init__(
        self, provider: TradesHistory, listing: Listing, clock: Clock, *, poll: float, late: int
    ) -> None:
        self._provider = provider
        self._listing = listing
        self._clock = clock
        self._poll = poll
        self._late = late

    async def __aiter__(self) -> AsyncIterator[Told]:
        since = self._clock.now() - self._late
        yield Told((), Window(since, since))
        while True:
            await asyncio.sleep(self._poll)
            until = self._clock.now() - self._late
            if until > since:
                window = Window(since, until)
                yield Told(await self._provider.trades(self._listing, window), window)
                since = until

    async def aclose(self) -> None:
        """Nothing is open."""
