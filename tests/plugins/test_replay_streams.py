"""A recording is pushed as the replay's clock passes it: openings, closes, and nothing ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.clock import Clock, FixedClock
from market.errors import UnknownName
from market.instrument import Listing
from market.quotes import Ticker
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Window
from plugins.replay import Anchor, Recordings, ReplayProvider
from plugins.replay.recording import Recording
from plugins.replay.recordings import read_folder
from plugins.replay.scripts import BATCH, NewestPrice, RecordedBars
from tests.fakes import TickingClock

MONDAY = 1_736_121_600_000
"""2025-01-06 00:00 UTC."""
COIN = Listing("replay", "crypto", "btc")
STOCK = Listing("replay", "stocks", "stock_X")
END = MONDAY + 2 * DAY
PATIENCE = 60

moves = st.lists(
    st.one_of(st.integers(1, 2 * MINUTE), st.integers(1, 5 * HOUR)), min_size=1, max_size=20
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Two days of minutes but for every fifth and a night, their hours, and days of a stock."""
    folder = tmp_path_factory.mktemp("streams")
    minutes = [MONDAY + n * MINUTE for n in range(2880) if n % 5 and not 1000 < n < 1500]
    write(folder / "btc_1m.csv", minutes)
    write(folder / "btc_1h.csv", [MONDAY + n * HOUR for n in range(48)])
    write(folder / "stock_X_1d.csv", [MONDAY, MONDAY + DAY, MONDAY + 3 * DAY])
    return read_folder(folder)


def write(path: Path, times: list[int]) -> None:
    rows = (f"{time},{n + 2},{n + 4},{n + 1},{n + 3},{n + 1}\n" for n, time in enumerate(times))
    path.write_text("timestamp_ms,open,high,low,close,volume\n" + "".join(rows))


def replayed(
    recordings: Recordings, base: Clock, *, at: int = MONDAY, speed: str = "1"
) -> ReplayProvider:
    anchor = Anchor(replay_from=at, anchored_at=0, speed=Decimal(speed))
    return ReplayProvider(recordings, base=base, anchor=anchor)


def recording_of(recordings: Recordings, symbol: str, timeframe: Timeframe) -> Recording:
    return next(
        one
        for one in recordings.served
        if (one.instrument.symbol, one.timeframe) == (symbol, timeframe)
    )


async def minutes_at(recordings: Recordings, now: int, window: Window) -> Bars:
    provider = replayed(recordings, FixedClock(0), at=now)
    return (await provider.bars(COIN, MINUTE_FRAME, window)).bars


async def taken(script: RecordedBars, nows: Sequence[int]) -> list[Bars]:
    """Return what each look told, all of it."""
    told = []
    for now in nows:
        while (bars := await script.look(now)) is not None:
            told.append(bars)
    return told


@settings(deadline=None)
@given(begin=st.integers(MONDAY - HOUR, MONDAY + DAY), moves=moves)
async def test_each_bar_closes_once_as_recorded_and_none_is_left_out(
    recordings: Recordings, begin: int, moves: list[int]
) -> None:
    script = RecordedBars(recording_of(recordings, "btc", MINUTE_FRAME), begin)
    nows = [begin + sum(moves[:n]) for n in range(len(moves) + 1)]

    told = await taken(script, nows)

    closed = Bars.concat([bars.closed() for bars in told])
    known = await minutes_at(
        recordings, nows[-1], Window(begin - MINUTE + 1, nows[-1] - MINUTE + 1)
    )
    assert closed.with_columns(flags=known.flags) == known


@settings(deadline=None)
@given(begin=st.integers(MONDAY - HOUR, MONDAY + DAY), moves=moves)
async def test_before_its_close_a_bar_is_told_once_and_as_history_shows_it(
    recordings: Recordings, begin: int, moves: list[int]
) -> None:
    script = RecordedBars(recording_of(recordings, "btc", MINUTE_FRAME), begin)
    running: list[int] = []

    for now in (begin + sum(moves[:n]) for n in range(len(moves) + 1)):
        known = await minutes_at(recordings, now, Window(now - MINUTE + 1, now + 1))
        for bars in await taken(script, [now]):
            assert (bars.time <= now).all()
            open_ = bars.take(~bars.is_closed)
            if len(open_):
                assert open_ == known
                running += open_.time.tolist()
        if len(known):
            assert running[-1] == known.time[0]
    assert len(set(running)) == len(running)


@settings(deadline=None)
@given(begin=st.integers(MONDAY - HOUR, END), now=st.integers(0, DAY), tickers=st.booleans())
async def test_something_comes_when_it_is_due_and_nothing_before(
    recordings: Recordings, begin: int, now: int, tickers: bool
) -> None:
    recording = recording_of(recordings, "btc", MINUTE_FRAME)
    script: Any = NewestPrice([recording], begin) if tickers else RecordedBars(recording, begin)
    while await script.look(begin + now) is not None:
        pass

    due = script.due

    if due is None:
        assert await script.look(END + 100 * DAY) is None
    else:
        assert await script.look(due - 1) is None
        assert await script.look(due) is not None


