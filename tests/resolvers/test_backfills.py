"""How far a backfill is, in figures, and what one viewer is told of it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.backfills import Backfill, BackfillState
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import DAY, MINUTE, Window
from resolvers.backfills import LiveProgress, Progress, Speed, percent_of, rate_of

BEGAN = 1_760_000_000_000
RUNNING = Backfill(
    id=UUID(int=1),
    number=1,
    listing=Listing("fake", "crypto", "COIN"),
    timeframe=MINUTE_FRAME,
    native=False,
    window=Window(BEGAN - 10 * DAY, BEGAN),
    state=BackfillState.RUNNING,
    reason=None,
    message=None,
    holes=10 * DAY,
    done=0,
    bars=0,
    created_at=BEGAN - 5_000,
    started_at=BEGAN,
    ended_at=None,
    updated_at=BEGAN,
)


def after(seconds: float, *, done: int, bars: int) -> Backfill:
    return replace(RUNNING, done=done, bars=bars, updated_at=BEGAN + int(seconds * 1000))


def told(*seen: Backfill) -> Progress:
    """Return the progress that whoever saw all of *seen* is told last."""
    speed = Speed()
    return [speed.progress(backfill) for backfill in seen][-1]


@pytest.mark.parametrize(
    ("done", "percent"),
    [(0, 0.0), (DAY, 10.0), (DAY + MINUTE, 10.0), (10 * DAY - 1, 99.99), (10 * DAY, 100.0)],
)
def test_percent_counts_the_missing_time_that_is_told(done: int, percent: float) -> None:
    assert percent_of(replace(RUNNING, done=done)) == percent


def test_nothing_is_told_of_holes_that_nobody_has_looked_for() -> None:
    assert percent_of(replace(RUNNING, state=BackfillState.QUEUED, holes=0)) == 0.0


def test_what_is_done_is_done_even_if_the_provider_did_not_have_all() -> None:
    assert percent_of(replace(RUNNING, state=BackfillState.DONE, done=DAY)) == 100.0


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_percent_lies_between_0_and_100(holes: int, done: int) -> None:
    assert 0.0 <= percent_of(replace(RUNNING, holes=holes, done=done)) <= 100.0


def test_the_rate_is_bars_a_second_since_it_began() -> None:
    assert rate_of(after(20, done=DAY, bars=1_440)) == 72.0


def test_a_backfill_that_waits_has_no_rate() -> None:
    waits = replace(RUNNING, state=BackfillState.QUEUED, started_at=None)

    assert rate_of(waits) is None
    assert told(waits) == Progress(waits, rate=None, time_left=None)


def test_who_comes_later_is_told_the_average() -> None:
    now = after(10, done=DAY, bars=1_440)

    assert told(now) == Progress(now, rate=144.0, time_left=90.0)


def test_who_watches_is_told_the_speed_of_late() -> None:
    slow = after(1_000, done=DAY, bars=1_000)
    fast = after(1_010, done=2 * DAY, bars=3_000)

    assert told(slow, fast) == Progress(fast, rate=200.0, time_left=80.0)


def test_the_speed_of_long_ago_is_forgotten() -> None:
    seen = [after(seconds, done=seconds * MINUTE, bars=seconds) for seconds in range(0, 200, 10)]
    quick = [after(190 + n * 10, done=190 * MINUTE + n * DAY, bars=190 + n) for n in range(1, 8)]

    progress = told(*seen, *quick)

    assert progress.time_left == pytest.approx((10 * DAY - quick[-1].done) / DAY * 10)


def test_time_that_is_told_without_a_bar_counts_for_the_time_left() -> None:
    now = after(10, done=5 * DAY, bars=0)

    assert told(now) == Progress(now, rate=0.0, time_left=10.0)


def test_nobody_knows_how_long_what_stands_still_will_take() -> None:
    stands = after(30, done=DAY, bars=10)

    assert told(after(10, done=DAY, bars=10), stands) == Progress(stands, 0.0, time_left=None)


@pytest.mark.parametrize(
    ("state", "left"),
    [(BackfillState.DONE, 0.0), (BackfillState.CANCELLED, None), (BackfillState.FAILED, None)],
)
def test_what_is_over_shows_its_average_and_no_time_left(
    state: BackfillState, left: float | None
) -> None:
    ended = replace(after(10, done=DAY, bars=1_440), state=state)

    assert told(after(9, done=DAY, bars=0), ended) == Progress(ended, rate=144.0, time_left=left)


changes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30
)


@given(changes)
def test_figures_of_any_course_are_possible(steps: list[tuple[int, int, int]]) -> None:
    speed = Speed()
    done = bars = seconds = 0
    for days, stored, passed in steps:
        done, bars, seconds = min(done + days * DAY, 10 * DAY), bars + stored, seconds + passed
        progress = speed.progress(after(seconds, done=done, bars=bars))

        assert progress.rate is None or progress.rate >= 0
        assert progress.time_left is None or progress.time_left >= 0


@given(changes, st.data())
def test_the_tail_tells_whatever_a_viewer_was_not_told(
    steps: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    course = [RUNNING]
    for days, stored, passed in steps:
        last = course[-1]
        moved = replace(
            last,
            done=last.done + days,
            bars=last.bars + stored,
            updated_at=last.updated_at + passed,
        )
        course += [moved] if moved != last else []
    course.append(replace(course[-1], state=BackfillState.DONE))
    at = data.draw(st.integers(0, len(course) - 1))
    viewer = LiveProgress(None, RUNNING.id, caught_up=course[at])  # type: ignore[arg-type]  # it is not asked

    assert [viewer.told(place) for place in course] == [n <= at for n in range(len(course))]
