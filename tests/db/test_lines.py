"""Which bars may be dropped, so that none is missing of a bucket that may still change."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from db.lines import Level, cursors, lines_of
from market.retention import Retention
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY
from tests.db.minutes import bucket

FRAMES = ("5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M", "1y")
COMPUTED_FROM = (None, 1, 2, 3, 4, 5, 6, 6, 8)
LEVELS = [
    Level(number, Timeframe.parse(frame), finer)
    for number, (frame, finer) in enumerate(zip(FRAMES, COMPUTED_FROM, strict=True), 1)
]
START = round(datetime(2019, 1, 1, tzinfo=UTC).timestamp() * 1000)

instants = st.integers(START, START + 3000 * DAY)


@st.composite
def retentions(draw: st.DrawFn) -> Retention:
    """Periods that grow with their timeframes, shorter ones than settings allow among them."""
    named = ["1m", *draw(st.lists(st.sampled_from(FRAMES), unique=True))]
    frames = sorted(map(Timeframe.parse, named), key=lambda frame: frame.nominal)
    days = sorted(draw(st.lists(st.integers(1, 900), min_size=len(frames), max_size=len(frames))))
    return Retention(tuple(zip(frames, (day * DAY for day in days), strict=True)))


@given(retentions(), instants, instants)
def test_all_is_kept_that_a_bucket_which_may_still_change_is_made_of(
    retention: Retention, now: int, cursor: int
) -> None:
    lines = lines_of(retention, MINUTE_FRAME, LEVELS, now, cursor=cursor)

    for level, frame in zip(LEVELS, FRAMES, strict=True):
        finer = lines.get(level.computed_from or 0)
        if finer is not None:
            assert finer <= bucket(lines[0], frame)


@given(retentions(), instants, instants)
def test_nothing_is_dropped_that_is_young_enough_or_lies_beyond_the_cursor(
    retention: Retention, now: int, cursor: int
) -> None:
    lines = lines_of(retention, MINUTE_FRAME, LEVELS, now, cursor=cursor)

    frames = [MINUTE_FRAME, *(level.timeframe for level in LEVELS)]
    for number, line in lines.items():
        period = retention.period(frames[number])
        assert period is not None
        assert line <= min(now - period, cursor)
        assert line % DAY == 0


@given(retentions(), instants, st.tuples(instants, instants).map(sorted))
def test_lines_only_move_on(retention: Retention, now: int, at: list[int]) -> None:
    before, after = (lines_of(retention, MINUTE_FRAME, LEVELS, now, cursor=c) for c in at)

    assert before.keys() == after.keys()
    assert all(before[level] <= after[level] for level in before)


@given(retentions(), instants)
def test_aggregates_are_kept_as_long_as_the_bars_they_are_made_of(
    retention: Retention, now: int
) -> None:
    lines = lines_of(retention, MINUTE_FRAME, LEVELS, now, cursor=now)

    assert all(line <= lines[0] for line in lines.values())


@given(instants, st.integers(0, 300), st.sampled_from(["1s", "1m", "1h", "1d", "1M"]))
def test_cursors_go_from_the_beginning_to_the_end_in_bounded_steps(
    beginning: int, days: int, frame: str
) -> None:
    timeframe = Timeframe.parse(frame)
    midnight = beginning // DAY * DAY
    end = midnight + days * DAY

    steps = list(cursors(beginning, end, timeframe))

    assert steps == sorted(set(steps))
    assert steps[-1] == end
    longest = max(DAY, 40_000 * timeframe.nominal)
    assert all(
        later - sooner <= longest for sooner, later in zip([midnight, *steps], steps, strict=False)
    )
