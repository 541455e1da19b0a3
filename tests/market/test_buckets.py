"""Bucket arithmetic against a second definition, and by cases anyone can check by hand.

The second definition knows nothing of the first: it looks for the first instant of a date by
trying one second after another, and counts buckets and groups with the standard library's dates.
Ten thousand cases in all are generated from it.
"""

from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from market.buckets import Grid, grid
from market.calendars import calendar
from market.errors import UnknownName
from market.instrument import Listing, Series, Session
from market.timeframe import Timeframe, Unit
from market.window import DAY, HOUR, MINUTE, Window
from market.zones import ERA

ALWAYS = calendar("24/7")
ODD_ZONES = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "America/Asuncion",
    "America/Havana",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Scoresbysund",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Kwajalein",
    "UTC",
]
ALL_ZONES = sorted(available_timezones() - {"localtime", "Factory"})
FIRST, LAST = date(1970, 1, 5), date(2037, 12, 20)


# --- the second definition -----------------------------------------------------------------------


@lru_cache(maxsize=50_000)
def first_instant(zone, on):
    """The first second at which the zone's clock shows the date *on*, or a later one."""
    tz = ZoneInfo(zone)
    midnight = int(datetime(on.year, on.month, on.day, tzinfo=UTC).timestamp())
    offsets = [
        datetime.fromtimestamp(midnight + hours * 3600, tz).utcoffset().total_seconds()
        for hours in (-48, -24, 0, 24, 48)
    ]
    second = midnight - int(max(offsets)) - 7200
    while datetime.fromtimestamp(second, tz).date() < on:
        second += 60
    while datetime.fromtimestamp(second - 1, tz).date() >= on:
        second -= 1
    return second * 1000


def date_of(zone, time):
    """The date whose stretch holds *time*: where a clock is set back over midnight, the later."""
    on = datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).date() + timedelta(days=1)
    while first_instant(zone, on) > time:
        on -= timedelta(days=1)
    return on


