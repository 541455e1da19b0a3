"""The simulated market is a pure function, keeps its hours, and its bars are its trades."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.clock import FixedClock
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import Page, Trade
from plugins.sim import SimProvider
from plugins.sim.noise import bits, exp2, key_of, normal, words
from plugins.sim.trading_hours import START

SYMBOLS = {
    "crypto": ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT"),
    "stocks": ("AAPL", "MSFT", "SPY"),
}


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = at("2026-06-01 12:00")


def sim(*, now: int = NOW, seed: int = 1) -> SimProvider:
    return SimProvider(clock=FixedClock(now), seed=seed)


def listing(symbol: str) -> Listing:
    return Listing("sim", "crypto" if "/" in symbol else "stocks", symbol)


async def page_of(provider: SimProvider, symbol: str, window: Window) -> Page:
    return await provider.bars(listing(symbol), MINUTE_FRAME, window)


async def bars_of(symbol: str, window: Window, *, now: int = NOW, seed: int = 1) -> Bars:
    return (await page_of(sim(now=now, seed=seed), symbol, window)).bars


def bar_of(trades: list[Trade]) -> tuple[float, ...]:
    """Build one bar the plain way."""
    prices = [trade.price for trade in trades]
    volume = 0.0
    for trade in trades:
        volume += trade.amount
    return (prices[0], max(prices), min(prices), prices[-1], volume, len(trades), trades[-1].time)


def rows(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.trades, bars.updated)
    return list(zip(*(column.tolist() for column in columns), strict=True))


async def test_it_offers_exactly_the_eight_symbols_and_their_rules() -> None:
    instruments = await sim().symbols()

    assert [one.symbol for one in instruments] == [*SYMBOLS["crypto"], *SYMBOLS["stocks"]]
    assert {one.calendar for one in instruments if one.market == "stocks"} == {"XNYS"}
    for one in instruments:
        assert one.tick_size
        assert one.lot_size
        assert one.min_notional
        assert one.order_types
        assert one.time_in_force


def test_it_says_that_it_is_simulated() -> None:
    said = sim().description

    assert said.simulated
    assert "imulated" in said.attribution


def test_another_seed_is_another_dataset() -> None:
    assert sim(seed=1).description.dataset != sim(seed=2).description.dataset


async def test_the_first_formula_gives_these_prices() -> None:
    # Stored bars rely on it: to change them, raise `_FORMULA` too.
    btc = await bars_of("BTC/USDT", Window(at("2024-02-29 23:59"), at("2024-03-01 00:01")))
    spy = await bars_of("SPY", Window(at("2024-07-05 14:00"), at("2024-07-05 14:01")))

    assert rows(btc) == [
        (35856.31, 35873.97, 35838.75, 35843.94, 0.109375, 8, 1709251190594),
        (35841.3, 35849.85, 35836.99, 35847.52, 1.375, 7, 1709251256870),
    ]
    assert rows(spy) == [(336.48, 336.49, 336.38, 336.41, 1670.0, 8, 1720188055831)]


@given(seed=st.integers(0, 2**63), minute=st.integers(0, 5_000_000))
@settings(deadline=None, max_examples=50)
async def test_a_minute_is_the_same_whoever_asks_and_in_whichever_window(
    seed: int, minute: int
) -> None:
    time = START + minute * MINUTE

    alone = await bars_of("SOL/USDT", Window(time, time + MINUTE), seed=seed)
    among = await bars_of("SOL/USDT", Window(time - HOUR, time + HOUR), seed=seed)

    assert rows(alone) == rows(among.slice(Window(time, time + MINUTE)))


async def test_a_long_window_is_made_of_the_same_minutes_as_short_ones() -> None:
    window = Window(at("2025-03-01 00:00"), at("2025-03-08 00:00"))

    whole = await bars_of("ADA/USDT", window)
    days = [
        await bars_of("ADA/USDT", Window(since, since + DAY))
        for since in range(window.since, window.until, DAY)
    ]

    assert whole == Bars.concat(days)


async def test_a_session_ends_alike_whether_or_not_the_next_is_asked_for_too() -> None:
    mondays = range(at("2025-06-02 00:00"), at("2025-09-01 00:00"), 7 * DAY)

    for monday in mondays:
        evening = Window(monday + 23 * HOUR, monday + DAY)
        alone = await bars_of("SPY", evening)
        followed = await bars_of("SPY", Window(evening.since, evening.until + DAY))
        assert rows(alone) == rows(followed.slice(evening))


async def test_another_seed_gives_other_prices() -> None:
    window = Window(at("2025-03-01 00:00"), at("2025-03-01 01:00"))

    assert rows(await bars_of("BTC/USDT", window)) != rows(
        await bars_of("BTC/USDT", window, seed=2)
    )


@pytest.mark.parametrize("symbol", ["BTC/USDT", "ADA/USDT", "SPY"])
async def test_the_trades_of_a_minute_build_exactly_its_bar(symbol: str) -> None:
    window = Window(at("2025-04-16 13:00"), at("2025-04-16 15:00"))
    provider = sim()

    bars = (await page_of(provider, symbol, window)).bars
    trades = await provider.trades(listing(symbol), window)

    by_minute: dict[int, list[Trade]] = {}
    for trade in trades:
        by_minute.setdefault(trade.time // MINUTE * MINUTE, []).append(trade)
    assert list(by_minute) == bars.time.tolist()
    assert rows(bars) == [bar_of(one) for one in by_minute.values()]
    for vwap, one in zip(bars.vwap.tolist(), by_minute.values(), strict=True):
        turnover = math.fsum(trade.price * trade.amount for trade in one)
        assert vwap == pytest.approx(turnover / sum(t.amount for t in one), rel=1e-12)


async def test_trades_can_be_asked_for_by_the_millisecond() -> None:
    window = Window(at("2025-04-16 13:00"), at("2025-04-16 13:05"))
    provider = sim()
    whole = list(await provider.trades(listing("BTC/USDT"), window))
    middle = whole[len(whole) // 2].time

    before = await provider.trades(listing("BTC/USDT"), Window(window.since, middle))
    after = await provider.trades(listing("BTC/USDT"), Window(middle, window.until))

    assert [*before, *after] == whole
    assert after[0].time == middle


async def test_a_forming_bar_holds_the_trades_so_far_and_ends_as_the_final_bar() -> None:
    minute = Window(at("2025-04-16 13:00"), at("2025-04-16 13:01"))
    trades = list(await sim().trades(listing("BTC/USDT"), minute))
    assert len(trades) > 3

    for count in range(1, len(trades)):
        seen = await bars_of("BTC/USDT", minute, now=trades[count].time)
        assert rows(seen) == [bar_of(trades[:count])]
    over = await bars_of("BTC/USDT", minute, now=minute.until)

    assert rows(over) == [bar_of(trades)]


async def test_nothing_is_known_of_the_time_after_its_clock() -> None:
    now = at("2025-04-16 13:00") + 30_000
    provider = sim(now=now)
    window = Window(now - 10 * MINUTE, now + 10 * MINUTE)

    page = await page_of(provider, "BTC/USDT", window)
    trades = await provider.trades(listing("BTC/USDT"), window)

    assert page.covered == Spans.of(window.since, now)
    assert page.bars.updated.max() < now
    assert max(trade.time for trade in trades) < now


async def test_before_2015_there_is_nothing_to_be_had() -> None:
    page = await page_of(sim(), "BTC/USDT", Window(START - DAY, START + HOUR))

    assert page.bars.time[0] >= START
    assert page.covered == Spans.of(START, START + HOUR)
    assert page.not_offered == Spans.of(START - DAY, START)
    assert await sim().first_time(listing("BTC/USDT"), MINUTE_FRAME, 0) == START


@pytest.mark.parametrize("window", [Window(-(10**18), START - 1), Window(NOW, 10**18)])
async def test_an_endless_window_without_minutes_is_empty(window: Window) -> None:
    assert len(await bars_of("SPY", window)) == 0


async def test_crypto_trades_at_weekends_and_stocks_do_not() -> None:
    saturday = Window(at("2025-04-12 12:00"), at("2025-04-12 20:00"))

    assert len(await bars_of("BTC/USDT", saturday)) > 400
    assert len(await bars_of("AAPL", saturday)) == 0


@pytest.mark.parametrize("holiday", ["2025-01-01", "2025-04-18", "2025-12-25"])
async def test_stocks_have_holidays(holiday: str) -> None:
    day = Window(at(holiday) + 5 * HOUR, at(holiday) + DAY + 4 * HOUR)

    page = await page_of(sim(), "SPY", day)

    assert len(page.bars) == 0
    assert page.covered == Spans((day,))


async def test_stocks_trade_from_four_to_eight_in_new_york_and_less_on_half_days() -> None:
    # The day after Thanksgiving: regular until 13:00, extended until 17:00 local, UTC-5.
    friday = Window(at("2024-11-29 05:00"), at("2024-11-30 05:00"))
    # A summer day, UTC-4.
    monday = Window(at("2025-07-07 04:00"), at("2025-07-08 04:00"))

    half = (await bars_of("SPY", friday)).time
    full = (await bars_of("SPY", monday)).time

    assert at("2024-11-29 09:00") <= half[0] < at("2024-11-29 10:00")
    assert at("2024-11-29 21:00") < half[-1] < at("2024-11-29 22:00")
    assert at("2025-07-07 08:00") <= full[0] < at("2025-07-07 09:00")
    assert at("2025-07-07 23:00") < full[-1] < at("2025-07-08 00:00")


async def test_extended_hours_are_thin() -> None:
    early = await bars_of("AAPL", Window(at("2025-07-07 08:00"), at("2025-07-07 10:00")))
    regular = await bars_of("AAPL", Window(at("2025-07-07 14:00"), at("2025-07-07 16:00")))

    assert early.volume.sum() < regular.volume.sum() / 5
    assert len(early) < 120


async def test_thin_symbols_have_minutes_without_trades_that_are_vouched_for() -> None:
    window = Window(at("2025-03-01 00:00"), at("2025-03-02 00:00"))

    page = await page_of(sim(), "ADA/USDT", window)

    assert 300 < len(page.bars) < 1400
    assert page.covered == Spans((window,))


@pytest.mark.parametrize("symbol", [*SYMBOLS["crypto"], *SYMBOLS["stocks"]])
async def test_prices_and_amounts_keep_the_rules_of_the_instrument(symbol: str) -> None:
    provider = sim()
    rules = next(one for one in await provider.symbols() if one.symbol == symbol)
    window = Window(at("2025-07-07 14:00"), at("2025-07-07 16:00"))

    trades = await provider.trades(listing(symbol), window)

    assert rules.tick_size
    assert rules.lot_size
    for trade in trades:
        ticks = trade.price / float(rules.tick_size)
        lots = trade.amount / float(rules.lot_size)
        assert ticks == pytest.approx(round(ticks), abs=1e-6)
        assert lots == pytest.approx(round(lots), abs=1e-6)


@pytest.mark.parametrize("symbol", ["BTC/USDT", "XRP/USDT", "MSFT"])
async def test_a_price_moves_but_seldom_jumps(symbol: str) -> None:
    bars = await bars_of(symbol, Window(at("2025-02-01 00:00"), at("2025-02-28 00:00")))

    returns = np.diff(np.log(bars.close))
    gaps = np.abs(np.log(bars.open[1:] / bars.close[:-1]))

    assert 1e-4 < returns.std() < 5e-3
    assert np.median(gaps) < 2e-3
    assert gaps.max() < 0.1
    # Lively stretches and calm ones, not one noise throughout.
    stretches = [part.std() for part in np.array_split(returns, 12)]
    assert max(stretches) > 1.5 * min(stretches)


async def test_first_time_is_the_next_minute_that_has_begun() -> None:
    provider = sim(now=at("2025-04-16 13:00") + 1)
    asked = listing("SPY")

    within = await provider.first_time(asked, MINUTE_FRAME, at("2025-04-16 12:30") + 1)
    forming = await provider.first_time(asked, MINUTE_FRAME, at("2025-04-16 13:00"))
    coming = await provider.first_time(asked, MINUTE_FRAME, at("2025-04-16 13:00") + 1)

    assert within == at("2025-04-16 12:31")
    assert forming == at("2025-04-16 13:00")
    assert coming is None


@given(exponent=st.floats(-900, 900))
def test_exp2_is_the_power_of_two(exponent: float) -> None:
    (value,) = exp2(np.array([exponent])).tolist()

    assert value == pytest.approx(2.0**exponent, rel=1e-14)


def test_looked_up_numbers_are_spread_as_they_should_be() -> None:
    word = words(key_of("spread"), np.arange(100_000))

    uniform, bell = bits(word, 44, 20), normal(word)

    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.005)
    assert bell.mean() == pytest.approx(0, abs=0.02)
    assert bell.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(bell[1:], bell[:-1])[0, 1]) < 0.02
