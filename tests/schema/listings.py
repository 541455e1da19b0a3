"""Providers that list what is hard to answer for: one symbol twice, or nothing but trouble."""

from collections.abc import Sequence
from dataclasses import replace

from market.clock import FixedClock
from market.errors import ProviderUnavailable
from market.instrument import Instrument
from plugins.base import Description
from tests.fakes import FakeProvider, Market, minutes_between
from tests.schema.recorded import CLOCK, OPENING


def in_two_markets(clock: FixedClock, symbol: str, *, markets: Sequence[str]) -> FakeProvider:
    """Return a provider that lists *symbol* in each of *markets*."""

    class Several(FakeProvider):
        @property
        def description(self) -> Description:
            return replace(super().description, markets=tuple(markets))

        async def symbols(self) -> Sequence[Instrument]:
            return tuple(replace(self.instrument(symbol), market=market) for market in markets)

    return Several(clock, {symbol: Market.of(minutes_between(OPENING, CLOCK))})


class Unreachable:
    """A provider whose listing cannot be had: it says so, or it breaks with *bug*."""

    def __init__(
        self, clock: FixedClock, name: str, *, retry_after: float | None = None, bug: str = ""
    ) -> None:
        self.clock = clock
        self.description = Description(name, name.title(), ("crypto",), "Nobody's prices")
        self._retry_after = retry_after
        self._bug = bug

    async def symbols(self) -> Sequence[Instrument]:
        if self._bug:
            raise RuntimeError(self._bug)
        raise ProviderUnavailable(
            self.description.name, "too many requests", retry_after=self._retry_after
        )

    async def aclose(self) -> None:
        """Nothing is open."""
