"""Alpaca's symbols and past, as a local server speaks to the real alpaca-py."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.clock import FixedClock
from market.errors import ImpossibleAnswer, ProviderUnavailable, UnknownName
from market.instrument import Adjustment, Instrument, InstrumentType, Listing
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.alpaca import AlpacaProvider, Keys
from plugins.alpaca.client import CALLS_A_MINUTE
from plugins.alpaca.provider import SYMBOLS_AGE
from plugins.alpaca.reading import DELAY, MAX_BAR_PAGES
from plugins.base import NativeFrame
from plugins.budget import LONGEST_WAIT, Budget
from tests.alpaca_server import AlpacaServer, alpaca_server
from tests.alpaca_server.server import KEY_ID, SECRET
from tests.plugins.contract import Offered, ProviderContract, TradesContract

NOW = 1_700_000_020_000
"""2023-11-14 17:13:40 in New York, a Tuesday after the close."""
FORMING = NOW // MINUTE * MINUTE
TODAY = 1_699_938_000_000
"""Its midnight."""
HOUR_FRAME = Timeframe.parse("1h")
APPLE = Listing("alpaca", "stocks", "AAPL", dataset="iex")
BITCOIN = Listing("alpaca", "crypto", "BTC/USD", dataset="iex")
RARE = Listing("alpaca", "crypto", "RARE/USD", dataset="iex")
YOUNG = Listing("alpaca", "stocks", "YNG", dataset="iex")


class Sleeper:
    """Sleeps by moving the clock, and remembers for how long."""

    def __init__(self, clock: FixedClock) -> None:
        self.slept: list[float] = []
        self._clock = clock

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._clock.at += int(seconds * 1000)
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[AlpacaServer]:
    async with alpaca_server(now=NOW) as running:
        yield running


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def sleeper(clock: FixedClock) -> Sleeper:
    return Sleeper(clock)


@pytest.fixture
async def alpaca(
    server: AlpacaServer, clock: FixedClock, sleeper: Sleeper
) -> AsyncIterator[AlpacaProvider]:
    provider = AlpacaProvider(
        server.keys, clock=clock, addresses=server.addresses, timeout=5, sleep=sleeper
    )
    yield provider
    await provider.aclose()


async def offered_of(
    provider: AlpacaProvider, symbol: str, frame: Timeframe, window: Window
) -> Offered:
    instrument = next(one for one in await provider.symbols() if one.symbol == symbol)
    frames = provider.history(instrument).frames
    native = next(each for each in frames if each.timeframe == frame)
    return Offered(provider, instrument, native, window)


class TestContract(ProviderContract, TradesContract):
    """Stocks and crypto keep the provider contract."""

    @pytest.fixture(params=["AAPL", "BTC/USD", "RARE/USD"])
    async def offered(
        self, request: pytest.FixtureRequest, server: AlpacaServer, clock: FixedClock
    ) -> AsyncIterator[Offered]:
        provider = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses)
        offered = await offered_of(provider, request.param, MINUTE_FRAME, minutes_back(290, 30))
        yield offered
        await offered.aclose()


class TestContractOfDays(ProviderContract):
    """So do days, across a change of New York's clocks."""

    @pytest.fixture
    async def offered(self, server: AlpacaServer, clock: FixedClock) -> AsyncIterator[Offered]:
        provider = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses)
        window = Window(TODAY - 15 * DAY, TODAY - 2 * DAY)
        offered = await offered_of(provider, "AAPL", DAY_FRAME, window)
        yield offered
        await offered.aclose()


def minutes_back(since: int, until: int) -> Window:
    """Return the minutes from *since* to *until* minutes before the forming one."""
    return Window(FORMING - since * MINUTE, FORMING - until * MINUTE)


def true_rows(
    server: AlpacaServer, symbol: str, window: Window, frame: str = "1Min", **cut: Any
) -> list[tuple[float, ...]]:
    return [
        (row["t"], row["o"], row["h"], row["l"], row["c"], row["v"])
        for row in server.rows(symbol, frame, **cut)
        if window.since <= row["t"] < window.until
    ]