def group_of(on, timeframe):
    """The first date of the group that *on* belongs to, and of the next group."""
    n = timeframe.count
    if timeframe.unit in (Unit.DAY, Unit.WEEK):
        origin, length = (
            (date(1970, 1, 1), n) if timeframe.unit is Unit.DAY else (date(1970, 1, 5), 7 * n)
        )
        first = on - timedelta(days=(on - origin).days % length)
        return first, first + timedelta(days=length)
    if timeframe.unit is Unit.YEAR:
        first = on.year - (on.year - 1970) % n
        return date(first, 1, 1), date(first + n, 1, 1)
    months = (on.year - 1970) * 12 + on.month - 1
    months -= months % n
    first = date(1970 + months // 12, months % 12 + 1, 1)
    return first, date(1970 + (months + n) // 12, (months + n) % 12 + 1, 1)


def bucket_of(zone, timeframe, time):
    on = date_of(zone, time)
    if timeframe.unit in (Unit.SECOND, Unit.MINUTE, Unit.HOUR):
        seconds = timeframe.count * {"s": 1, "m": 60, "h": 3600}[timeframe.unit]
        begins, ends = first_instant(zone, on), first_instant(zone, on + timedelta(days=1))
        opens = time - (time - begins) % (seconds * 1000)
        return Window(opens, min(opens + seconds * 1000, ends))
    first, following = group_of(on, timeframe)
    return Window(first_instant(zone, first), first_instant(zone, following))


@cache
def changes(zone):
    """Noon and midnight of UTC before every change of the zone's clock."""
    tz, found, before = ZoneInfo(zone), [], None
    for second in range(0, 67 * 365 * 86_400, 43_200):
        offset = datetime.fromtimestamp(second, tz).utcoffset()
        if before is not None and offset != before:
            found.append((second - 43_200) * 1000)
        before = offset
    return found or [0]


# --- what is generated ---------------------------------------------------------------------------

LARGEST = {"s": 86_400, "m": 1_440, "h": 24, "d": 400, "w": 60, "M": 120, "y": 20}


def counts(unit):
    """Small ones as often as any; without `flatmap`, which would take most of the time."""
    return st.integers(1, 12) | st.integers(1, LARGEST[unit])


timeframes = st.one_of([st.builds(Timeframe, counts(unit), st.just(unit)) for unit in Unit])
frames_within_the_day = st.one_of(
    [st.builds(Timeframe, counts(unit), st.just(unit)) for unit in (Unit.MINUTE, Unit.HOUR)]
)
anywhere = st.tuples(
    st.sampled_from(ALL_ZONES),
    st.integers(
        int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp() * 1000),
        int(datetime(LAST.year, LAST.month, LAST.day, tzinfo=UTC).timestamp() * 1000),
    ),
)
near_a_change = st.builds(
    lambda zone, number, distance: (zone, changes(zone)[number % len(changes(zone))] + distance),
    st.sampled_from(ODD_ZONES),
    st.integers(0, 200),
    st.integers(-DAY, 2 * DAY),
)
places = st.one_of(near_a_change, anywhere)


def frame(name):
    return Timeframe.parse(name)


def ms(text, zone="UTC"):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def in_zone(name, zone="UTC"):
    return Grid(frame(name), zone=zone, calendar=ALWAYS)


# --- ten thousand cases --------------------------------------------------------------------------


@given(places, timeframes)
@example(("Pacific/Apia", ms("2011-12-31", "Pacific/Apia")), Timeframe(1, Unit.DAY))
@example(("Pacific/Apia", ms("2011-12-31", "Pacific/Apia") - 1), Timeframe(1, Unit.DAY))
@example(
    ("America/St_Johns", ms("2006-10-29", "America/St_Johns") + MINUTE), Timeframe(1, Unit.DAY)
)
@settings(deadline=None, max_examples=7_000)
def test_every_instant_lies_in_the_bucket_of_the_second_definition(place, timeframe):
    zone, time = place

    bucket = Grid(timeframe, zone=zone, calendar=ALWAYS).at(time)

    assert bucket == bucket_of(zone, timeframe, time)


@given(places, timeframes, st.floats(0, 6))
@settings(deadline=None, max_examples=1_500)
def test_a_window_selects_the_buckets_that_open_in_it(place, timeframe, length):
    zone, since = place
    until = since + int(length * min(timeframe.nominal, 400 * DAY))

    buckets = Grid(timeframe, zone=zone, calendar=ALWAYS).opening_in(Window(since, until))

    expected, time = [], since
    while time < until:
        bucket = bucket_of(zone, timeframe, time)
        if bucket.since >= since:
            expected.append(bucket)
        time = bucket.until
    assert list(buckets) == expected


@given(st.integers(ERA.since - DAY, ERA.until + DAY), timeframes, st.floats(-1, 6))
@example(ERA.since, Timeframe(7, Unit.MINUTE), 6.0)
@settings(deadline=None, max_examples=500)
def test_utc_has_the_buckets_of_a_zone_that_never_differs_from_it(since, timeframe, length):
    window = Window(since, since + int(length * min(timeframe.nominal, 400 * DAY)))
    utc, same = (Grid(timeframe, zone=zone, calendar=ALWAYS) for zone in ("UTC", "Etc/UTC"))

    assert list(utc.opening_in(window)) == list(same.opening_in(window))
    assert utc.reach(window) == same.reach(window)
    assert utc.at(since) == same.at(since)


@given(st.integers(0, 50 * 365 * DAY), timeframes)
@settings(deadline=None, max_examples=200)
def test_the_hull_of_buckets_is_the_smallest_window_around_them(since, timeframe):
    grid = Grid(timeframe, zone="UTC", calendar=ALWAYS)
    buckets = grid.opening_in(Window(since, since + 3 * timeframe.nominal))

    first, *_, last = buckets
    assert buckets.hull == Window(first.since, last.until)
    assert grid.opening_in(Window(since, since)).hull == Window(0, 0)


@given(places, timeframes, st.floats(0, 6))
@settings(deadline=None, max_examples=500)
def test_a_reach_is_the_smallest_window_of_whole_buckets(place, timeframe, length):
    zone, since = place
    until = since + 1 + int(length * min(timeframe.nominal, 400 * DAY))

    reach = Grid(timeframe, zone=zone, calendar=ALWAYS).reach(Window(since, until))

    expected_first = bucket_of(zone, timeframe, since)
    expected_last = bucket_of(zone, timeframe, until - 1)
    assert reach == Window(expected_first.since, expected_last.until)


@given(
    st.sampled_from([Session.REGULAR, Session.EXTENDED]),
    frames_within_the_day,
    st.integers(ms("1998-01-01"), ms("2037-12-31")),
    st.integers(1, 3 * DAY),
)
@settings(deadline=None, max_examples=1_000)
def test_within_a_session_buckets_count_from_its_open(session, timeframe, since, length):
    exchange = calendar("XNYS")
    cut = Grid(timeframe, zone="Asia/Tokyo", session=session, calendar=exchange)
    window = Window(since, since + length)

    buckets, holding, reach = cut.opening_in(window), cut.at(since), cut.reach(window)

    around = Window(window.since - DAY, window.until + DAY)
    sessions = zip(*(edges.tolist() for edges in exchange.sessions(around, session)), strict=True)
    step = timeframe.count * (MINUTE if timeframe.unit is Unit.MINUTE else HOUR)
    every = [
        Window(start, min(start + step, closes))
        for opens, closes in sessions
        for start in range(opens, closes, step)
    ]
    touched = [w for w in every if w.since < window.until and w.until > window.since]
    assert list(buckets) == [w for w in touched if w.since >= window.since]
    assert holding == next((w for w in touched if w.since <= since < w.until), None)
    assert reach == (
        Window(touched[0].since, touched[-1].until) if touched else Window(since, since)
    )


# --- cases by hand -------------------------------------------------------------------------------


def opens_of(name, since, until, zone="UTC", **kwargs):
    """Local clock times of the buckets' openings."""
    cut = Grid(frame(name), zone=zone, **({"calendar": ALWAYS} | kwargs))
    buckets = cut.opening_in(Window(ms(since, zone), ms(until, zone)))
    return [
        f"{datetime.fromtimestamp(t / 1000, ZoneInfo(zone)):%m-%d %H:%M}" for t in buckets.opens
    ]


def test_weeks_start_on_monday():
    assert opens_of("1w", "2024-11-01", "2024-11-30") == [
        "11-04 00:00",
        "11-11 00:00",
        "11-18 00:00",
        "11-25 00:00",
    ]


def test_two_weeks_count_from_monday_the_fifth_of_january_1970():
    assert list(in_zone("2w").opening_in(Window(0, 17 * DAY))) == [Window(4 * DAY, 18 * DAY)]


def test_three_months_are_calendar_quarters():
    assert opens_of("3M", "2024-01-01", "2025-01-01") == [
        "01-01 00:00",
        "04-01 00:00",
        "07-01 00:00",
        "10-01 00:00",
    ]


def test_months_are_as_long_as_they_are():
    february = in_zone("1M").at(ms("2024-02-10"))

    assert february.length == 29 * DAY


def test_years_count_from_1970():
    assert in_zone("4y").at(ms("2024-06-01")) == Window(ms("2022-01-01"), ms("2026-01-01"))


def test_days_before_1970_belong_to_groups_too():
    assert in_zone("3d").at(-1) == Window(-3 * DAY, 0)
    assert in_zone("1M").at(-1) == Window(ms("1969-12-01"), 0)
    assert in_zone("2y").at(-1) == Window(ms("1968-01-01"), 0)


def test_seven_minutes_begin_anew_at_midnight():
    opens = opens_of("7m", "2024-05-01T23:30", "2024-05-02T00:20")

    assert opens == [
        "05-01 23:34",
        "05-01 23:41",
        "05-01 23:48",
        "05-01 23:55",
        "05-02 00:00",
        "05-02 00:07",
        "05-02 00:14",
    ]


def test_the_last_five_hours_of_a_day_are_four():
    assert in_zone("5h").at(ms("2024-05-01T22:00")).length == 4 * HOUR
    assert in_zone("5h").at(ms("2024-05-02T00:00")).length == 5 * HOUR


def test_a_day_in_new_york_lasts_23_or_25_hours_when_clocks_change():
    days = in_zone("1d", "America/New_York")

    assert days.at(ms("2024-03-10T12:00", "America/New_York")).length == 23 * HOUR
    assert days.at(ms("2024-11-03T12:00", "America/New_York")).length == 25 * HOUR


def test_hours_count_elapsed_time_when_clocks_go_back():
    day = Window(ms("2024-11-03", "America/New_York"), ms("2024-11-04", "America/New_York"))

    hours = in_zone("1h", "America/New_York").opening_in(day)

    assert len(hours) == 25
    assert set((hours.closes - hours.opens).tolist()) == {HOUR}


def test_four_hours_shift_on_the_clock_when_it_changes_and_end_short():
    zone = "America/New_York"

    assert opens_of("4h", "2024-03-10", "2024-03-11", zone) == [
        "03-10 00:00",
        "03-10 05:00",
        "03-10 09:00",
        "03-10 13:00",
        "03-10 17:00",
        "03-10 21:00",
    ]
    assert in_zone("4h", zone).at(ms("2024-03-10T22:00", zone)).length == 3 * HOUR
    assert in_zone("4h", zone).at(ms("2024-11-03T23:30", zone)).length == HOUR


def test_twenty_four_hours_are_not_a_day_where_the_day_has_25():
    zone = "America/New_York"
    late = ms("2024-11-03T23:30", zone)

    assert in_zone("24h", zone).at(late).length == HOUR
    assert in_zone("1d", zone).at(late).length == 25 * HOUR


def test_seven_days_are_not_a_week():
    assert in_zone("7d").at(0) == Window(0, 7 * DAY)
    assert in_zone("1w").at(0) == Window(-3 * DAY, 4 * DAY)


def test_a_date_that_never_was_has_no_bucket():
    opens = opens_of("1d", "2011-12-28", "2012-01-02", "Pacific/Apia")

    assert opens == ["12-28 00:00", "12-29 00:00", "12-31 00:00", "01-01 00:00"]
    assert opens_of("12h", "2011-12-29", "2012-01-01", "Pacific/Apia") == [
        "12-29 00:00",
        "12-29 12:00",
        "12-31 00:00",
        "12-31 12:00",
    ]


def test_a_day_without_midnight_begins_at_one():
    assert opens_of("1d", "2018-11-03", "2018-11-06", "America/Sao_Paulo") == [
        "11-03 00:00",
        "11-04 01:00",
        "11-05 00:00",
    ]


def xnys(name, since, until, session, zone="America/New_York"):
    return opens_of(name, since, until, zone, session=session, calendar=calendar("XNYS"))


def test_regular_hours_of_xnys_begin_at_half_past_nine_and_end_with_a_half():
    opens = xnys("1h", "2024-11-27", "2024-11-28", Session.REGULAR)
    last = Grid(frame("1h"), zone="UTC", session=Session.REGULAR, calendar=calendar("XNYS")).at(
        ms("2024-11-27T15:45", "America/New_York")
    )

    assert opens == [f"11-27 {hour:02}:30" for hour in range(9, 16)]
    assert last.length == 30 * MINUTE


def test_the_half_day_after_thanksgiving_has_four_hours_and_thanksgiving_none():
    assert xnys("1h", "2024-11-28", "2024-12-02", Session.REGULAR) == [
        "11-29 09:30",
        "11-29 10:30",
        "11-29 11:30",
        "11-29 12:30",
    ]


def test_extended_hours_begin_at_four():
    assert xnys("4h", "2024-11-29", "2024-11-30", Session.EXTENDED) == [
        "11-29 04:00",
        "11-29 08:00",
        "11-29 12:00",
        "11-29 16:00",
    ]


def test_all_hours_of_xnys_count_from_midnight():
    assert xnys("8h", "2024-11-28", "2024-11-29", Session.ALL) == [
        "11-28 00:00",
        "11-28 08:00",
        "11-28 16:00",
    ]


def test_sessions_of_1998_are_known():
    assert len(xnys("1m", "1998-01-02", "1998-01-03", Session.REGULAR)) == 390


@pytest.mark.parametrize("name", ["1d", "2w", "3M", "1y"])
@pytest.mark.parametrize("session", [Session.REGULAR, Session.EXTENDED])
def test_a_session_does_not_move_days_and_longer(name, session):
    window = Window(ms("2020-01-01"), ms("2024-01-01"))
    zone = "America/New_York"

    by_session = Grid(frame(name), zone=zone, session=session, calendar=calendar("XNYS"))

    assert list(by_session.opening_in(window)) == list(in_zone(name, zone).opening_in(window))


def test_a_session_around_the_clock_is_the_day_of_utc():
    cut = Grid(frame("5h"), zone="Asia/Tokyo", session=Session.REGULAR, calendar=ALWAYS)

    assert cut.at(22 * HOUR) == Window(20 * HOUR, 24 * HOUR)


def test_nothing_lies_between_sessions():
    cut = Grid(frame("1h"), zone="UTC", session=Session.REGULAR, calendar=calendar("XNYS"))
    night = Window(ms("2024-11-27T22:00"), ms("2024-11-29T13:00"))

    assert cut.at(night.since) is None
    assert cut.reach(night).empty
    assert len(cut.opening_in(night)) == 0


# --- what must not break -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1s", "7m", "1h", "1d", "1w", "1M", "100y"])
@pytest.mark.parametrize("window", [Window(5, 5), Window(9, 3), Window(10**29, 10**30)])
def test_an_empty_or_absurd_window_has_no_buckets(name, window):
    cut = in_zone(name, "America/New_York")

    assert len(cut.opening_in(window)) == 0
    assert cut.reach(window).empty


def test_a_window_of_a_thousand_years_ends_where_the_era_does():
    years = in_zone("1y", "Europe/Paris").opening_in(Window(-(10**30), 10**30))

    assert 498 <= len(years) <= 500
    assert np.all(np.diff(years.opens) > 0)


@pytest.mark.parametrize("time", [-(10**30), 10**30, -(10**14), 10**14])
@pytest.mark.parametrize("name", ["1m", "1d", "1M"])
def test_an_instant_outside_the_era_has_no_bucket(name, time):
    assert in_zone(name).at(time) is None


@pytest.mark.parametrize("name", ["1d", "1w", "1M"])
@pytest.mark.parametrize("zone", ODD_ZONES)
def test_days_of_a_century_follow_each_other_without_a_hole(name, zone):
    century = Window(ms("1940-01-01"), ms("2040-01-01"))

    buckets = in_zone(name, zone).opening_in(century)

    assert all(earlier.until == later.since for earlier, later in pairwise(buckets))
    assert np.all(buckets.closes > buckets.opens)


def test_an_unknown_zone_is_refused():
    with pytest.raises(UnknownName, match="America/New_York"):
        in_zone("1d", "America/NewYork")


def test_a_series_is_cut_by_its_own_zone_and_session():
    stock = Series(
        Listing("sim", "stocks", "SPY"),
        frame("1h"),
        timezone="America/New_York",
        session=Session.REGULAR,
        calendar="XNYS",
    )
    open_of_day = ms("2024-11-27T09:30", "America/New_York")

    assert grid(stock).at(open_of_day) == Window(open_of_day, open_of_day + HOUR)
    assert grid(stock) is grid(stock)