async def test_what_closed_between_two_looks_comes_in_one_batch(recordings: Recordings) -> None:
    base = FixedClock(0)
    stream = replayed(recordings, base).stream_bars(COIN, MINUTE_FRAME)
    first = await anext(aiter(stream))

    base.at += 11 * MINUTE
    bars = await asyncio.wait_for(anext(aiter(stream)), PATIENCE)

    assert len(first) == 0
    assert [(time - MONDAY) // MINUTE for time in bars.time.tolist()] == [
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        11,
    ]
    assert bars.is_closed.tolist() == [True] * 8 + [False]


async def test_after_a_long_leap_batches_are_bounded(tmp_path: Path) -> None:
    write(tmp_path / "btc_1s.csv", [MONDAY + n * 1000 for n in range(2 * BATCH + 5)])
    script = RecordedBars(read_folder(tmp_path).served[0], MONDAY)

    told = await taken(script, [MONDAY + DAY])

    assert [len(bars) for bars in told] == [BATCH, BATCH, 5]


async def test_every_recorded_timeframe_is_streamed(recordings: Recordings) -> None:
    base = FixedClock(0)
    provider = replayed(recordings, base)
    coin, stock = await provider.symbols()

    assert [str(frame) for frame in provider.streamed_frames(coin)] == ["1m", "1h"]
    assert provider.streamed_frames(stock) == (DAY_FRAME,)
    stream = provider.stream_bars(COIN, Timeframe.parse("1h"))
    await anext(aiter(stream))
    base.at += 90 * MINUTE
    bars = await asyncio.wait_for(anext(aiter(stream)), PATIENCE)
    assert bars.is_closed.tolist() == [True, False]
    assert bars.volume.tolist() == [1, 0]


async def test_a_timeframe_that_is_not_recorded_is_not_streamed(recordings: Recordings) -> None:
    with pytest.raises(UnknownName):
        replayed(recordings, FixedClock(0)).stream_bars(COIN, DAY_FRAME)


@pytest.mark.parametrize("speed", ["3600", "100000"])
async def test_a_fast_replay_leaves_no_bar_out(recordings: Recordings, speed: str) -> None:
    provider = replayed(recordings, TickingClock(0), speed=speed)
    stream = provider.stream_bars(COIN, MINUTE_FRAME)
    closed: list[Bars] = []

    begin = None
    async with asyncio.timeout(PATIENCE):
        async for bars in stream:
            begin = begin or provider.clock.now()
            closed.append(bars.closed())
            if sum(map(len, closed)) > 40:
                break

    told = Bars.concat(closed)
    assert begin is not None
    window = Window(min(begin, int(told.time[0])), int(told.time[-1]) + 1)
    known = await minutes_at(recordings, END, window)
    assert told.with_columns(flags=known.flags) == known


async def test_a_replay_that_stands_still_pushes_nothing_and_looks_at_no_clock(
    recordings: Recordings,
) -> None:
    base = TickingClock(0)
    standing = replayed(recordings, base, at=MONDAY + 90_000, speed="0")
    running = replayed(recordings, TickingClock(0), speed="3600")
    stream = standing.stream_bars(COIN, MINUTE_FRAME)

    async def read() -> list[Bars]:
        return [bars async for bars in stream]

    reading = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE):
        async for bars in running.stream_bars(COIN, MINUTE_FRAME):
            if len(bars) and bars.time[0] > MONDAY + HOUR:
                break
    await stream.aclose()
    told = await reading

    assert [len(bars) for bars in told] == [0, 1]
    assert not told[1].is_closed[0]
    assert base.looks < 5


async def test_a_ticker_is_the_newest_price_of_all_recordings(recordings: Recordings) -> None:
    coin = [one for one in recordings.served if one.instrument.symbol == "btc"]
    script = NewestPrice(coin, MONDAY)

    told = [await script.look(MONDAY + n * 30_000) for n in range(1, 5)]
    night = await script.look(MONDAY + 1200 * MINUTE + 1)

    minute = recording_of(recordings, "btc", MINUTE_FRAME).bars
    hour = recording_of(recordings, "btc", Timeframe.parse("1h")).bars
    # The hour opens at once, and minute 0 is missing.
    assert told == [
        Ticker(MONDAY, last=hour.open[0]),
        Ticker(MONDAY + MINUTE, last=minute.open[0]),
        None,
        Ticker(MONDAY + 2 * MINUTE, last=minute.open[1]),
    ]
    assert night == Ticker(MONDAY + 20 * HOUR, last=hour.open[20])


async def test_a_ticker_of_days_tells_closes_too(recordings: Recordings) -> None:
    base = FixedClock(0)
    midnight = MONDAY + 5 * HOUR
    stream = replayed(recordings, base, at=midnight + 2 * DAY - 1).stream_ticker(STOCK)

    async with asyncio.timeout(PATIENCE):
        told = [await anext(aiter(stream)) for _ in range(2)]
        base.at += 1
        told.append(await anext(aiter(stream)))

    assert told == [
        None,
        Ticker(midnight + DAY, last=3),
        Ticker(midnight + 2 * DAY, last=4),
    ]