def rows(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# Loading and secrets


def test_making_and_describing_a_provider_does_not_import_alpaca() -> None:
    program = """
import sys
from pydantic import SecretStr
from market.clock import FixedClock
from plugins.alpaca import AlpacaProvider, Keys
AlpacaProvider(Keys(SecretStr("a"), SecretStr("b")), clock=FixedClock(0)).description
assert "alpaca" not in sys.modules and "pandas" not in sys.modules
"""

    subprocess.run([sys.executable, "-c", program], check=True)


async def test_closing_a_provider_that_was_never_used_is_harmless(server: AlpacaServer) -> None:
    await AlpacaProvider(server.keys, clock=FixedClock(NOW)).aclose()


async def test_a_closed_provider_says_so(server: AlpacaServer, clock: FixedClock) -> None:
    provider = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses)
    await provider.symbols()
    await provider.aclose()

    with pytest.raises(ProviderUnavailable, match="closed"):
        await provider.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))


async def test_keys_are_in_no_text_and_no_log_whatever_fails(
    server: AlpacaServer,
    alpaca: AlpacaProvider,
    clock: FixedClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for stream in server.streams.values():
        stream.key = "another"
    texts = [repr(server.keys), str(server.keys), repr(alpaca)]

    await alpaca.symbols()
    with pytest.raises(ProviderUnavailable) as streamed:
        await anext(aiter(alpaca.stream_trades(BITCOIN)))
    server.faults.refuse(403, on="bars", message=f"{KEY_ID} {SECRET}")
    with pytest.raises(ProviderUnavailable) as asked:
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    texts += [f"{each.value!r} {each.value}" for each in (streamed, asked)]
    texts += [record.getMessage() for record in caplog.records]
    texts.append(caplog.text)
    assert caplog.records
    assert not [text for text in texts if SECRET in text or KEY_ID in text]


async def test_keys_that_are_refused_are_said_to_be(clock: FixedClock) -> None:
    async with alpaca_server(now=NOW) as server:
        wrong = Keys(server.keys.id, server.keys.id)
        provider = AlpacaProvider(wrong, clock=clock, addresses=server.addresses)

        with pytest.raises(ProviderUnavailable, match="refused the keys"):
            await provider.symbols()

        await provider.aclose()


async def test_keys_of_the_other_kind_of_account_find_the_symbols_there(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.refuse(401, on="assets")

    listed = await alpaca.symbols()

    assert "AAPL" in {one.symbol for one in listed}


# Symbols


async def test_what_is_active_and_tradable_is_listed(alpaca: AlpacaProvider) -> None:
    listed = await alpaca.symbols()

    assert [(one.market, one.symbol) for one in listed] == [
        ("stocks", "AAPL"),
        ("stocks", "SPY"),
        ("stocks", "WHOL"),
        ("stocks", "YNG"),
        ("crypto", "BTC/USD"),
        ("crypto", "ETH/USD"),
        ("crypto", "RARE/USD"),
    ]


async def test_rules_are_the_decimals_that_alpaca_wrote(alpaca: AlpacaProvider) -> None:
    listed = {one.symbol: one for one in await alpaca.symbols()}

    assert listed["BTC/USD"] == Instrument(
        provider="alpaca",
        market="crypto",
        symbol="BTC/USD",
        type=InstrumentType.SPOT,
        base="BTC",
        quote="USD",
        calendar="24/7",
        tick_size=Decimal(1),
        lot_size=Decimal("0.000000001"),
        min_quantity=Decimal("0.00000001"),
    )
    assert listed["AAPL"] == Instrument(
        provider="alpaca",
        market="stocks",
        symbol="AAPL",
        type=InstrumentType.STOCK,
        base="AAPL",
        quote="USD",
        calendar="XNYS",
    )
    assert (listed["WHOL"].lot_size, listed["WHOL"].min_quantity) == (Decimal(1), Decimal(1))


async def test_many_callers_share_one_reading_of_the_symbols(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    await asyncio.gather(*(alpaca.symbols() for _ in range(20)))

    assert [call.query["asset_class"] for call in server.asked("assets")] == [
        "us_equity",
        "crypto",
    ]


async def test_old_symbols_are_served_while_alpaca_is_away(
    server: AlpacaServer, alpaca: AlpacaProvider, clock: FixedClock
) -> None:
    first = await alpaca.symbols()
    clock.at += SYMBOLS_AGE
    server.faults.refuse(500, times=3, on="assets")

    second = await alpaca.symbols()

    assert second == first
    assert len(server.asked("assets")) == 2 + 3


async def test_symbols_are_read_anew_once_they_are_old(
    server: AlpacaServer, alpaca: AlpacaProvider, clock: FixedClock
) -> None:
    await alpaca.symbols()
    del server.assets["SPY"]
    clock.at += SYMBOLS_AGE

    listed = await alpaca.symbols()

    assert "SPY" not in {one.symbol for one in listed}


@pytest.mark.parametrize("body", ["[{}]", '{"message": "hello"}', "null", "<html>", "[7]"])
async def test_a_list_of_symbols_that_is_none_is_an_error(
    server: AlpacaServer, alpaca: AlpacaProvider, body: str
) -> None:
    server.faults.say(body, times=3, on="assets")

    with pytest.raises(ProviderUnavailable, match="could not be read"):
        await alpaca.symbols()


# What is offered


async def test_stocks_have_days_feeds_and_adjustments_and_crypto_has_none(
    alpaca: AlpacaProvider,
) -> None:
    listed = {one.symbol: one for one in await alpaca.symbols()}

    stocks, crypto = alpaca.history(listed["AAPL"]), alpaca.history(listed["BTC/USD"])

    assert [str(frame.timeframe) for frame in stocks.frames] == [
        "1m",
        "5m",
        "15m",
        "30m",
        "1h",
        "1d",
    ]
    assert (stocks.feeds, stocks.adjustments) == (("iex", "sip", "otc"), tuple(Adjustment))
    assert [str(frame.timeframe) for frame in crypto.frames] == ["1m", "5m", "15m", "30m", "1h"]
    assert (crypto.feeds, crypto.adjustments) == ((), ())


# Bars


async def test_bars_are_those_of_alpaca_to_the_bit(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    window = minutes_back(200, 100)

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_rows(server, "BTC/USD", window)
    assert page.bars.updated.tolist() == (page.bars.time + MINUTE).tolist()
    assert page.bars.trades.tolist() == [1] * 100
    assert not page.bars.is_closed.any()


async def test_a_window_within_the_page_limit_is_one_call(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10_050, 50))

    assert len(page.bars) == 10_000
    assert len(server.asked("bars")) == 1


@pytest.mark.parametrize("frame", ["5m", "15m", "30m", "1h"])
async def test_coarser_bars_stand_on_their_grid_and_the_running_one_is_there(
    server: AlpacaServer, alpaca: AlpacaProvider, frame: str
) -> None:
    timeframe = Timeframe.parse(frame)
    names = {"5m": "5Min", "15m": "15Min", "30m": "30Min", "1h": "1Hour"}

    page = await alpaca.bars(APPLE, timeframe, Window(NOW - DAY, NOW + DAY))

    assert rows(page.bars) == true_rows(
        server, "AAPL", Window(NOW - DAY, NOW), names[frame], share=0.125
    )
    assert page.bars.time[-1] + timeframe.nominal > NOW
    assert page.covered.hull.until == NOW


async def test_days_of_stocks_begin_at_midnight_in_new_york_in_winter_and_summer(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    friday, monday = 1_698_984_000_000, 1_699_246_800_000

    page = await alpaca.bars(APPLE, DAY_FRAME, Window(friday, monday + DAY))

    assert page.bars.time.tolist() == [friday, monday]
    assert rows(page.bars) == true_rows(
        server, "AAPL", Window(friday, monday + DAY), "1Day", share=0.125
    )
    assert monday - friday == 3 * DAY + HOUR
    assert page.covered == Spans.of(friday, monday + DAY)


async def test_pages_that_are_cut_short_are_followed_to_the_end(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    window = minutes_back(200, 100)
    server.faults.page_cap = 30

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_rows(server, "BTC/USD", window)
    assert page.covered == Spans((window,))
    assert len(server.asked("bars")) == 4


async def test_pages_without_end_are_left_and_what_was_not_read_is_not_covered(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    window = minutes_back(2000, 100)
    server.faults.page_cap = 30

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, window)

    read = Window(window.since, window.since + (30 * MAX_BAR_PAGES - 1) * MINUTE)
    assert page.covered == Spans((read,))
    assert rows(page.bars) == true_rows(server, "BTC/USD", read)


async def test_pages_that_hold_nothing_and_never_end_prove_nothing(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.page_cap = 0
    server.faults.endless_pages = True

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(200, 100))

    assert (page.covered, page.not_offered, len(page.bars)) == (Spans(), Spans(), 0)


async def test_minutes_without_trades_are_covered(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    window = minutes_back(90, 30)

    page = await alpaca.bars(RARE, MINUTE_FRAME, window)

    assert len(page.bars) == 20
    assert page.covered == Spans((window,))
    assert page.not_offered == Spans()


async def test_a_night_without_trades_is_covered(alpaca: AlpacaProvider) -> None:
    night = Window(TODAY + HOUR, TODAY + 3 * HOUR)

    page = await alpaca.bars(APPLE, MINUTE_FRAME, night)

    assert len(page.bars) == 0
    assert page.covered == Spans((night,))


async def test_what_alpaca_has_is_vouched_for_up_to_now(alpaca: AlpacaProvider) -> None:
    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, Window(FORMING - 5 * MINUTE, NOW + HOUR))

    assert len(page.bars) == 5
    assert page.covered == Spans.of(FORMING - 5 * MINUTE, NOW)


async def test_a_longer_bar_just_over_is_not_given_until_its_last_minute_is_surely_in_it(
    alpaca: AlpacaProvider, clock: FixedClock
) -> None:
    over = NOW // HOUR * HOUR
    window = Window(over - 2 * HOUR, over)
    clock.at = over + 5_000

    soon = await alpaca.bars(BITCOIN, HOUR_FRAME, window)
    clock.at = over + 10_000
    later = await alpaca.bars(BITCOIN, HOUR_FRAME, window)

    assert soon.bars.time.tolist() == [window.since]
    assert soon.covered == Spans.of(window.since, window.since + HOUR)
    assert later.bars.time.tolist() == [window.since, window.since + HOUR]
    assert later.covered == Spans((window,))


async def test_a_minute_just_over_without_a_bar_is_not_vouched_for(
    alpaca: AlpacaProvider, clock: FixedClock
) -> None:
    empty = FORMING - 3 * MINUTE
    window = Window(empty - 3 * MINUTE, empty + MINUTE)
    clock.at = empty + MINUTE + 5_000

    soon = await alpaca.bars(RARE, MINUTE_FRAME, window)
    clock.at = empty + MINUTE + 10_000
    later = await alpaca.bars(RARE, MINUTE_FRAME, window)

    assert empty not in soon.bars.time
    assert soon.covered == Spans.of(window.since, empty)
    assert later.covered == Spans((window,))


async def test_before_its_first_bar_nothing_is_offered(alpaca: AlpacaProvider) -> None:
    first = 1_699_635_600_000

    page = await alpaca.bars(YOUNG, MINUTE_FRAME, Window(first - HOUR, first + HOUR))

    assert page.not_offered == Spans.of(first - HOUR, first)
    assert page.covered == Spans.of(first, first + HOUR)
    assert page.bars.time[0] == first


async def test_where_the_past_begins_is_asked_once(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    first = 1_699_635_600_000

    for day in range(1, 6):
        window = Window(first - day * DAY, first - day * DAY + HOUR)
        page = await alpaca.bars(YOUNG, MINUTE_FRAME, window)
        assert (page.not_offered, page.covered) == (Spans((window,)), Spans())

    assert len(server.asked("bars")) == 5 + 1


async def test_a_thousand_years_ago_nothing_is_offered_and_nothing_asked(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    window = Window(-30_000_000 * MINUTE, -29_990_000 * MINUTE)

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, window)

    assert page.not_offered == Spans((window,))
    assert page.covered == Spans()
    assert server.asked("bars") == []


@pytest.mark.parametrize("adjustment", list(Adjustment))
async def test_adjusted_bars_are_those_that_alpaca_adjusts(
    server: AlpacaServer, alpaca: AlpacaProvider, adjustment: Adjustment
) -> None:
    listing = Listing("alpaca", "stocks", "AAPL", adjustment=adjustment, dataset="iex")
    window = Window(TODAY - 4 * DAY, TODAY)

    page = await alpaca.bars(listing, HOUR_FRAME, window)

    cut = {"share": 0.125, "adjustment": adjustment.value}
    assert rows(page.bars) == true_rows(server, "AAPL", window, "1Hour", **cut)
    assert server.asked("bars")[0].query["adjustment"] == adjustment.value


async def test_without_a_choice_bars_are_raw_and_from_the_provider_s_feed(
    server: AlpacaServer, clock: FixedClock
) -> None:
    iex = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses)
    sip = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses, feed="sip")

    for provider in (iex, sip):
        await provider.bars(APPLE, MINUTE_FRAME, minutes_back(10, 5))
        await provider.aclose()

    asked = [(call.query["feed"], call.query["adjustment"]) for call in server.asked("bars")]
    assert asked == [("iex", "raw"), ("sip", "raw")]
    assert (iex.description.dataset, sip.description.dataset) == ("iex", "sip")


async def test_a_feed_that_is_chosen_is_asked(server: AlpacaServer, alpaca: AlpacaProvider) -> None:
    listing = Listing("alpaca", "stocks", "AAPL", feed="sip", dataset="iex")
    window = minutes_back(200, 100)

    page = await alpaca.bars(listing, MINUTE_FRAME, window)

    assert rows(page.bars) == true_rows(server, "AAPL", window)


async def test_a_feed_that_the_account_does_not_have_is_an_error(
    alpaca: AlpacaProvider,
) -> None:
    listing = Listing("alpaca", "stocks", "AAPL", feed="otc", dataset="iex")

    with pytest.raises(ProviderUnavailable, match="subscription does not include"):
        await alpaca.bars(listing, MINUTE_FRAME, minutes_back(10, 5))


@pytest.mark.parametrize("frame", ["1m", "30m", "1d"])
async def test_an_account_without_the_newest_sip_gets_whole_bars_up_to_where_it_may_look(
    server: AlpacaServer, alpaca: AlpacaProvider, frame: str
) -> None:
    server.delayed = True
    listing = Listing("alpaca", "stocks", "AAPL", feed="sip", dataset="iex")
    step = Timeframe.parse(frame).nominal
    window = Window(TODAY - 2 * DAY, NOW + DAY)

    first = await alpaca.bars(listing, Timeframe.parse(frame), window)
    second = await alpaca.bars(listing, Timeframe.parse(frame), window)

    reached = TODAY if frame == "1d" else (NOW - DELAY) // step * step
    names = {"1m": "1Min", "30m": "30Min", "1d": "1Day"}
    assert first.covered == Spans.of(window.since, reached)
    assert rows(first.bars) == true_rows(
        server, "AAPL", Window(window.since, reached), names[frame]
    )
    assert rows(second.bars) == rows(first.bars)
    # It learns: only the first question was refused.
    ends = [call.query["end"] for call in server.asked("bars") if call.query["limit"] != "1"]
    assert ends[0] > ends[1]
    assert set(ends[1:]) == {ends[1]}


async def test_a_row_with_a_price_missing_is_an_error_never_zero(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.nulls_at = FORMING - 5 * MINUTE

    with pytest.raises(ProviderUnavailable):
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))


async def test_bars_that_cannot_be_true_are_an_error(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.high_below_low_at = FORMING - 5 * MINUTE

    with pytest.raises(ImpossibleAnswer, match="cannot be true"):
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))


async def test_bars_off_their_grid_are_an_error(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.shift = 30_000

    with pytest.raises(ImpossibleAnswer, match="grid"):
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))


@pytest.mark.parametrize(
    "body",
    [
        "<html>Down for maintenance</html>",
        "{",
        "null",
        "7",
        "[]",
        "{}",
        '{"bars": 7}',
        '{"bars": {"BTC/USD": 7}}',
        '{"bars": {"BTC/USD": [7]}}',
        '{"bars": {"BTC/USD": [{"t": 7}]}}',
        '{"bars": {"BTC/USD": [{"t": "yesterday"}]}}',
        '{"bars": {"BTC/USD": [{"t": "2023-11-14T22:05:00Z"}]}}',
        '{"bars": {"BTC/USD": [{"t": "2001-01-01T00:00:00Z"}]}}',
    ],
)
async def test_an_answer_that_cannot_be_read_is_never_an_empty_list(
    server: AlpacaServer, alpaca: AlpacaProvider, body: str
) -> None:
    server.faults.say(body, times=3, on="bars")

    with pytest.raises(ProviderUnavailable):
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))


