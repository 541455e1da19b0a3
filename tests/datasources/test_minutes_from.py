"""Minutes decide coarser bars since `minutesFrom`; what opens earlier is native or a gap."""

from __future__ import annotations

import itertools
from uuid import uuid4

import pytest

from datasources.aggregates import head_of
from datasources.found import Base, GapReason
from db.stored import SeriesFacts, Write
from market.bars import CLOSED, NATIVE
from market.clock import FixedClock
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans
from plugins.base import NativeFrame
from tests.datasources.chains import NOW, RUNNING, Opened, Opener, on_embedded
from tests.datasources.recount import assert_says, bars_of
from tests.fakes import NATIVE_MARK, FakeProvider, Market, minutes_between, to_bars

pytestmark = on_embedded

DAY_BARS = NativeFrame(Timeframe.parse("1d"))
HOUR_BARS = NativeFrame(Timeframe.parse("1h"))
WEEK_BARS = NativeFrame(Timeframe.parse("1w"))
TODAY = NOW // DAY * DAY
MINUTES = TODAY - 20 * DAY + 10 * HOUR + 30 * MINUTE
"""The oldest minute offered: in the middle of an hour, of a Saturday and of a week."""
LISTED = TODAY - 50 * DAY


def deep(*natives: NativeFrame, **options: object) -> FakeProvider:
    """Trades every 17 minutes for 50 days; minutes are offered for 20 of them."""
    market = Market.of(minutes_between(LISTED, NOW, every=17))
    return FakeProvider(
        FixedClock(NOW),
        {uuid4().hex: market},
        offered_from=MINUTES,
        natives=natives,
        natives_from=LISTED,
        page_limit=options.pop("page_limit", 15_000),
        **options,
    )


def from_minutes(opened: Opened, timeframe: str, zone: str = "UTC") -> list:
    rows = opened.provider.markets[opened.symbol].seen_at(NOW)
    return bars_of(rows, timeframe, zone, now=NOW, minutes_from=MINUTES)


def from_all(opened: Opened, timeframe: str, zone: str = "UTC") -> list:
    rows = opened.provider.markets[opened.symbol].seen_at(NOW)
    return bars_of(rows, timeframe, zone, now=NOW, minutes_from=0)


@pytest.mark.parametrize(("timeframe", "natives"), [("1d", 31), ("1w", 4), ("1M", 1)])
async def test_what_opens_before_the_minutes_is_made_of_native_days(
    open_process: Opener, timeframe: str, natives: int
) -> None:
    async with open_process(deep(DAY_BARS)) as opened:
        answer = await opened.get(timeframe)

    recomputed = from_minutes(opened, timeframe)
    old = answer.bars.take(answer.bars.time < MINUTES)
    assert len(old) == natives
    assert ((answer.bars.flags & NATIVE) != 0).tolist() == (answer.bars.time < MINUTES).tolist()
    assert answer.bars.time[len(old) :].tolist() == [bar.time for bar in recomputed]
    assert answer.bars.volume[len(old) :] == pytest.approx(
        [bar.volume for bar in recomputed], rel=1e-12
    )
    whole = [bar for bar in from_all(opened, timeframe) if bar.time in old.time]
    assert old.open.tolist() == [bar.open for bar in whole]
    assert old.close.tolist() == [bar.close for bar in whole]


async def test_weeks_come_from_native_days_where_native_weeks_begin_on_another_day(
    open_process: Opener,
) -> None:
    # A native week that is on offer, but on a grid of its own: New York's weeks are not UTC's.
    weeks = NativeFrame(Timeframe.parse("1w"), timezone="America/New_York")
    async with open_process(deep(DAY_BARS, weeks)) as opened:
        answer = await opened.get("1w", since=LISTED, until=MINUTES - 7 * DAY)

    week = from_all(opened, "1w")[1]
    at = answer.bars.time.tolist().index(week.time)
    # Seven native days, not one native week.
    assert answer.bars.volume[at] == pytest.approx(week.volume + 7 * NATIVE_MARK, rel=1e-12)


