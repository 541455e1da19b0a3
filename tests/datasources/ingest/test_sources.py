"""Which trades are meant by a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from datasources.ingest.sources import SourceName, find
from market.clock import FixedClock
from market.errors import AmbiguousSymbol, BadInput, UnknownName
from market.instrument import Instrument
from plugins.registry import Entry, Registry
from tests.datasources.chains import NOW
from tests.datasources.ingest.stage import Pushing
from tests.datasources.live.streaming import Polled


def registry_of(provider: Polled) -> Registry:
    return Registry([Entry("fake", provider, None)])


def test_a_symbol_may_have_colons() -> None:
    assert SourceName.parse("bybit:BTC/USDT:USDT") == SourceName("bybit", "BTC/USDT:USDT")


@pytest.mark.parametrize("wrong", ["", "binance", "binance:", ":BTC/USDT"])
def test_a_name_has_two_parts(wrong: str) -> None:
    with pytest.raises(ValueError, match="as in binance:BTC/USDT"):
        SourceName.parse(wrong)


async def test_a_symbol_that_is_not_listed_is_named_with_the_nearest() -> None:
    provider = Pushing(FixedClock(NOW))

    with pytest.raises(UnknownName) as unknown:
        await find(registry_of(provider), SourceName("fake", provider.symbol[:-1]))

    assert unknown.value.suggestions == (provider.symbol,)


async def test_a_symbol_of_two_markets_is_refused() -> None:
    class Both(Pushing):
        async def symbols(self) -> Sequence[Instrument]:
            (one,) = await super().symbols()
            return (one, replace(one, market="forex"))

    provider = Both(FixedClock(NOW))

    with pytest.raises(AmbiguousSymbol):
        await find(registry_of(provider), SourceName("fake", provider.symbol))


async def test_a_provider_that_tells_no_trades_is_refused() -> None:
    provider = Polled(FixedClock(NOW))

    with pytest.raises(BadInput, match="tells no trades"):
        await find(registry_of(provider), SourceName("fake", next(iter(provider.markets))))
