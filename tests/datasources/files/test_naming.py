"""Whose bars a file holds, by its name, by what its user says, and by what a provider lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from datasources.files.label import Label, UnreadableFile
from datasources.files.naming import Said, file_name, listed_as, pair_of, said_by_name
from datasources.files.placing import Placement, place, place_labelled
from db.stored import SeriesFacts, SeriesKey
from market.clock import FixedClock
from market.errors import ProviderUnavailable, UnknownName
from market.instrument import Adjustment, Instrument, Listing
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, Spans, Window
from plugins.registry import Entry, Registry
from plugins.sim.provider import SimProvider
from tests.fakes import FakeProvider, Market

HOUR_FRAME = Timeframe.parse("1h")
CLOCK = FixedClock(1_700_000_000_000)


class Away(FakeProvider):
    """A provider that says nothing of what it lists."""

    async def symbols(self) -> Sequence[Instrument]:
        raise ProviderUnavailable("fake", "told to fail")


def registry(*providers: FakeProvider | SimProvider) -> Registry:
    return Registry(Entry(one.description.name, one, None) for one in providers)


@pytest.mark.parametrize(
    ("stem", "said"),
    [
        ("binance_BTCUSDT_1m_202501", Said("binance", "BTCUSDT", MINUTE_FRAME)),
        ("coinbase_BTC-USD_1m", Said("coinbase", "BTC-USD", MINUTE_FRAME)),
        ("freqtrade_XRP_ETH_1m", Said("freqtrade", "XRP_ETH", MINUTE_FRAME)),
        ("stock_SPY_1d_5y", Said("stock", "SPY", DAY_FRAME)),
        ("binance_BTCUSDT_60", Said()),
        ("BTCUSDT_1m", Said()),
        ("Binance_BTCUSDT_1m", Said()),
        ("prices", Said()),
    ],
)
def test_a_name_says_provider_symbol_and_timeframe(stem: str, said: Said) -> None:
    assert said_by_name(stem) == said


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("BTC/USDT", ("BTC", "USDT")),
        ("btcusdt", ("BTC", "USDT")),
        ("XRP_ETH", ("XRP", "ETH")),
        ("ETHBTC", ("ETH", "BTC")),
        ("BTCFDUSD", ("BTC", "FDUSD")),
        ("SPY", None),
        ("BTC", None),
        ("USDT", None),
    ],
)
def test_a_symbol_may_look_like_a_pair(symbol: str, pair: tuple[str, str] | None) -> None:
    assert pair_of(symbol) == pair


def test_a_symbol_stands_for_what_is_listed_with_the_same_letters() -> None:
    assert listed_as("BTCUSDT", ["BTC/USDT", "BTC/USDT:USDT"]) == ["BTC/USDT"]
    assert listed_as("BRKB", ["BRK-B", "BRK/B"]) == ["BRK-B", "BRK/B"]
    assert listed_as("BRK-B", ["BRK-B", "BRK/B"]) == ["BRK-B"]


async def test_the_providers_own_list_decides_what_a_name_stands_for() -> None:
    sim = SimProvider(clock=CLOCK, seed=5)

    found = await place(said_by_name("sim_SOLUSDT_1m"), registry(sim), name="file")

    assert found == Placement(
        SeriesKey(Listing("sim", "crypto", "SOL/USDT", dataset="1-5"), MINUTE_FRAME),
        SeriesFacts("SOL", "USDT", around_the_clock=True),
        "UTC",
    )


async def test_a_listed_stock_stands_on_the_days_of_its_exchange() -> None:
    sim = SimProvider(clock=CLOCK)

    found = await place(Said("sim", "AAPL", DAY_FRAME), registry(sim), name="file")

    assert (found.zone, found.calendar_name) == ("America/New_York", "XNYS")
    assert found.facts == SeriesFacts("AAPL", "USD", around_the_clock=False)


async def test_a_symbol_that_is_not_listed_is_refused_with_the_nearest() -> None:
    sim = SimProvider(clock=CLOCK)

    with pytest.raises(UnknownName) as refused:
        await place(Said("sim", "APPL", DAY_FRAME), registry(sim), name="file")

    assert "AAPL" in refused.value.suggestions


async def test_a_provider_that_does_not_answer_leaves_it_to_the_name() -> None:
    away = Away(CLOCK, {"X": Market({})})

    found = await place(Said("fake", "BTCUSDT", MINUTE_FRAME), registry(away), name="file")

    assert found.key.listing == Listing("fake", "crypto", "BTC/USDT")
    assert found.facts == SeriesFacts("BTC", "USDT", around_the_clock=True)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(), "state --provider and --symbol and --timeframe"),
        (Said("binance", "BTCUSDT"), "state --timeframe"),
        (Said("stock", "SPY", DAY_FRAME), "state --market"),
    ],
)
async def test_what_nobody_says_is_asked_for(said: Said, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        await place(said, registry(), name="file")


async def test_dates_of_a_stock_begin_at_midnight_in_new_york() -> None:
    said = Said("stock", "SPY", DAY_FRAME, market="stocks")
    found = await place(said, registry(), name="file")
    # 2021-03-12 and 2021-03-15, between which the clocks changed.
    dates = np.array([18698 * DAY, 18701 * DAY])

    opens = found.opens(dates)

    assert (opens - dates).tolist() == [5 * 3_600_000, 4 * 3_600_000]
    assert found.closes(opens)[1].tolist() == [False, False]


def test_a_label_may_be_filed_under_another_name() -> None:
    listing = Listing("alpaca", "stocks", "SPY", Adjustment.SPLIT, "iex")
    label = Label(SeriesKey(listing, HOUR_FRAME), SeriesFacts(), Window(0, DAY), Spans())

    found = place_labelled(label, Said(symbol="SPX"), name="file")

    assert found.key.listing == Listing("alpaca", "stocks", "SPX", Adjustment.SPLIT, "iex")


def test_a_label_is_not_overruled_on_its_timeframe() -> None:
    key = SeriesKey(Listing("sim", "crypto", "BTC/USDT"), HOUR_FRAME)
    label = Label(key, SeriesFacts(), Window(0, DAY), Spans())

    with pytest.raises(UnreadableFile, match="holds bars of 1h, not 1d"):
        place_labelled(label, Said(timeframe=DAY_FRAME), name="file")


def test_an_export_is_named_after_its_series() -> None:
    key = SeriesKey(Listing("binance", "crypto", "BTC/USDT:USDT"), HOUR_FRAME)

    assert file_name(key, "csv") == "binance_BTC-USDT-USDT_1h.csv"
