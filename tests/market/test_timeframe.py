"""Timeframes: what is accepted, what is refused, and that one length has one name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.errors import UnknownName
from market.timeframe import DAY_FRAME, MINUTE_FRAME, SECOND_FRAME, Timeframe, Unit
from market.window import DAY, HOUR, MINUTE

LARGEST = {"s": 86_400, "m": 1_440, "h": 24, "d": 36_525, "w": 5_217, "M": 1_200, "y": 100}
written = st.one_of(
    [
        st.builds("{}{}".format, st.integers(1, most), st.just(unit))
        for unit, most in LARGEST.items()
    ]
)


def test_a_minute_and_a_month_are_told_apart_by_case():
    assert Timeframe.parse("1m") == Timeframe(1, Unit.MINUTE)
    assert Timeframe.parse("1M") == Timeframe(1, Unit.MONTH)
    assert str(Timeframe.parse("1m")) != str(Timeframe.parse("1M"))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("1min", "1m"),
        ("5mins", "5m"),
        ("15 minutes", "15m"),
        ("1MIN", "1m"),
        ("1mon", "1M"),
        ("3months", "3M"),
        ("1Mon", "1M"),
        ("60", "1h"),
        ("240", "4h"),
        ("7", "7m"),
        ("30sec", "30s"),
        ("1H", "1h"),
        ("2hours", "2h"),
        ("1D", "1d"),
        ("1day", "1d"),
        ("2W", "2w"),
        ("1week", "1w"),
        ("1Y", "1y"),
        ("2years", "2y"),
        (" 4h ", "4h"),
        ("007m", "7m"),
    ],
)
def test_an_alias_is_accepted_on_input(alias, name):
    assert str(Timeframe.parse(alias)) == name


@pytest.mark.parametrize(
    ("long", "short"),
    [("60s", "1m"), ("3600s", "1h"), ("86400s", "24h"), ("1440m", "24h"), ("12M", "1y")],
)
def test_one_length_has_one_name(long, short):
    assert Timeframe.parse(long) == Timeframe.parse(short)
    assert str(Timeframe.parse(long)) == short


@pytest.mark.parametrize("name", ["24h", "7d", "14d", "52w", "90s", "90m", "18M"])
def test_lengths_with_buckets_of_their_own_keep_their_name(name):
    assert str(Timeframe.parse(name)) == name


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        "m",
        "0m",
        "0",
        "-1m",
        "+1m",
        "1.5h",
        "1e3m",
        "1x",
        "1 q",
        "1mo",
        "1Ms",
        "hour",
        "1m1h",
        "1m\n1h",
        "1\x00m",
        "25h",
        "1441m",
        "86401s",
        "101y",
        "1201M",
        "36526d",
        "5218w",
        "9999999m",
        "\u0661m",
        "\u00b2m",
        "1\uff4d",
        "m1",
        "NaN",
        "1" * 5000,
    ],
)
def test_nonsense_is_refused(nonsense):
    with pytest.raises(UnknownName) as refused:
        Timeframe.parse(nonsense)

    assert refused.value.field == "timeframe"
    assert refused.value.code == "BAD_USER_INPUT"
    assert len(str(refused.value)) < 200


def test_a_refusal_suggests_the_nearest():
    with pytest.raises(UnknownName) as refused:
        Timeframe.parse("1x")

    assert 0 < len(refused.value.suggestions) <= 3


@given(written)
@settings(deadline=None, max_examples=500)
def test_a_name_read_back_is_the_same_timeframe(name):
    timeframe = Timeframe.parse(name)

    assert Timeframe.parse(str(timeframe)) == timeframe


@given(written, written)
@settings(deadline=None, max_examples=300)
def test_frames_within_the_day_are_equal_exactly_when_their_steps_are(one, other):
    a, b = Timeframe.parse(one), Timeframe.parse(other)

    if a.step is not None and b.step is not None:
        assert (a == b) == (a.step == b.step)


@given(st.text(max_size=12))
@settings(deadline=None, max_examples=500)
def test_any_text_is_a_timeframe_or_refused_by_name(text):
    try:
        timeframe = Timeframe.parse(text)
    except UnknownName as refused:
        assert refused.name == text
    else:
        assert timeframe.count >= 1


def test_a_step_counts_milliseconds_where_no_calendar_is_needed():
    assert Timeframe.parse("7m").step == 7 * MINUTE
    assert Timeframe.parse("4h").step == 4 * HOUR
    assert Timeframe.parse("1d").step is None
    assert Timeframe.parse("1M").step is None


def test_a_nominal_length_estimates_every_frame():
    assert SECOND_FRAME.nominal == 1000
    assert MINUTE_FRAME.nominal == MINUTE
    assert DAY_FRAME.nominal == DAY
    assert Timeframe.parse("2w").nominal == 14 * DAY
    assert Timeframe.parse("3M").nominal == 90 * DAY
    assert Timeframe.parse("1y").nominal == 365 * DAY
