"""What the simulated market pushes is what its history says, at the first moment it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.clock import Clock, FixedClock
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import HOUR, MINUTE, Window
from plugins.base import Stream, Trade
from plugins.sim import SimProvider
from plugins.sim.hours import Hours
from plugins.sim.listings import LISTINGS
from plugins.sim.scripts import GrowingMinutes, NewTrades
from tests.fakes import TickingClock

FRIDAY = 1_749_229_200_000
"""2025-06-06 17:00 UTC: New York trades until midnight, and crypto for ever."""
PATIENCE = 60

begins = st.integers(FRIDAY, FRIDAY + 8 * HOUR)
symbols = st.sampled_from([one.instrument.symbol for one in LISTINGS])
moves = st.lists(
    st.one_of(st.integers(1, 5_000), st.integers(1, 2 * MINUTE), st.integers(1, 3 * HOUR)),
    min_size=1,
    max_size=12,
)
turns = st.lists(st.integers(0, 5), min_size=12, max_size=12)
a_few = settings(deadline=None, max_examples=40)


def sim(clock: Clock) -> SimProvider:
    return SimProvider(clock=clock)


def listing(symbol: str) -> Listing:
    return Listing("sim", "crypto" if "/" in symbol else "stocks", symbol)


async def minutes_of(symbol: str, window: Window, *, now: int) -> Bars:
    return (await sim(FixedClock(now)).bars(listing(symbol), MINUTE_FRAME, window)).bars


async def trades_of(symbol: str, window: Window) -> list[Trade]:
    return list(await sim(FixedClock(window.until)).trades(listing(symbol), window))


async def heard(
    stream: Stream[Any],
    clock: FixedClock,
    moves: Sequence[int],
    turns: Sequence[int],
    last: Callable[[Any], bool],
) -> list[Any]:
    """Move *clock* while another task reads, then on until a batch is the *last*."""
    batches: list[Any] = []
    begun = asyncio.Event()

    async def read() -> None:
        async for batch in stream:
            begun.set()
            batches.append(batch)
            if len(batch) and last(batch):
                return

    reading = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        for move, turn in zip(moves, turns, strict=False):
            clock.at += move
            for _ in range(turn):
                await asyncio.sleep(0)
        # Whatever the weekend: a stock trades again after it.
        clock.at += 72 * HOUR
        await reading
    await stream.aclose()
    assert len(batches[0]) == 0
    return batches[1:]


@a_few
@given(symbol=symbols, begin=begins, moves=moves, turns=turns)
async def test_each_trade_since_the_beginning_is_told_once_however_the_clock_moves(
    symbol: str, begin: int, moves: list[int], turns: list[int]
) -> None:
    clock = FixedClock(begin)
    end = begin + sum(moves)

    batches = await heard(
        sim(clock).stream_trades(listing(symbol)),
        clock,
        moves,
        turns,
        last=lambda trades: trades[-1].time >= end,
    )

    told = [trade for batch in batches for trade in batch]
    assert told == await trades_of(symbol, Window(begin, told[-1].time + 1))


@a_few
@given(symbol=symbols, begin=begins, moves=moves, turns=turns)
async def test_each_minute_since_the_beginning_is_told_whole_once_however_the_clock_moves(
    symbol: str, begin: int, moves: list[int], turns: list[int]
) -> None:
    clock = FixedClock(begin)
    end = begin + sum(moves)

    batches = await heard(
        sim(clock).stream_bars(listing(symbol), MINUTE_FRAME),
        clock,
        moves,
        turns,
        last=lambda bars: bars.time[-1] >= end and bars.is_closed.any(),
    )

    closed = Bars.concat([bars.closed() for bars in batches])
    window = Window(begin - begin % MINUTE, int(closed.time[-1]) + 1)
    known = await minutes_of(symbol, window, now=clock.at)
    assert closed.with_columns(flags=known.flags) == known


@a_few
@given(symbol=symbols, begin=begins, moves=moves, turns=turns)
async def test_a_running_minute_is_told_as_history_shows_it_then(
    symbol: str, begin: int, moves: list[int], turns: list[int]
) -> None:
    clock = FixedClock(begin)
    end = begin + sum(moves)

    batches = await heard(
        sim(clock).stream_bars(listing(symbol), MINUTE_FRAME),
        clock,
        moves,
        turns,
        last=lambda bars: bars.time[-1] >= end,
    )

    for bars in batches:
        assert bars.is_closed[:-1].all()
        if not bars.is_closed[-1]:
            running = bars.last(1)
            time, seen = int(running.time[0]), int(running.updated[0]) + 1
            known = await minutes_of(symbol, Window(time, time + 1), now=seen)
            assert running == known


@a_few
@given(symbol=symbols, begin=begins, now=st.integers(0, 3 * HOUR), kind=st.booleans())
async def test_nothing_comes_before_it_is_due(
    symbol: str, begin: int, now: int, kind: bool
) -> None:
    listed = next(one for one in LISTINGS if one.instrument.symbol == symbol)
    hours = Hours(seed=1)
    script: Any = (NewTrades if kind else GrowingMinutes)(hours, listed, begin)
    while await script.look(begin + now) is not None or script.due <= begin + now:
        pass

    before = script.due - 1

    assert await script.look(before) is None
    if script.due % HOUR:
        assert await script.look(before + 1) is not None


async def test_a_trade_is_told_when_its_millisecond_is_over() -> None:
    trade = (await trades_of("BTC/USDT", Window(FRIDAY, FRIDAY + HOUR)))[7]
    listed = LISTINGS[0]
    script = NewTrades(Hours(seed=1), listed, trade.time)

    assert await script.look(trade.time) is None
    assert script.due == trade.time + 1
    assert await script.look(trade.time + 1) == [trade]


async def test_a_clock_that_runs_by_itself_is_followed() -> None:
    clock = TickingClock(FRIDAY, speed=120)
    stream = sim(clock).stream_bars(listing("BTC/USDT"), MINUTE_FRAME)

    closed: list[Bars] = []
    async with asyncio.timeout(PATIENCE):
        async for bars in stream:
            closed.append(bars.closed())
            if sum(map(len, closed)) > 2:
                break

    told = Bars.concat(closed)
    window = Window(FRIDAY, int(told.time[-1]) + 1)
    known = await minutes_of("BTC/USDT", window, now=clock.now())
    assert told.with_columns(flags=known.flags) == known


async def test_a_clock_that_was_set_back_tells_nothing_twice() -> None:
    clock = FixedClock(FRIDAY)
    stream = sim(clock).stream_trades(listing("BTC/USDT"))
    await anext(aiter(stream))

    async with asyncio.timeout(PATIENCE):
        clock.at = FRIDAY + 10 * MINUTE
        told = list(await anext(aiter(stream)))
        clock.at = FRIDAY + 2 * MINUTE
        waiting = asyncio.ensure_future(anext(aiter(stream)))
        for _ in range(10):
            await asyncio.sleep(0)
        clock.at = FRIDAY + 20 * MINUTE
        told += await waiting

    assert told == await trades_of("BTC/USDT", Window(FRIDAY, FRIDAY + 20 * MINUTE))


async def test_the_running_minute_is_told_with_the_trades_before_the_stream_began() -> None:
    minute = Window(FRIDAY, FRIDAY + MINUTE)
    third = (await trades_of("BTC/USDT", minute))[2].time
    stream = sim(FixedClock(third)).stream_bars(listing("BTC/USDT"), MINUTE_FRAME)
    await anext(aiter(stream))

    told = await asyncio.wait_for(anext(aiter(stream)), PATIENCE)

    assert told == await minutes_of("BTC/USDT", minute, now=third)
    assert told.trades.tolist() == [2]


async def test_a_running_minute_holds_no_trade_before_its_millisecond_is_over() -> None:
    minute = Window(FRIDAY, FRIDAY + MINUTE)
    trades = await trades_of("BTC/USDT", minute)

    for trade in trades:
        for now in (trade.time, trade.time + 1):
            told = await GrowingMinutes(Hours(seed=1), LISTINGS[0], now).look(now)
            assert (told or Bars.empty()) == await minutes_of("BTC/USDT", minute, now=now)


async def test_a_reader_that_gives_up_waiting_misses_nothing() -> None:
    clock = FixedClock(FRIDAY)
    stream = sim(clock).stream_trades(listing("BTC/USDT"))
    await anext(aiter(stream))
    waiting = asyncio.ensure_future(anext(aiter(stream)))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait([waiting])
    clock.at += 10 * MINUTE

    async with asyncio.timeout(PATIENCE):
        told = list(await anext(aiter(stream)))
    assert told == await trades_of("BTC/USDT", Window(FRIDAY, clock.at))
