"""The newest N are counted from the end, never from an estimated start."""

from __future__ import annotations

from uuid import uuid4

import pytest

from datasources.found import GapReason
from market.clock import FixedClock
from market.instrument import Session
from market.window import DAY, HOUR, MINUTE
from tests.datasources.chains import NOW, RUNNING, Opened, Opener, on_embedded
from tests.datasources.recount import assert_says, bars_of
from tests.fakes import FakeProvider, Market, days_before, minutes_between

pytestmark = on_embedded

LISTED = days_before(NOW, 60)


def listed(market: Market, **options: object) -> FakeProvider:
    return FakeProvider(
        FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, page_limit=15_000, **options
    )


def times(opened: Opened, timeframe: str) -> list[int]:
    """Return the opening times of all bars there are."""
    rows = opened.provider.markets[opened.symbol].seen_at(opened.clock.now())
    bars = bars_of(rows, timeframe, "UTC", now=opened.clock.now(), minutes_from=LISTED)
    return [bar.time for bar in bars]


@pytest.mark.parametrize("timeframe", ["1m", "7m", "1h", "1d"])
@pytest.mark.parametrize(
    "market",
    [
        pytest.param(Market.of(minutes_between(LISTED, NOW, every=3001)), id="sparse"),
        pytest.param(
            Market.of([*minutes_between(LISTED, LISTED + 6 * HOUR), *range(RUNNING, NOW, MINUTE)]),
            id="a hole of weeks",
        ),
        pytest.param(Market.of(minutes_between(LISTED + DAY, LISTED + 2 * DAY)), id="dead since"),
    ],
)
async def test_the_newest_are_found_however_far_back_they_are(
    open_process: Opener, market: Market, timeframe: str
) -> None:
    async with open_process(listed(market)) as opened:
        everything = times(opened, timeframe)
        for last in (1, 2, len(everything) - 1, len(everything), len(everything) + 1):
            if last < 1:
                continue

            answer = await opened.get(timeframe, last=last)

            assert answer.bars.time.tolist() == everything[-last:]
            assert answer.has_earlier == (len(everything) > last)


async def test_the_forming_bar_counts_among_the_newest_unless_it_is_left_out(
    open_process: Opener,
) -> None:
    async with open_process(listed(Market.of(minutes_between(RUNNING - HOUR, NOW)))) as opened:
        everything = times(opened, "1m")

        included = await opened.get("1m", last=3)
        left_out = await opened.get("1m", last=3, include_forming=False)

    assert included.bars.time.tolist() == everything[-3:]
    assert left_out.bars.time.tolist() == everything[-4:-1]
    assert included.bars.is_closed.tolist() == [True, True, False]
    assert left_out.bars.is_closed.all()
    assert included.has_earlier and left_out.has_earlier


async def test_a_window_selects_by_opening_time_since_included_until_not(
    open_process: Opener,
) -> None:
    async with open_process(listed(Market.of(minutes_between(LISTED, NOW, every=11)))) as opened:
        hour = RUNNING // HOUR * HOUR - 30 * HOUR
        rows = opened.provider.markets[opened.symbol].seen_at(NOW)
        expected = bars_of(rows, "1h", "UTC", now=NOW, minutes_from=LISTED)

        for since, until, first, count in (
            (hour, hour + 3 * HOUR, hour, 3),
            (hour + 1, hour + 3 * HOUR, hour + HOUR, 2),
            (hour, hour + 3 * HOUR + 1, hour, 4),
            (hour, hour, None, 0),
            (hour + 1, hour + HOUR, None, 0),
        ):
            answer = await opened.get("1h", since=since, until=until)

            # Each bar is made of all its minutes, those beyond `until` too.
            assert_says(answer, [bar for bar in expected if since <= bar.time < until])
            assert answer.bars.time.tolist() == [
                first + n * HOUR for n in range(count) if first is not None
            ]
            assert not answer.has_earlier


async def test_of_a_window_with_more_bars_than_asked_the_newest_are_given(
    open_process: Opener,
) -> None:
    async with open_process(listed(Market.of(minutes_between(LISTED, NOW, every=11)))) as opened:
        since, until = RUNNING - 20 * DAY, RUNNING - 10 * DAY
        inside = [time for time in times(opened, "1d") if since <= time < until]

        answer = await opened.get("1d", since=since, until=until, last=4)

    assert answer.bars.time.tolist() == inside[-4:]
    assert answer.has_earlier
    assert answer.gaps == []


async def test_the_newest_bars_of_a_stock_reach_back_over_closed_sessions(
    open_process: Opener,
) -> None:
    # The regular sessions of Thursday and Friday before Easter week's Friday holiday, and after.
    wednesday = 1_711_546_200_000  # 2024-03-27 13:30 UTC
    sessions = [wednesday, wednesday + DAY, wednesday + 5 * DAY]
    minutes = [m for open_ in sessions for m in minutes_between(open_, open_ + 390 * MINUTE)]
    provider = FakeProvider(
        FixedClock(sessions[-1] + 390 * MINUTE + HOUR),
        {uuid4().hex: Market.of(minutes)},
        offered_from=wednesday - 30 * DAY,
        page_limit=15_000,
        calendar_name="XNYS",
    )
    async with open_process(provider) as opened:
        answer = await opened.get("1h", session=Session.REGULAR, last=16)

    # 6.5 hours a session: seven bars, of which the last is short.
    thursday, monday = sessions[1:]
    assert answer.bars.time.tolist() == [
        wednesday + 5 * HOUR,
        wednesday + 6 * HOUR,
        *(thursday + n * HOUR for n in range(7)),
        *(monday + n * HOUR for n in range(7)),
    ]
    assert answer.bars.is_closed.all()
    assert answer.has_earlier
    assert {gap.reason for gap in answer.gaps} == {GapReason.SESSION_CLOSED}