async def test_a_zone_whose_days_the_provider_does_not_have_gets_a_gap_and_not_a_part(
    open_process: Opener,
) -> None:
    async with open_process(deep(DAY_BARS)) as opened:
        answer = await opened.get("1d", zone="America/New_York")

    assert_says(answer, from_minutes(opened, "1d", "America/New_York"))
    ends = [gap.until for gap in answer.gaps]
    assert [gap.since for gap in answer.gaps[1:]] == ends[:-1]
    assert ends[-1] == answer.bars.time[0]
    assert {gap.reason for gap in answer.gaps} <= {GapReason.NOT_FETCHED, GapReason.NOT_OFFERED}


@pytest.mark.parametrize(("zone", "native"), [("Asia/Kolkata", False), ("Europe/Berlin", True)])
async def test_native_hours_build_days_of_zones_whose_midnight_is_an_hour(
    open_process: Opener, zone: str, native: bool
) -> None:
    async with open_process(deep(HOUR_BARS)) as opened:
        answer = await opened.get("1d", zone=zone)

    old = answer.bars.take(answer.bars.time < MINUTES)
    assert (len(old) > 0) == native
    whole = {bar.time: bar for bar in from_all(opened, "1d", zone)}
    assert old.open.tolist() == [whole[time].open for time in old.time.tolist()]
    assert old.close.tolist() == [whole[time].close for time in old.time.tolist()]


async def test_the_bar_around_the_first_minute_is_native_or_a_gap(open_process: Opener) -> None:
    around_hour = MINUTES // HOUR * HOUR
    async with open_process(deep(HOUR_BARS)) as opened:
        native = await opened.get("1h", since=around_hour, until=around_hour + 2 * HOUR)
    async with open_process(deep()) as opened:
        without = await opened.get("1h", since=around_hour, until=around_hour + 2 * HOUR)

    assert native.bars.time.tolist() == [around_hour, around_hour + HOUR]
    assert ((native.bars.flags & NATIVE) != 0).tolist() == [True, False]
    assert without.bars.time.tolist() == [around_hour + HOUR]
    assert [(gap.since, gap.until) for gap in without.gaps] == [(around_hour, around_hour + HOUR)]


async def test_minutes_from_is_the_oldest_minute_within_the_pages_allowed(
    open_process: Opener,
) -> None:
    provider = deep(DAY_BARS, page_limit=1440)
    async with open_process(provider, max_pages=3) as opened:
        answer = await opened.get("1d", last=10)
        (state,) = await opened.store.states([opened.key])

    assert state is not None
    assert state.minutes_from == RUNNING - 3 * 1440 * MINUTE
    native = (answer.bars.flags & NATIVE) != 0
    assert native.tolist() == (answer.bars.time < state.minutes_from).tolist()


async def test_minutes_from_stays_as_time_moves_on(open_process: Opener) -> None:
    provider = deep(DAY_BARS, page_limit=1440)
    async with open_process(provider, max_pages=3) as opened:
        await opened.get("1d", last=10)
        (first,) = await opened.store.states([opened.key])
    for days in (1, 5):
        provider.clock.at = NOW + days * DAY
        async with open_process(provider, max_pages=3) as opened:
            await opened.get("1d", last=10)
            (state,) = await opened.store.states([opened.key])

            assert state is not None and first is not None
            assert state.minutes_from == first.minutes_from


