"""The simulated book and ticker are functions of the time, and fit the trades."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.clock import FixedClock
from market.instrument import Listing
from market.quotes import OrderBook, Ticker
from market.window import DAY, HOUR, MINUTE, Window
from plugins.sim import SimProvider
from plugins.sim.hours import Hours
from plugins.sim.listings import LISTINGS, Simulated
from plugins.sim.quotes import BEAT, DEEPEST, Quotes, book_at, ticker_at
from plugins.sim.trading_hours import START

FRIDAY = 1_749_229_200_000
"""2025-06-06 17:00 UTC; New York trades until midnight."""
SATURDAY = FRIDAY + 19 * HOUR

listings = st.sampled_from(LISTINGS)
times = st.integers(FRIDAY, FRIDAY + 6 * HOUR)
a_few = settings(deadline=None, max_examples=40)


def books(listed: Simulated, *, depth: int = 20, seed: int = 1) -> Quotes[OrderBook]:
    return Quotes(Hours(seed), listed, seed, lambda moment: book_at(moment, depth))


def tickers(listed: Simulated) -> Quotes[Ticker]:
    return Quotes(Hours(1), listed, 1, ticker_at)


async def book_of(listed: Simulated, now: int, *, depth: int = 20, seed: int = 1) -> OrderBook:
    book = await books(listed, depth=depth, seed=seed).look(now)
    assert book is not None
    return book


async def last_price(listed: Simulated, until: int) -> float:
    trades = await SimProvider(clock=FixedClock(until)).trades(
        listing_of(listed), Window(until - 5 * DAY, until)
    )
    return trades[-1].price


def listing_of(listed: Simulated) -> Listing:
    return Listing("sim", listed.instrument.market, listed.instrument.symbol)


@a_few
@given(listed=listings, now=times, earlier=st.integers(1, 3 * HOUR))
async def test_a_book_is_the_same_whenever_its_stream_began(
    listed: Simulated, now: int, earlier: int
) -> None:
    script = books(listed)
    await script.look(now - earlier - BEAT)

    assert await script.look(now) == await book_of(listed, now)


@a_few
@given(listed=listings, now=times)
async def test_the_last_price_lies_between_the_best_bid_and_the_best_ask(
    listed: Simulated, now: int
) -> None:
    book = await book_of(listed, now)

    bid, ask = book.bids[0][0], book.asks[0][0]
    assert bid < ask
    assert bid <= await last_price(listed, book.time) <= ask
    assert now - BEAT < book.time <= now


@a_few
@given(listed=listings, now=times, depth=st.integers(1, 2 * DEEPEST))
async def test_levels_are_as_many_as_asked_for_in_order_on_ticks_and_in_lots(
    listed: Simulated, now: int, depth: int
) -> None:
    book = await book_of(listed, now, depth=depth)

    for side, sign in ((book.bids, -1), (book.asks, 1)):
        assert len(side) == min(depth, DEEPEST)
        prices = [sign * price for price, _ in side]
        assert prices == sorted(set(prices))
        for price, amount in side:
            ticks = price * 10**listed.decimals
            assert price > 0
            assert ticks == pytest.approx(round(ticks), abs=1e-6)
            assert amount > 0
            assert math.fmod(amount, listed.unit) == 0


@a_few
@given(listed=listings, now=times, depth=st.integers(1, DEEPEST))
async def test_a_shallow_book_is_the_top_of_a_deep_one(
    listed: Simulated, now: int, depth: int
) -> None:
    deep = await book_of(listed, now, depth=DEEPEST)

    shallow = await book_of(listed, now, depth=depth)

    assert shallow.bids == deep.bids[:depth]
    assert shallow.asks == deep.asks[:depth]


async def test_the_sequence_grows_with_each_state_and_amounts_change_bit_by_bit() -> None:
    script = books(LISTINGS[0])

    states = [await script.look(FRIDAY + n * BEAT) for n in range(100)]

    told = [state for state in states if state]
    assert len(told) == 100
    sequences = [state.sequence or 0 for state in told]
    assert sequences == list(range(sequences[0], sequences[0] + 100))
    kept = [len({*a.asks} & {*b.asks}) for a, b in pairwise(told)]
    assert any(kept)
    assert min(kept) < len(told[0].asks)


async def test_another_seed_has_another_book() -> None:
    assert await book_of(LISTINGS[0], FRIDAY) != await book_of(LISTINGS[0], FRIDAY, seed=2)


@a_few
@given(listed=listings, now=times)
async def test_a_ticker_tells_the_last_trade_the_top_of_the_book_and_24_hours_of_volume(
    listed: Simulated, now: int
) -> None:
    ticker = await tickers(listed).look(now)

    assert ticker is not None
    book = await book_of(listed, now)
    assert ((ticker.bid, ticker.bid_size), (ticker.ask, ticker.ask_size)) == (
        book.bids[0],
        book.asks[0],
    )
    since = ticker.time - ticker.time % MINUTE - DAY
    trades = await SimProvider(clock=FixedClock(ticker.time)).trades(
        listing_of(listed), Window(since, ticker.time)
    )
    assert ticker.volume == math.fsum(trade.amount for trade in trades)
    assert ticker.last == trades[-1].price


async def test_while_an_exchange_is_closed_its_last_state_is_told_once() -> None:
    script = tickers(LISTINGS[-1])

    first = await script.look(SATURDAY)
    later = [await script.look(SATURDAY + n * HOUR // 2) for n in range(1, 12)]

    assert first is not None
    assert first.last == await last_price(LISTINGS[-1], SATURDAY)
    assert later == [None] * 11
    assert script.due % HOUR == 0


async def test_a_state_is_due_at_each_beat_while_trading_is_on() -> None:
    script = books(LISTINGS[-1])
    opening = SATURDAY - SATURDAY % DAY + 2 * DAY + 8 * HOUR
    await script.look(opening - 1)

    assert script.due == opening
    assert await script.look(opening) is not None
    assert script.due == opening + BEAT
    assert await script.look(opening + BEAT - 1) is None


async def test_before_the_first_trade_there_are_no_prices() -> None:
    book = await book_of(LISTINGS[0], START - DAY)
    ticker = await tickers(LISTINGS[0]).look(START - DAY)

    assert (book.bids, book.asks) == ((), ())
    assert ticker is not None
    assert (ticker.last, ticker.bid, ticker.ask, ticker.volume) == (None, None, None, 0)
