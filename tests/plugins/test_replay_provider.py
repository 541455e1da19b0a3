"""Recordings are served as if live: nothing is told before the replay's clock has reached it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.clock import FixedClock
from market.errors import UnknownName
from market.instrument import Listing
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import Page
from plugins.replay import Anchor, ReplayProvider, load
from plugins.replay.recordings import read_folder

MONDAY = 1_736_121_600_000
"""2025-01-06 00:00 UTC."""
COIN = Listing("replay", "crypto", "btc")
STOCK = Listing("replay", "stocks", "stock_X")
EVER = Window(0, MONDAY + 100 * DAY)

Replaying = Callable[[int], ReplayProvider]


@pytest.fixture
def replaying(tmp_path: Path) -> Replaying:
    """Two days of minutes but for every fifth, with a day between, and three days of a stock."""
    minutes = [MONDAY + n * MINUTE for n in range(1440) if n % 5]
    minutes += [time + 2 * DAY for time in minutes]
    write(tmp_path / "btc_1m.csv", minutes)
    write(tmp_path / "stock_X_1d.csv", [MONDAY, MONDAY + DAY, MONDAY + 3 * DAY])
    recordings = read_folder(tmp_path)

    def at(now: int) -> ReplayProvider:
        anchor = Anchor(replay_from=now, anchored_at=0, speed=Decimal(0))
        return ReplayProvider(recordings, base=FixedClock(0), anchor=anchor)

    return at


def write(path: Path, times: list[int]) -> None:
    rows = (f"{time},{n + 2},{n + 4},{n + 1},{n + 3},{n + 1}\n" for n, time in enumerate(times))
    path.write_text("timestamp_ms,open,high,low,close,volume\n" + "".join(rows))


def rows(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


async def minutes_of(provider: ReplayProvider, window: Window) -> Page:
    return await provider.bars(COIN, MINUTE_FRAME, window)


async def test_bars_after_the_clock_do_not_exist_yet(replaying: Replaying) -> None:
    now = MONDAY + 10 * MINUTE

    page = await minutes_of(replaying(now), EVER)

    assert page.bars.time.tolist() == [MONDAY + n * MINUTE for n in (1, 2, 3, 4, 6, 7, 8, 9)]
    assert page.covered == Spans.of(MONDAY, now)


async def test_a_forming_bar_tells_only_what_was_known_when_it_opened(
    replaying: Replaying,
) -> None:
    opened = MONDAY + 3 * MINUTE

    for now in (opened, opened + 1, opened + MINUTE - 1):
        bars = (await minutes_of(replaying(now), EVER)).bars
        last = bars.last(1)
        assert last.time.tolist() == [opened]
        assert {*last.open, *last.high, *last.low, *last.close} == {4.0}
        assert last.volume.tolist() == [0]
        assert last.updated.tolist() == [opened]


@pytest.mark.parametrize("minute", [3, 4], ids=["another follows", "none follows"])
async def test_a_bar_is_whole_at_its_close(replaying: Replaying, minute: int) -> None:
    opened = MONDAY + minute * MINUTE

    bars = (await minutes_of(replaying(opened + MINUTE), EVER)).bars

    (bar,) = rows(bars.slice(Window(opened, opened + 1)))
    assert bar == (minute + 1, minute + 3, minute, minute + 2, minute)


async def test_a_window_past_the_forming_bar_does_not_disturb_those_before_it(
    replaying: Replaying,
) -> None:
    opened = MONDAY + 3 * MINUTE

    bars = (await minutes_of(replaying(opened + 1), Window(MONDAY, opened))).bars

    assert bars.high.tolist() == [4, 5]


async def test_missing_minutes_of_a_recorded_day_are_known_to_be_empty(
    replaying: Replaying,
) -> None:
    hour = Window(MONDAY + HOUR, MONDAY + 2 * HOUR)

    page = await minutes_of(replaying(MONDAY + 9 * DAY), hour)

    assert len(page.bars) == 48
    assert page.covered == Spans((hour,))
    assert page.not_offered == Spans()


async def test_days_without_a_row_are_not_offered(replaying: Replaying) -> None:
    page = await minutes_of(replaying(MONDAY + 9 * DAY), Window(MONDAY - DAY, MONDAY + 20 * DAY))

    assert page.covered == Spans(
        (Window(MONDAY, MONDAY + DAY), Window(MONDAY + 2 * DAY, MONDAY + 3 * DAY))
    )
    assert page.not_offered == Spans(
        (
            Window(MONDAY - DAY, MONDAY),
            Window(MONDAY + DAY, MONDAY + 2 * DAY),
            Window(MONDAY + 3 * DAY, MONDAY + 9 * DAY),
        )
    )


async def test_a_daily_recording_covers_all_from_its_first_row_to_its_last(
    replaying: Replaying,
) -> None:
    page = await replaying(MONDAY + 9 * DAY).bars(STOCK, DAY_FRAME, EVER)

    midnight = MONDAY + 5 * HOUR
    assert page.bars.time.tolist() == [midnight, midnight + DAY, midnight + 3 * DAY]
    assert page.covered == Spans.of(midnight, midnight + 4 * DAY)


async def test_a_day_is_forming_until_midnight_in_new_york(replaying: Replaying) -> None:
    midnight = MONDAY + DAY + 5 * HOUR

    before = (await replaying(midnight - 1).bars(STOCK, DAY_FRAME, EVER)).bars
    after = (await replaying(midnight).bars(STOCK, DAY_FRAME, EVER)).bars

    assert before.volume.tolist() == [0]
    assert after.volume.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("since", "first"),
    [
        (0, MONDAY),
        (MONDAY + 1, MONDAY + MINUTE),
        (MONDAY + 5 * MINUTE, MONDAY + 5 * MINUTE),
        (MONDAY + DAY - 1, MONDAY + 2 * DAY),
        (MONDAY + DAY + HOUR, MONDAY + 2 * DAY),
        (MONDAY + 3 * DAY, None),
        (MONDAY + 50 * DAY, None),
    ],
)
async def test_first_time_is_the_oldest_opening_vouched_for(
    replaying: Replaying, since: int, first: int | None
) -> None:
    provider = replaying(MONDAY + 9 * DAY)

    assert await provider.first_time(COIN, MINUTE_FRAME, since) == first


async def test_what_has_not_come_yet_has_no_first_time(replaying: Replaying) -> None:
    provider = replaying(MONDAY + DAY)

    assert await provider.first_time(COIN, MINUTE_FRAME, MONDAY + DAY) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    now=st.integers(MONDAY - DAY, MONDAY + 4 * DAY),
    later=st.integers(0, 4 * DAY),
    since=st.integers(MONDAY - DAY, MONDAY + 4 * DAY),
    length=st.integers(0, DAY),
)
async def test_what_was_told_once_as_over_is_never_told_otherwise(
    replaying: Replaying, now: int, later: int, since: int, length: int
) -> None:
    window = Window(since, since + length)

    early = await minutes_of(replaying(now), window)
    late = await minutes_of(replaying(now + later), window)

    over = early.bars.take(early.bars.time + MINUTE <= now)
    assert over == late.bars.slice(Window(since, min(window.until, now // MINUTE * MINUTE)))
    assert early.covered == late.covered.clip(Window(since, now))
    assert np.all(early.bars.time <= now)


async def test_recorded_timeframes_are_offered_in_the_zone_of_the_calendar(
    replaying: Replaying,
) -> None:
    provider = replaying(MONDAY)
    coin, stock = await provider.symbols()

    assert [str(frame.timeframe) for frame in provider.history(coin).frames] == ["1m"]
    (frame,) = provider.history(stock).frames
    assert (frame.timeframe, frame.timezone) == (DAY_FRAME, None)


async def test_a_symbol_of_another_market_and_a_frame_not_recorded_are_unknown(
    replaying: Replaying,
) -> None:
    provider = replaying(MONDAY)

    with pytest.raises(UnknownName) as symbol:
        await provider.bars(Listing("replay", "stocks", "btc"), MINUTE_FRAME, EVER)
    with pytest.raises(UnknownName) as frame:
        await provider.bars(COIN, Timeframe.parse("1h"), EVER)

    assert symbol.value.field == "symbol"
    assert frame.value.field == "timeframe"


async def test_it_names_the_folder_and_its_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "january"
    folder.mkdir()
    write(folder / "btc_1m.csv", [MONDAY])
    recordings = await load(folder)

    one, two = (
        ReplayProvider(recordings, base=FixedClock(0), anchor=Anchor(start, 0, Decimal(1)))
        for start in (MONDAY, MONDAY + 1)
    )

    assert one.description.attribution == "Recorded bars from january"
    assert one.description.dataset != two.description.dataset
