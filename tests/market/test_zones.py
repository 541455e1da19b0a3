"""Where local days begin, in the zones that make it hard."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from market.errors import UnknownName
from market.window import DAY
from market.zones import ERA, check_zone, day_starts, local_day


def days(*dates):
    return np.array([(on - date(1970, 1, 1)).days for on in dates])


def ms(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "on", "begins"),
    [
        ("UTC", "2024-02-29", "2024-02-29T00:00+00:00"),
        ("America/New_York", "2024-03-10", "2024-03-10T00:00-05:00"),
        ("America/New_York", "2024-03-11", "2024-03-11T00:00-04:00"),
        ("Asia/Kolkata", "2024-01-01", "2024-01-01T00:00+05:30"),
        # No midnight: the clock went from 00:00 to 01:00.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T01:00-02:00"),
        ("Africa/Cairo", "2023-04-28", "2023-04-28T01:00+03:00"),
        ("Asia/Beirut", "2022-03-27", "2022-03-27T01:00+03:00"),
        # No midnight, in the middle of the gap: 23:30 to 00:30.
        ("America/Toronto", "1919-03-31", "1919-03-31T00:30-04:00"),
        # Two midnights: the clock went from 01:00 to 00:00, or from 00:01 to 23:01 the day before.
        ("America/Havana", "2023-11-05", "2023-11-05T00:00-04:00"),
        ("America/St_Johns", "2006-10-29", "2006-10-29T00:00-02:30"),
        # The clock went from 00:00 to 23:00: the day began an hour later, once.
        ("America/Sao_Paulo", "2018-02-18", "2018-02-18T00:00-03:00"),
        # A date that never was.
        ("Pacific/Apia", "2011-12-29", "2011-12-29T00:00-10:00"),
        ("Pacific/Apia", "2011-12-30", "2011-12-31T00:00+14:00"),
        ("Pacific/Apia", "2011-12-31", "2011-12-31T00:00+14:00"),
        # An offset in seconds.
        ("Africa/Monrovia", "1970-01-01", "1970-01-01T00:00-00:44:30"),
    ],
)
def test_a_date_begins_at_its_first_instant(zone, on, begins):
    assert day_starts(zone, days(date.fromisoformat(on))).tolist() == [ms(begins)]


def test_days_are_answered_in_the_order_asked():
    asked = days(date(2030, 1, 1), date(1970, 1, 1), date(2000, 2, 29), date(1970, 1, 1))

    starts = day_starts("UTC", asked)

    assert starts.tolist() == (asked * DAY).tolist()
    assert day_starts("UTC", asked[:0]).tolist() == []


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"])
def test_an_instant_lies_in_the_day_its_zone_says(zone):
    for time in range(ms("2024-01-01T00:30+00:00"), ms("2024-01-04T00:00+00:00"), 3_600_000):
        local = datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).date()

        assert local_day(zone, time) == days(local)[0]


def test_the_instants_around_a_skipped_date_lie_on_its_neighbours():
    skip = ms("2011-12-31T00:00+14:00")

    assert local_day("Pacific/Apia", skip - 1) == days(date(2011, 12, 29))[0]
    assert local_day("Pacific/Apia", skip) == days(date(2011, 12, 31))[0]


def test_the_era_runs_from_1700_to_2200():
    assert datetime.fromtimestamp(ERA.since / 1000, UTC) == datetime(1700, 1, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(ERA.until / 1000, UTC) == datetime(2200, 1, 1, tzinfo=UTC)
    assert local_day("Asia/Tokyo", ERA.since) <= local_day("Asia/Tokyo", ERA.until)


@pytest.mark.parametrize("name", ["UTC", "America/New_York", "Asia/Kolkata", "Etc/GMT+5"])
def test_a_zone_is_known_by_its_iana_name(name):
    assert check_zone(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "America",
        "america/new_york",
        "America/New York",
        "/etc/passwd",
        "../../etc/passwd",
        "America/../UTC",
        "./UTC",
        "UTC\x00",
        "UTC\n",
        "localtime",
        "Factory",
        "posix/UTC",
        "EST5EDT4",
        "+02:00",
        "x" * 5000,
        "Zürich",
        "\ud800",
    ],
)
def test_any_other_name_is_refused(name):
    with pytest.raises(UnknownName) as refused:
        check_zone(name)

    assert refused.value.field == "timezone"


def test_a_misspelt_zone_is_recognised():
    with pytest.raises(UnknownName) as refused:
        check_zone("America/NewYork")

    assert "America/New_York" in refused.value.suggestions
