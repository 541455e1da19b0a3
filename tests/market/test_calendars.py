"""Sessions of XNYS by known dates, and of what never closes."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from market.calendars import calendar, in_session
from market.errors import UnknownName
from market.instrument import Session
from market.window import DAY, HOUR, Spans, Window

NEW_YORK = ZoneInfo("America/New_York")
EVERY_SESSION = [Session.REGULAR, Session.EXTENDED, Session.ALL]


@pytest.fixture(scope="module")
def xnys():
    return calendar("XNYS")


def ms(text, zone=NEW_YORK):
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


def on(day):
    """The whole local day of New York."""
    return Window(ms(day), ms(str(date.fromisoformat(day) + timedelta(days=1))))


def clock(times):
    return [f"{datetime.fromtimestamp(time / 1000, NEW_YORK):%H:%M}" for time in times.tolist()]


def hours(calendar, day, session):
    opens, closes = calendar.sessions(on(day), session)
    return list(zip(clock(opens), clock(closes), strict=True))


@pytest.mark.parametrize(
    "day", ["1998-01-02", "2007-03-12", "2020-02-28", "2024-07-05", "2024-11-04", "2026-11-20"]
)
def test_a_trading_day_has_its_hours_in_summer_and_winter(xnys, day):
    assert hours(xnys, day, Session.REGULAR) == [("09:30", "16:00")]
    assert hours(xnys, day, Session.EXTENDED) == [("04:00", "20:00")]
    assert hours(xnys, day, Session.ALL) == [("04:00", "20:00")]


@pytest.mark.parametrize(
    "day",
    [
        "1999-11-26",
        "2013-07-03",
        "2024-07-03",
        "2024-11-29",
        "2024-12-24",
        "2025-07-03",
        "2026-11-27",
        "2026-12-24",
    ],
)
def test_a_half_day_closes_at_one_and_its_post_session_at_five(xnys, day):
    assert hours(xnys, day, Session.REGULAR) == [("09:30", "13:00")]
    assert hours(xnys, day, Session.EXTENDED) == [("04:00", "17:00")]


@pytest.mark.parametrize(
    "day",
    [
        "1998-01-01",
        "1998-04-10",  # Good Friday
        "2001-09-11",
        "2004-06-11",  # mourning for President Reagan
        "2012-10-29",  # Hurricane Sandy
        "2022-06-20",  # Juneteenth, a holiday since 2022
        "2023-06-19",
        "2024-11-28",  # Thanksgiving
        "2024-12-25",
        "2025-01-09",  # mourning for President Carter
        "2024-11-30",  # a Saturday
    ],
)
@pytest.mark.parametrize("session", EVERY_SESSION)
def test_a_holiday_has_no_session(xnys, day, session):
    assert hours(xnys, day, session) == []
    assert xnys.open_spans(on(day), session) == Spans()


@pytest.mark.parametrize("day", ["2021-06-18", "2001-09-10", "2001-09-17", "2024-11-27"])
def test_the_days_around_them_trade(xnys, day):
    assert hours(xnys, day, Session.REGULAR) == [("09:30", "16:00")]


@pytest.mark.parametrize(
    ("year", "count"),
    [
        (1998, 252),
        (2000, 252),
        (2001, 248),
        (2006, 251),
        (2012, 250),
        (2019, 252),
        (2020, 253),
        (2022, 251),
        (2023, 250),
        (2024, 252),
        (2025, 250),
    ],
)
def test_a_year_has_its_known_number_of_sessions(xnys, year, count):
    opens, _ = xnys.sessions(Window(ms(f"{year}-01-01"), ms(f"{year + 1}-01-01")), Session.REGULAR)

    assert len(opens) == count


def test_every_known_year_has_a_plausible_number_of_sessions(xnys):
    for year in range(1970, 2061):
        year_window = Window(ms(f"{year}-01-01"), ms(f"{year + 1}-01-01"))

        opens, closes = xnys.sessions(year_window, Session.EXTENDED)

        assert 248 <= len(opens) <= 254
        assert np.all(closes[:-1] < opens[1:])
        assert set(clock(opens)) == {"04:00"}


def test_regular_hours_lie_inside_extended_ones(xnys):
    century = Window(ms("1970-01-01"), ms("2061-01-01"))
    opens, closes = xnys.sessions(century, Session.REGULAR)
    early, late = xnys.sessions(century, Session.EXTENDED)

    assert np.all(early < opens)
    assert np.all(closes < late)


def test_years_without_known_sessions_count_as_closed(xnys):
    for day in ("1969-12-31", "1929-10-24", "2061-01-03"):
        assert hours(xnys, day, Session.ALL) == []


def test_a_session_is_told_whole_when_the_window_touches_it(xnys):
    noon = ms("2024-11-27T12:00")

    opens, closes = xnys.sessions(Window(noon, noon + 1), Session.REGULAR)

    assert (clock(opens), clock(closes)) == (["09:30"], ["16:00"])


def test_a_session_that_only_meets_the_window_is_left_out(xnys):
    close, next_open = ms("2024-11-26T16:00"), ms("2024-11-27T09:30")

    opens, _ = xnys.sessions(Window(close, next_open), Session.REGULAR)
    touched, _ = xnys.sessions(Window(close - 1, next_open + 1), Session.REGULAR)

    assert len(opens) == 0
    assert len(touched) == 2


def test_open_spans_are_cut_to_the_window(xnys):
    window = Window(ms("2024-11-29T12:00"), ms("2024-12-02T10:00"))

    spans = xnys.open_spans(window, Session.REGULAR)

    assert list(spans) == [
        Window(ms("2024-11-29T12:00"), ms("2024-11-29T13:00")),
        Window(ms("2024-12-02T09:30"), ms("2024-12-02T10:00")),
    ]


def test_minutes_are_told_apart_by_session(xnys):
    times = np.array(
        [
            ms("2024-11-29T03:59"),
            ms("2024-11-29T04:00"),
            ms("2024-11-29T09:29"),
            ms("2024-11-29T09:30"),
            ms("2024-11-29T12:59"),
            ms("2024-11-29T13:00"),
            ms("2024-11-29T16:59"),
            ms("2024-11-29T17:00"),
            ms("2024-11-30T10:00"),
        ]
    )

    regular = in_session(times, xnys, Session.REGULAR)
    extended = in_session(times, xnys, Session.EXTENDED)

    assert np.flatnonzero(regular).tolist() == [3, 4]
    assert np.flatnonzero(extended).tolist() == [1, 2, 3, 4, 5, 6]


def test_all_leaves_out_no_minute_even_at_night(xnys):
    night = np.array([ms("2024-11-29T03:00"), ms("2024-11-30T10:00")])

    assert in_session(night, xnys, Session.ALL).all()


def test_minutes_of_a_closed_stretch_are_in_no_session(xnys):
    sunday = np.array([ms("2024-12-01T10:00"), ms("2024-12-01T11:00")])

    assert not in_session(sunday, xnys, Session.EXTENDED).any()
    assert in_session(sunday[:0], xnys, Session.REGULAR).tolist() == []


@pytest.mark.parametrize("session", EVERY_SESSION)
def test_what_never_closes_has_a_session_each_day_of_utc(session):
    around = calendar("24/7")
    window = Window(5 * HOUR, 2 * DAY + HOUR)

    opens, closes = around.sessions(window, session)

    assert opens.tolist() == [0, DAY, 2 * DAY]
    assert closes.tolist() == [DAY, 2 * DAY, 3 * DAY]
    assert around.open_spans(window, session) == Spans([window])
    assert in_session(np.array([0, HOUR, 7 * DAY]), around, session).all()


@pytest.mark.parametrize("name", ["24/7", "XNYS"])
def test_absurd_windows_are_answered_within_known_years(name):
    known = calendar(name)

    opens, closes = known.sessions(Window(-(10**30), 10**30), Session.REGULAR)
    beyond, _ = known.sessions(Window(10**29, 10**30), Session.REGULAR)
    backwards, _ = known.sessions(Window(DAY, -DAY), Session.REGULAR)

    assert len(opens) == len(closes) > 22_000
    assert len(beyond) == len(backwards) == 0
    assert not known.open_spans(Window(DAY, -DAY), Session.REGULAR)


def test_calendars_are_known_by_name():
    assert calendar("XNYS") is calendar("XNYS")
    assert (calendar("XNYS").name, calendar("XNYS").zone) == ("XNYS", "America/New_York")
    assert (calendar("24/7").name, calendar("24/7").zone) == ("24/7", "UTC")
    assert calendar("24/7").around_the_clock
    assert not calendar("XNYS").around_the_clock


def test_an_unknown_calendar_is_refused_with_those_that_exist():
    with pytest.raises(UnknownName) as refused:
        calendar("XNY")

    assert refused.value.field == "calendar"
    assert refused.value.suggestions == ("XNYS",)