REQUESTS = [
    {"timeframe": "1h", "since": TODAY - 5 * DAY, "until": TODAY - 2 * DAY},
    {"timeframe": "1d", "last": 30},
    {"timeframe": "1w", "last": 5},
    {"timeframe": "1m", "since": MINUTES, "until": MINUTES + 2 * DAY},
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
async def test_which_rule_holds_for_a_bar_does_not_depend_on_what_was_asked_before(
    open_process: Opener, order: tuple[int, ...]
) -> None:
    async with open_process(deep(DAY_BARS, HOUR_BARS, WEEK_BARS)) as opened:
        for n in order:
            await opened.get(**REQUESTS[n])
            await opened.flush()
        days = await opened.get("1d")
        weeks = await opened.get("1w")
        hours = await opened.get("1h", since=TODAY - 21 * DAY, until=TODAY)
    async with open_process(deep(DAY_BARS, HOUR_BARS, WEEK_BARS)) as fresh:
        expected = [
            await fresh.get("1d"),
            await fresh.get("1w"),
            await fresh.get("1h", since=TODAY - 21 * DAY, until=TODAY),
        ]

    for answer, alone in zip((days, weeks, hours), expected, strict=True):
        for column in ("time", "open", "high", "low", "close"):
            assert getattr(answer.bars, column).tolist() == getattr(alone.bars, column).tolist()
        assert answer.bars.flags.tolist() == alone.bars.flags.tolist()
        assert answer.bars.volume == pytest.approx(alone.bars.volume, rel=1e-12)
        assert answer.gaps == alone.gaps


async def test_minutes_before_minutes_from_are_shown_as_minutes_and_decide_nothing(
    open_process: Opener,
) -> None:
    provider = deep(page_limit=1440)
    async with open_process(provider, max_pages=3) as opened:
        await opened.get("1d", last=2)
        old = {"since": TODAY - 10 * DAY, "until": TODAY - 8 * DAY}

        minutes = await opened.get("1m", **old)
        hours = await opened.get("1h", **old)

    traded = provider.markets[opened.symbol].rows
    assert minutes.bars.time.tolist() == [m for m in minutes_between(**old) if m in traded]
    assert len(hours.bars) == 0
    assert [(gap.since, gap.until) for gap in hours.gaps] == [(old["since"], old["until"])]


async def test_a_forming_day_is_made_of_minutes_and_not_native(open_process: Opener) -> None:
    async with open_process(deep(DAY_BARS, WEEK_BARS)) as opened:
        for timeframe in ("1d", "1w", "1M"):
            answer = await opened.get(timeframe, last=1)

            assert_says(answer, from_all(opened, timeframe)[-1:])
            assert not answer.bars.is_closed[0]
            assert not answer.bars.flags[0] & NATIVE


async def test_a_provider_without_minutes_shows_native_bars_only(open_process: Opener) -> None:
    async with open_process(deep(DAY_BARS, minutes=False)) as opened:
        days = await opened.get("1d", last=5)
        weeks = await opened.get("1w", last=3)
        hours = await opened.get("1h", last=5)

    assert (days.bars.flags & NATIVE != 0).all()
    assert days.bars.is_closed.tolist() == [True] * 4 + [False]
    assert len(weeks.bars) == 3
    assert len(hours.bars) == 0
    assert {gap.reason for gap in hours.gaps} <= {GapReason.NOT_OFFERED}


async def test_minutes_that_begin_earlier_void_the_native_bars_that_were_cached(
    open_process: Opener,
) -> None:
    cut = {"since": TODAY - 30 * DAY, "until": TODAY - 25 * DAY}
    async with open_process(deep(DAY_BARS)) as opened:
        native = await opened.get("1d", **cut)
        rows = opened.provider.markets[opened.symbol].rows
        earlier = {time: rows[time] for time in rows if time < MINUTES}
        whole = Spans.of(LISTED, MINUTES)
        write = Write(
            key=opened.key,
            facts=SeriesFacts(around_the_clock=True),
            bars=to_bars(earlier, NOW, flags=CLOSED),
            observed_at=NOW,
            covered=whole,
            settled=whole,
        )
        (written,) = await opened.store.write([write])
        state = await opened.store.set_minutes_from(written.state.id, LISTED)
        await opened.cache.moved({Base(opened.key.listing, MINUTE_FRAME, False): head_of(state)})

        recomputed = await opened.get("1d", **cut)

    assert ((native.bars.flags & NATIVE) != 0).tolist() == [True] * 5
    assert_says(
        recomputed, [b for b in from_all(opened, "1d") if cut["since"] <= b.time < cut["until"]]
    )
    assert not (recomputed.bars.flags & NATIVE).any()