async def test_no_bars_at_all_is_an_answer(server: AlpacaServer, alpaca: AlpacaProvider) -> None:
    server.faults.say('{"bars": null, "next_page_token": null}', times=2, on="bars")

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))

    assert len(page.bars) == 0
    assert page.covered == Spans()
    assert page.not_offered == Spans((minutes_back(10, 1),))


async def test_a_symbol_that_is_not_listed_is_refused_without_a_call(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    with pytest.raises(UnknownName) as refused:
        await alpaca.bars(
            Listing("alpaca", "crypto", "BTC/USDD"), MINUTE_FRAME, minutes_back(10, 0)
        )

    assert "BTC/USD" in refused.value.suggestions
    assert server.asked("bars") == []


# The first time


@pytest.mark.parametrize(
    ("since", "first"),
    [
        (0, 1_699_635_600_000),
        (1_699_635_600_000, 1_699_635_600_000),
        (1_699_635_600_001, 1_699_635_660_000),
        # Over the weekend nothing is traded: Monday at 04:00 in New York.
        (1_699_700_000_000, 1_699_866_000_000),
        (NOW, None),
        (-(2**60), 1_699_635_600_000),
        (2**60, None),
    ],
)
async def test_the_first_time_is_that_of_the_oldest_bar_not_before_since(
    server: AlpacaServer, alpaca: AlpacaProvider, since: int, first: int | None
) -> None:
    found = await alpaca.first_time(YOUNG, MINUTE_FRAME, since)

    assert found == first
    assert len(server.asked("bars")) <= 1


# Trades


async def test_trades_are_all_of_the_window_and_named_apart_by_exchange(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    window = Window(FORMING - 100 * MINUTE, FORMING - 99 * MINUTE)
    server.faults.page_cap = 2

    trades = await alpaca.trades(APPLE, window)

    minute = window.since // MINUTE
    assert [(trade.id, trade.time - window.since) for trade in trades] == [
        (f"V-{minute * 10}", 1_000),
        (f"V-{minute * 10 + 1}", 20_000),
        # In the last tenth of the last millisecond but one: the end of the window is not cut off.
        (f"V-{minute * 10 + 2}", 59_999),
    ]


async def test_trades_that_did_not_count_are_left_out(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.say(
        """{"trades": {"AAPL": [
            {"t": "2023-11-14T22:05:00.1Z", "x": "V", "i": 1, "p": 10, "s": 1, "u": "canceled"},
            {"t": "2023-11-14T22:05:00.2Z", "x": "V", "i": 2, "p": 10, "s": 1, "u": "incorrect"},
            {"t": "2023-11-14T22:05:00.3Z", "x": "V", "i": 3, "p": 10, "s": 1, "u": "corrected"},
            {"t": "2023-11-14T22:05:00.4Z", "x": "D", "i": 3, "p": 11, "s": 0}
        ]}, "next_page_token": null}""",
        on="trades",
    )

    trades = await alpaca.trades(APPLE, minutes_back(10, 1))

    assert [trade.id for trade in trades] == ["V-3"]


async def test_a_part_of_the_trades_is_an_error_never_all(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.faults.page_cap = 1

    with pytest.raises(ProviderUnavailable, match="all trades"):
        await alpaca.trades(BITCOIN, minutes_back(20, 1))


async def test_trades_too_young_for_the_account_are_an_error(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    server.delayed = True
    listing = Listing("alpaca", "stocks", "AAPL", feed="sip", dataset="iex")

    old = await alpaca.trades(listing, minutes_back(60, 50))

    assert len(old) == 30
    with pytest.raises(ProviderUnavailable):
        await alpaca.trades(listing, minutes_back(10, 0))


# Failures


async def test_too_many_requests_is_an_error_with_its_pause_and_nobody_calls_before(
    server: AlpacaServer, alpaca: AlpacaProvider, clock: FixedClock
) -> None:
    await alpaca.symbols()
    server.faults.refuse(429, retry_after=50, on="bars")

    for _ in range(3):
        with pytest.raises(ProviderUnavailable, match="rate limited") as refused:
            await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))
        assert refused.value.retry_after == pytest.approx(50)
    calls_while_paused = len(server.asked("bars"))
    clock.at += 50_000
    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))

    assert calls_while_paused == 1
    assert len(page.bars) == 9


async def test_the_instant_at_which_the_limit_is_reset_is_understood(
    server: AlpacaServer, alpaca: AlpacaProvider, sleeper: Sleeper
) -> None:
    await alpaca.symbols()
    server.faults.refuse(429, resets_at=NOW // 1000 + 7, on="bars")

    with pytest.raises(ProviderUnavailable) as refused:
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))
    await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))

    assert refused.value.retry_after == pytest.approx(7, abs=0.1)
    assert sleeper.slept == [pytest.approx(7, abs=0.1)]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_failure_that_passes_is_tried_again(
    server: AlpacaServer, alpaca: AlpacaProvider, sleeper: Sleeper, status: int
) -> None:
    await alpaca.symbols()
    server.faults.refuse(status, times=2, on="bars")

    page = await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 1))

    assert len(page.bars) == 9
    assert 0.25 <= sleeper.slept[0] <= 0.75
    assert 0.5 <= sleeper.slept[1] <= 1.5


