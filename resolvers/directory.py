"""Find providers, markets, symbols and instruments by the names that people type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasources.health import HealthBoard
from market.errors import AmbiguousSymbol, ProviderUnavailable, UnknownName
from market.instrument import Instrument, InstrumentType
from plugins.base import Provider
from plugins.registry import Entry, Registry


@dataclass(frozen=True, slots=True)
class Listed:
    """What a provider lists, in order of (market, symbol), and an index by symbol."""

    source: Sequence[Instrument]
    instruments: tuple[Instrument, ...]
    by_symbol: dict[str, tuple[Instrument, ...]]


class Directory:
    """What can be asked for. Listings are the providers' own; only their order is ours."""

    def __init__(self, registry: Registry, health: HealthBoard) -> None:
        self._registry = registry
        self._health = health
        self._listed: dict[str, Listed] = {}

    def entries(self) -> Sequence[Entry]:
        return self._registry.entries()

    def entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries() if entry.name == name), None)

    def markets(self) -> tuple[str, ...]:
        """Return the asset classes that some working provider offers, in order."""
        offered = {
            market
            for entry in self.entries()
            if entry.provider
            for market in entry.provider.description.markets
        }
        return tuple(sorted(offered))

    def provider(self, name: str) -> Provider:
        """Raises `UnknownName`, `ProviderDisabled`."""
        return self._registry.get(name)

    async def listed(self, provider: str) -> Listed:
        """Return what *provider* lists. Raises `UnknownName`, `ProviderUnavailable`."""
        known = self.provider(provider)
        try:
            source = await known.symbols()
        except ProviderUnavailable as failure:
            self._health.failed(provider, failure.reason)
            raise
        held = self._listed.get(provider)
        if held is None or held.source is not source:
            held = self._listed[provider] = _index(source)
        return held

    async def search(
        self,
        provider: str,
        *,
        market: str | None = None,
        text: str | None = None,
        type: InstrumentType | None = None,
    ) -> list[Instrument]:
        """Return the instruments that match all that is given, in order of (market, symbol)."""
        listed = await self.listed(provider)
        if market is not None:
            self.check_market(market, self.provider(provider).description.markets)
        folded = (text or "").casefold()
        return [
            instrument
            for instrument in listed.instruments
            if (market is None or instrument.market == market)
            and (type is None or instrument.type is type)
            and (not folded or _matches(instrument, folded))
        ]

    async def instrument(self, provider: str, symbol: str, market: str | None = None) -> Instrument:
        """Return the one instrument that is meant.

        Raises `UnknownName` with the nearest three, and `AmbiguousSymbol` where the market decides.
        """
        listed = await self.listed(provider)
        if market is not None:
            self.check_market(market, self.provider(provider).description.markets)
        found = [
            instrument
            for instrument in listed.by_symbol.get(symbol, ())
            if market is None or instrument.market == market
        ]
        if not found:
            known = [i.symbol for i in listed.instruments if market in (None, i.market)]
            raise UnknownName("symbol", symbol, known, field="symbol")
        if len(found) > 1:
            raise AmbiguousSymbol(symbol, [instrument.market for instrument in found])
        return found[0]

    @staticmethod
    def check_market(market: str, known: Sequence[str]) -> None:
        if market not in known:
            raise UnknownName("market", market, known, field="market")


def _index(source: Sequence[Instrument]) -> Listed:
    instruments = tuple(sorted(source, key=lambda i: (i.market, i.symbol)))
    by_symbol: dict[str, tuple[Instrument, ...]] = {}
    for instrument in instruments:
        by_symbol[instrument.symbol] = (*by_symbol.get(instrument.symbol, ()), instrument)
    return Listed(source, instruments, by_symbol)


def _matches(instrument: Instrument, folded: str) -> bool:
    names = (instrument.symbol, instrument.base, instrument.quote)
    return any(folded in name.casefold() for name in names if name)
