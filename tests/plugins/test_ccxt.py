"""The real ccxt client against a local exchange that misbehaves on demand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal

import numpy as np
import pytest

from market.bars import Bars
from market.clock import FixedClock
from market.errors import ImpossibleAnswer, ProviderUnavailable, UnknownName
from market.instrument import InstrumentType, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import HOUR, MINUTE, Spans, Window
from plugins.ccxt_exchange import CcxtProvider
from plugins.ccxt_exchange.client import LONGEST_PAUSE
from plugins.ccxt_exchange.paging import MAX_ASKS
from plugins.ccxt_exchange.provider import CLOCK_AGE, SYMBOLS_AGE
from tests.exchange_server import ExchangeServer, Market, exchange_server
from tests.plugins.contract import Offered, ProviderContract

NOW = 1_700_000_020_000
"""40 seconds into a minute."""
FORMING = NOW // MINUTE * MINUTE
BITCOIN = Listing("binance", "crypto", "BTC/USDT")
RARE = Listing("binance", "crypto", "RARE/USDT")
AT_KRAKEN = Listing("kraken", "crypto", "BTC/USD")


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
async def server() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as running:
        yield running


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def sleeper(clock: FixedClock) -> Sleeper:
    return Sleeper(clock)


@pytest.fixture
async def binance(
    server: ExchangeServer, clock: FixedClock, sleeper: Sleeper
) -> AsyncIterator[CcxtProvider]:
    provider = CcxtProvider(
        "binance", clock=clock, configure=server.configure, timeout=2, sleep=sleeper
    )
    yield provider
    await provider.aclose()


@pytest.fixture
async def kraken(
    server: ExchangeServer, clock: FixedClock, sleeper: Sleeper
) -> AsyncIterator[CcxtProvider]:
    provider = CcxtProvider(
        "kraken", clock=clock, configure=server.configure, timeout=2, sleep=sleeper
    )
    yield provider
    await provider.aclose()


@pytest.fixture(params=[("binance", "BTC/USDT"), ("binance", "RARE/USDT"), ("kraken", "BTC/USD")])
async def offered(
    request: pytest.FixtureRequest, server: ExchangeServer, clock: FixedClock
) -> AsyncIterator[Offered]:
    exchange_id, symbol = request.param
    provider = CcxtProvider(exchange_id, clock=clock, configure=server.configure)
    instrument = next(one for one in await provider.symbols() if one.symbol == symbol)
    frame = next(f for f in provider.history(instrument).frames if f.timeframe == MINUTE_FRAME)
    offered = Offered(provider, instrument, frame, minutes_back(400, 100))
    yield offered
    await offered.aclose()


class TestContract(ProviderContract):
    """The exchanges keep the provider contract."""


def minutes_back(since: int, until: int) -> Window:
    """Return the minutes from *since* to *until* minutes before the forming one."""
    return Window(FORMING - since * MINUTE, FORMING - until * MINUTE)


def spans(*windows: Window) -> Spans:
    return Spans(windows)


def true_bars(
    server: ExchangeServer, symbol: str, window: Window, *, step: int = MINUTE
) -> list[tuple[float, ...]]:
    market = server.markets[symbol]
    return list(market.candles(window.since, window.until, step=step).rows())


def rows(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# Loading


def test_making_and_describing_a_provider_does_not_import_ccxt() -> None:
    code = (
        "import sys\n"
        "from market.clock import FixedClock\n"
        "from plugins.ccxt_exchange import CcxtProvider\n"
        "provider = CcxtProvider('okx', clock=FixedClock(0))\n"
        "print(provider.description.title, provider.clock.now(), 'ccxt' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["OKX", "0", "False"]


def test_an_exchange_that_ccxt_lacks_is_refused_with_the_nearest_ids() -> None:
    with pytest.raises(UnknownName, match=r"Unknown ccxt exchange 'binanse'") as refused:
        CcxtProvider("binanse", clock=FixedClock(NOW))

    assert "binance" in refused.value.suggestions


async def test_closing_a_provider_that_was_never_used_is_harmless() -> None:
    await CcxtProvider("binance", clock=FixedClock(NOW)).aclose()


async def test_a_closed_provider_says_so(binance: CcxtProvider) -> None:
    await binance.symbols()

    await binance.aclose()

    with pytest.raises(ProviderUnavailable, match="closed"):
        await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))


# Symbols


async def test_rules_are_the_decimals_that_the_exchange_wrote(binance: CcxtProvider) -> None:
    listed = {one.symbol: one for one in await binance.symbols()}

    bitcoin = listed["BTC/USDT"]
    assert bitcoin.type is InstrumentType.SPOT
    assert (bitcoin.base, bitcoin.quote) == ("BTC", "USDT")
    assert bitcoin.tick_size == Decimal("0.01")
    assert bitcoin.lot_size == Decimal("0.00001")
    assert bitcoin.min_quantity == Decimal("0.00001")
    assert bitcoin.max_quantity == 9000
    assert bitcoin.min_notional == 5
    assert bitcoin.order_types == ("limit", "market")
    assert {"GTC", "IOC", "FOK"} <= set(bitcoin.time_in_force)


async def test_symbols_are_listed_under_their_unified_names(kraken: CcxtProvider) -> None:
    listed = await kraken.symbols()

    names = [one.symbol for one in listed]
    assert names == sorted(names)
    assert "BTC/USD" in names
    assert listed[names.index("BTC/USD")].tick_size == Decimal("0.1")


async def test_many_callers_share_one_reading_of_the_symbols(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    lists = await asyncio.gather(*(binance.symbols() for _ in range(20)))

    assert all(one == lists[0] for one in lists)
    assert len(server.asked("exchangeInfo")) == 1


async def test_a_caller_that_leaves_does_not_take_the_symbols_from_the_others(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    leaving = asyncio.create_task(binance.symbols())
    staying = asyncio.create_task(binance.symbols())
    await asyncio.sleep(0)

    leaving.cancel()

    assert await staying
    assert len(server.asked("exchangeInfo")) == 1


async def test_symbols_are_read_anew_once_they_are_old(
    server: ExchangeServer, binance: CcxtProvider, clock: FixedClock
) -> None:
    before = await binance.symbols()
    server.markets["NEW/USDT"] = Market("NEW", "USDT")

    clock.at += SYMBOLS_AGE - 1
    still = await binance.symbols()
    clock.at += 1
    after = await binance.symbols()

    assert still == before
    assert {one.symbol for one in after} - {one.symbol for one in before} == {"NEW/USDT"}


async def test_old_symbols_are_served_while_the_exchange_is_away(
    server: ExchangeServer, binance: CcxtProvider, clock: FixedClock
) -> None:
    before = await binance.symbols()
    server.faults.refuse(503, times=3, on="exchangeInfo")
    clock.at += SYMBOLS_AGE

    after = await binance.symbols()

    assert after == before
    assert len(server.asked("exchangeInfo")) == 1 + 3


async def test_without_any_symbols_an_absent_exchange_is_an_error(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.refuse(503, times=3, on="exchangeInfo")

    with pytest.raises(ProviderUnavailable):
        await binance.symbols()

    assert await binance.symbols()


# Offer


async def test_history_before_symbols_is_a_named_error(
    server: ExchangeServer, clock: FixedClock, binance: CcxtProvider
) -> None:
    other = CcxtProvider("binance", clock=clock, configure=server.configure)
    instrument = (await binance.symbols())[0]

    with pytest.raises(ProviderUnavailable, match="symbols must be asked for"):
        other.history(instrument)


async def test_only_frames_on_the_utc_grid_are_offered(binance: CcxtProvider) -> None:
    instrument = (await binance.symbols())[0]

    offer = binance.history(instrument)

    names = [str(native.timeframe) for native in offer.frames]
    assert {"1s", "1m", "1h", "12h", "1d"} <= set(names)
    assert not {"3d", "1w", "1M"} & set(names)
    assert {native.timezone for native in offer.frames} == {"UTC"}


async def test_the_row_limit_is_the_exchange_s_own(
    binance: CcxtProvider, kraken: CcxtProvider
) -> None:
    limits = [
        provider.history((await provider.symbols())[0]).page_limit for provider in (binance, kraken)
    ]

    assert limits == [1000, 720]


# Clock


async def test_the_provider_s_now_is_the_exchange_s(
    server: ExchangeServer, binance: CcxtProvider, clock: FixedClock
) -> None:
    server.now = NOW + 90_123

    await binance.symbols()

    assert abs(binance.clock.now() - server.now) < 2000
    assert binance.clock.now() - clock.now() > 88_000


async def test_a_difference_too_small_to_tell_counts_as_none(
    server: ExchangeServer, kraken: CcxtProvider, clock: FixedClock
) -> None:
    clock.at = server.now + 700

    await kraken.symbols()

    assert kraken.clock.now() == clock.now()


async def test_the_clock_is_compared_again_once_the_comparison_is_old(
    server: ExchangeServer, binance: CcxtProvider, clock: FixedClock
) -> None:
    await binance.symbols()
    await binance.symbols()
    assert len(server.asked("/time")) == 1

    clock.at += CLOCK_AGE
    server.now = clock.at + 60_000
    await binance.symbols()

    assert len(server.asked("/time")) == 2
    assert binance.clock.now() - clock.now() > 55_000


async def test_bars_come_also_when_the_clock_cannot_be_compared(
    server: ExchangeServer, binance: CcxtProvider, clock: FixedClock
) -> None:
    server.faults.refuse(500, on="/time")

    page = await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(page.bars) == 10
    assert binance.clock.now() == clock.now()


# Paging


@pytest.mark.parametrize(("frame", "step"), [("1m", MINUTE), ("1h", HOUR), ("1d", 24 * HOUR)])
async def test_bars_are_those_of_the_exchange_to_the_bit(
    server: ExchangeServer, binance: CcxtProvider, frame: str, step: int
) -> None:
    window = Window(FORMING - 50 * step, FORMING - 5 * step).aligned(step)

    page = await binance.bars(BITCOIN, Timeframe.parse(frame), window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window, step=step)
    assert page.covered == spans(window)
    assert page.not_offered == Spans()


async def test_a_window_within_the_row_limit_is_one_call(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(1000, 0))

    assert [call.query["limit"] for call in server.asked("klines")] == ["1000"]


async def test_a_window_beyond_the_row_limit_takes_the_calls_it_needs(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    window = minutes_back(2500, 0)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window)
    assert page.covered == spans(window)
    assert len(server.asked("klines")) == 3


async def test_the_forming_bar_is_returned_and_covered_up_to_now(binance: CcxtProvider) -> None:
    page = await binance.bars(BITCOIN, MINUTE_FRAME, Window(FORMING - MINUTE, FORMING + HOUR))

    assert page.bars.time.tolist() == [FORMING - MINUTE, FORMING]
    assert page.bars.updated.tolist() == [FORMING, NOW]
    assert page.covered == Spans.of(FORMING - MINUTE, NOW)
    assert page.not_offered == Spans()


async def test_an_exchange_that_gives_fewer_rows_than_documented_is_asked_on(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.page_cap = 300
    window = minutes_back(1000, 0)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window)
    assert page.covered == spans(window)
    assert len(server.asked("klines")) == 4


async def test_a_truncated_page_is_not_the_end_of_history(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.truncate_pages = 2
    window = minutes_back(400, 0)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window)
    assert page.covered == spans(window)


async def test_pages_cut_to_a_few_rows_end_after_the_allowed_calls(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.page_cap = 10
    window = minutes_back(1000, 0)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    known = Window(window.since, window.since + 10 * MAX_ASKS * MINUTE)
    assert len(server.asked("klines")) == MAX_ASKS
    assert rows(page.bars) == true_bars(server, "BTC/USDT", known)
    assert page.covered == spans(known)
    assert page.not_offered == Spans()


@pytest.mark.parametrize("by_stretches", [False, True])
async def test_minutes_without_trades_are_covered(
    server: ExchangeServer, binance: CcxtProvider, *, by_stretches: bool
) -> None:
    server.faults.answers_stretch_only = by_stretches
    window = minutes_back(301, 2)

    page = await binance.bars(RARE, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "RARE/USDT", window)
    assert len(page.bars) == 99
    assert page.covered == spans(window)
    assert page.not_offered == Spans()


async def test_a_window_without_any_trade_is_covered(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    quiet = next(
        Window(since, since + 2 * MINUTE)
        for since in range(FORMING - HOUR, FORMING, MINUTE)
        if since // MINUTE % 3 == 0
    )

    page = await binance.bars(RARE, MINUTE_FRAME, quiet)

    assert len(page.bars) == 0
    assert page.covered == spans(quiet)


async def test_before_its_first_trade_a_market_offers_nothing(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    listed = server.markets["BTC/USDT"].listed
    window = Window(listed - 600 * MINUTE, listed + 100 * MINUTE)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert page.bars.time[0] == listed
    assert page.covered == Spans.of(listed, window.until)
    assert page.not_offered == Spans.of(window.since, listed)


async def test_a_thousand_years_ago_nothing_is_offered_and_nothing_asked(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    window = Window(-31_556_952_000_000, -31_556_952_000_000 + 500 * MINUTE)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert page.not_offered == spans(window)
    assert server.asked("klines") == []


async def test_kraken_offers_only_its_newest_720_minutes(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    window = Window(FORMING - 1000 * MINUTE, FORMING)
    oldest = FORMING - 719 * MINUTE

    page = await kraken.bars(AT_KRAKEN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USD", Window(oldest, FORMING))
    assert page.covered == Spans.of(oldest, FORMING)
    assert page.not_offered == Spans.of(window.since, oldest)
    assert len(server.asked("OHLC")) <= 5


async def test_a_window_older_than_what_kraken_has_takes_a_few_calls_not_a_hundred(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    window = minutes_back(50_720, 50_000)

    page = await kraken.bars(AT_KRAKEN, MINUTE_FRAME, window)

    assert len(page.bars) == 0
    assert page.covered == Spans()
    assert page.not_offered == spans(window)
    assert len(server.asked("OHLC")) <= 5


async def test_an_exchange_that_ignores_since_is_found_out(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.ignores_since = server.faults.ignores_until = True
    window = minutes_back(5000, 4000)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert len(page.bars) == 0
    assert page.covered == Spans()
    assert page.not_offered == spans(window)
    assert len(server.asked("klines")) <= 5


async def test_of_an_exchange_that_ignores_since_the_newest_rows_are_used(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.ignores_since = server.faults.ignores_until = True
    window = minutes_back(300, 200)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window)
    assert page.covered == spans(window)


async def test_an_exchange_that_gives_the_newest_first_is_read_backwards(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.newest_first = server.faults.answers_stretch_only = True
    server.faults.page_cap = 300
    window = minutes_back(1000, 0)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window)
    assert page.covered == spans(window)


async def test_a_server_that_kept_only_its_newest_720_rows_vouches_for_no_more(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.newest_only = 720
    window = minutes_back(1000, 0)
    oldest = FORMING - 719 * MINUTE

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert page.bars.time[0] == oldest
    assert page.covered == Spans.of(oldest, FORMING)
    assert page.not_offered == Spans.of(window.since, oldest)


async def test_repeated_and_unsorted_rows_become_one_series(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.repeats_rows = server.faults.shuffles_rows = True
    window = minutes_back(100, 0)

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert rows(page.bars) == true_bars(server, "BTC/USDT", window)


@pytest.mark.parametrize("column", [1, 4, 5])
async def test_a_row_with_a_value_missing_is_unknown_never_zero(
    server: ExchangeServer, binance: CcxtProvider, column: int
) -> None:
    window = minutes_back(100, 0)
    hole = Window(window.since + 40 * MINUTE, window.since + 41 * MINUTE)
    server.faults.nulls = {hole.since: column}

    page = await binance.bars(BITCOIN, MINUTE_FRAME, window)

    assert page.covered == spans(window) - spans(hole)
    assert hole.since not in page.bars.time
    assert len(page.bars) == 99


async def test_bars_that_cannot_be_true_are_an_error(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    window = minutes_back(100, 0)
    server.faults.high_below_low_at = window.since + 7 * MINUTE

    with pytest.raises(ImpossibleAnswer, match=r"bar 7 .* has high below"):
        await binance.bars(BITCOIN, MINUTE_FRAME, window)


async def test_rows_whose_time_cannot_be_read_are_an_error_not_an_empty_list(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    server.faults.say('[["soon", "a", "b", "c", "d", "e"]]', times=3, kind="application/json")

    with pytest.raises(ProviderUnavailable):
        await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))


# First time


async def test_the_first_time_is_the_oldest_bar_at_or_after_since(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    listed = server.markets["BTC/USDT"].listed

    first = await binance.first_time(BITCOIN, MINUTE_FRAME, 0)
    later = await binance.first_time(BITCOIN, MINUTE_FRAME, listed + 5 * MINUTE + 1)

    assert first == listed
    assert later == listed + 6 * MINUTE
    assert len(server.asked("klines")) == 2


async def test_the_first_time_is_found_where_answers_cover_only_the_stretch_asked_about(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.faults.answers_stretch_only = True

    first = await binance.first_time(BITCOIN, MINUTE_FRAME, 0)

    assert first == server.markets["BTC/USDT"].listed
    assert len(server.asked("klines")) < 12


async def test_the_first_time_of_an_exchange_that_ignores_since_is_its_oldest_row(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    first = await kraken.first_time(AT_KRAKEN, MINUTE_FRAME, 0)

    assert first == FORMING - 719 * MINUTE
    assert len(server.asked("OHLC")) == 1


# Failures


async def test_too_many_requests_makes_every_caller_pause_as_long_as_told(
    server: ExchangeServer, binance: CcxtProvider, sleeper: Sleeper
) -> None:
    await binance.symbols()
    server.faults.refuse(429, retry_after=7, on="klines")

    page = await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(page.bars) == 10
    assert sleeper.slept == [7.0]
    assert len(server.asked("klines")) == 2


async def test_a_long_pause_is_an_error_and_nobody_calls_before_it_is_over(
    server: ExchangeServer, binance: CcxtProvider, clock: FixedClock, sleeper: Sleeper
) -> None:
    await binance.symbols()
    server.faults.refuse(418, retry_after=LONGEST_PAUSE + 50, on="klines")

    for _ in range(3):
        with pytest.raises(ProviderUnavailable) as refused:
            await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))
        assert refused.value.retry_after == pytest.approx(LONGEST_PAUSE + 50)
    calls_while_banned = len(server.asked("klines"))
    clock.at += int((LONGEST_PAUSE + 50) * 1000)
    page = await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert calls_while_banned == 1
    assert sleeper.slept == []
    assert len(page.bars) == 10


async def test_a_pause_told_as_a_date_is_understood(
    server: ExchangeServer, binance: CcxtProvider, sleeper: Sleeper
) -> None:
    await binance.symbols()
    server.faults.refuse(429, retry_after="Tue, 14 Nov 2023 22:13:45 GMT", on="klines")

    await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert sleeper.slept == [5.0]


async def test_an_exchange_that_goes_on_refusing_is_given_up_with_its_pause(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    server.faults.refuse(429, times=9, retry_after=3, on="klines")

    with pytest.raises(ProviderUnavailable, match="rate limited") as refused:
        await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert refused.value.retry_after == 3
    assert len(server.asked("klines")) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_failure_that_passes_is_tried_again(
    server: ExchangeServer, binance: CcxtProvider, sleeper: Sleeper, status: int
) -> None:
    await binance.symbols()
    server.faults.refuse(status, times=2, on="klines")

    page = await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(page.bars) == 10
    assert 0.25 <= sleeper.slept[0] <= 0.75
    assert 0.5 <= sleeper.slept[1] <= 1.5


async def test_a_failure_that_stays_is_an_error_without_the_url(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    server.faults.refuse(500, times=9, on="klines")

    with pytest.raises(ProviderUnavailable) as refused:
        await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert "http" not in str(refused.value)
    assert "klines" not in str(refused.value)
    assert len(server.asked("klines")) == 3


async def test_an_exchange_that_hangs_is_an_error_in_bounded_time(
    server: ExchangeServer, clock: FixedClock, sleeper: Sleeper
) -> None:
    provider = CcxtProvider(
        "binance", clock=clock, configure=server.configure, timeout=2, sleep=sleeper
    )
    await provider.symbols()
    server.faults.hang(times=9, on="klines")

    with pytest.raises(ProviderUnavailable, match="did not answer in time"):
        await provider.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(server.asked("klines")) == 3
    await provider.aclose()


@pytest.mark.parametrize("body", ["<html>Down for maintenance</html>", "{", "null", "7", ""])
@pytest.mark.parametrize("kind", ["text/html", "application/json"])
async def test_an_answer_that_is_not_json_is_never_an_empty_list(
    server: ExchangeServer, kraken: CcxtProvider, body: str, kind: str
) -> None:
    await kraken.symbols()
    server.faults.say(body, times=3, kind=kind, on="OHLC")

    with pytest.raises(ProviderUnavailable):
        await kraken.bars(AT_KRAKEN, MINUTE_FRAME, minutes_back(10, 0))


async def test_a_symbol_that_the_exchange_no_longer_knows_is_an_unknown_name(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    del server.markets["ETH/USDT"]

    with pytest.raises(UnknownName, match="Unknown symbol 'ETH/USDT'"):
        await binance.bars(
            Listing("binance", "crypto", "ETH/USDT"), MINUTE_FRAME, minutes_back(10, 0)
        )


async def test_a_symbol_that_is_not_listed_is_refused_without_a_call(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    with pytest.raises(UnknownName) as refused:
        await binance.bars(
            Listing("binance", "crypto", "BTC/USDD"), MINUTE_FRAME, minutes_back(10, 0)
        )

    assert "BTC/USDT" in refused.value.suggestions
    assert server.asked("klines") == []


async def test_a_refusal_is_not_tried_again(server: ExchangeServer, binance: CcxtProvider) -> None:
    await binance.symbols()
    server.faults.say('{"code":-1003000,"msg":"No."}', kind="application/json", on="klines")

    with pytest.raises(ProviderUnavailable, match="refused the request"):
        await binance.bars(BITCOIN, MINUTE_FRAME, minutes_back(10, 0))

    assert len(server.asked("klines")) == 1


async def test_a_closed_port_is_an_error(clock: FixedClock, sleeper: Sleeper) -> None:
    async with exchange_server(now=NOW) as gone:
        configure = gone.configure
    provider = CcxtProvider("binance", clock=clock, configure=configure, sleep=sleeper)

    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        await provider.symbols()

    await provider.aclose()


async def test_all_callers_share_one_throttle(server: ExchangeServer, clock: FixedClock) -> None:
    costs: list[float] = []

    def counted(exchange: object) -> None:
        server.configure(exchange)
        taken = exchange.throttle  # type: ignore[attr-defined]  # a ccxt exchange

        async def throttle(cost: float) -> None:
            costs.append(cost)
            await taken(cost)

        exchange.throttle = throttle  # type: ignore[attr-defined]  # a ccxt exchange

    provider = CcxtProvider("binance", clock=clock, configure=counted)

    await asyncio.gather(
        *(provider.bars(BITCOIN, MINUTE_FRAME, minutes_back(10 + n, 0)) for n in range(8))
    )

    assert len(costs) == len(server.calls) == 2 + 8
    await provider.aclose()


def test_the_local_exchange_s_candles_are_made_of_its_minutes() -> None:
    market = Market("BTC", "USDT")
    window = Window(FORMING // HOUR * HOUR - HOUR, FORMING // HOUR * HOUR)

    minutes = market.candles(window.since, window.until)
    hour = market.candles(window.since, window.until, step=HOUR)

    assert len(minutes.time) == 60
    assert hour.rows() == [
        (
            window.since,
            minutes.open[0],
            minutes.high.max(),
            minutes.low.min(),
            minutes.close[-1],
            pytest.approx(np.sum(minutes.volume)),
        )
    ]