async def test_a_failure_that_stays_is_an_error_without_the_url(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    await alpaca.symbols()
    server.faults.refuse(500, times=9, on="bars")

    with pytest.raises(ProviderUnavailable) as refused:
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert "http" not in str(refused.value)
    assert len(server.asked("bars")) == 3


async def test_alpaca_that_hangs_is_an_error_in_bounded_time(
    server: AlpacaServer, clock: FixedClock, sleeper: Sleeper
) -> None:
    provider = AlpacaProvider(
        server.keys, clock=clock, addresses=server.addresses, timeout=2, sleep=sleeper
    )
    await provider.symbols()
    server.faults.hang(times=9, on="bars")

    with pytest.raises(ProviderUnavailable, match="did not answer in time"):
        await provider.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(server.asked("bars")) == 3
    await provider.aclose()


async def test_a_closed_port_is_an_error(clock: FixedClock, sleeper: Sleeper) -> None:
    async with alpaca_server(now=NOW) as gone:
        keys, addresses = gone.keys, gone.addresses
    provider = AlpacaProvider(keys, clock=clock, addresses=addresses, sleep=sleeper)

    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        await provider.symbols()

    await provider.aclose()


async def test_a_refusal_is_not_tried_again(server: AlpacaServer, alpaca: AlpacaProvider) -> None:
    await alpaca.symbols()
    server.faults.refuse(422, on="bars")

    with pytest.raises(ProviderUnavailable, match="refused the request"):
        await alpaca.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(server.asked("bars")) == 1


# The budget


async def test_calls_beyond_the_budget_wait_for_their_turn(
    server: AlpacaServer, alpaca: AlpacaProvider, clock: FixedClock, sleeper: Sleeper
) -> None:
    await alpaca.symbols()
    clock.at += 55_000
    window = Window(FORMING - 100 * MINUTE, FORMING - 99 * MINUTE)

    for _ in range(CALLS_A_MINUTE - 2):
        await alpaca.bars(BITCOIN, MINUTE_FRAME, window)
    slept_before = list(sleeper.slept)
    await alpaca.bars(BITCOIN, MINUTE_FRAME, window)

    assert slept_before == []
    assert sleeper.slept == [5.0]


@settings(deadline=None)
@given(
    pauses=st.lists(st.integers(0, 40_000), min_size=1, max_size=60),
    allowed=st.integers(1, 7),
)
async def test_in_no_minute_are_there_more_calls_than_allowed(
    pauses: Sequence[int], allowed: int
) -> None:
    clock = FixedClock(NOW)
    budget = Budget("alpaca", allowed, clock=clock, sleep=Sleeper(clock))
    made: list[int] = []

    for pause in pauses:
        clock.at += pause
        try:
            await budget.take()
        except ProviderUnavailable as refused:
            assert refused.retry_after is not None
            assert LONGEST_WAIT < refused.retry_after <= 60
        else:
            made.append(clock.at)

    assert made
    times = np.array(made)
    in_a_minute = np.searchsorted(times, times + 60_000) - np.arange(len(times))
    assert in_a_minute.max() <= allowed


def test_frames_of_hours_and_less_stand_alike_in_new_york_and_in_utc(
    alpaca: AlpacaProvider,
) -> None:
    stock = Instrument("alpaca", "stocks", "AAPL", InstrumentType.STOCK, calendar="XNYS")

    frames = alpaca.history(stock).frames

    assert all(HOUR % frame.timeframe.nominal == 0 for frame in frames[:-1])
    assert frames[-1] == NativeFrame(DAY_FRAME, timezone=None)
