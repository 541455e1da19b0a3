"""Recorded time runs on from its anchor, whoever asks."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.clock import FixedClock
from plugins.replay import Anchor, ReplayClock, dataset_id

FROM = 1_700_000_000_000
ANCHORED = 1_800_000_000_000


@pytest.mark.parametrize(
    ("speed", "passed", "expected"),
    [("1", 1000, 1000), ("60", 1000, 60_000), ("0.5", 1001, 500), ("0", 10**9, 0)],
)
def test_recorded_time_passes_at_its_speed(speed: str, passed: int, expected: int) -> None:
    anchor = Anchor(replay_from=FROM, anchored_at=ANCHORED, speed=Decimal(speed))

    now = ReplayClock(FixedClock(ANCHORED + passed), anchor).now()

    assert now == FROM + expected


def test_a_process_whose_clock_is_behind_the_anchor_waits_at_the_start() -> None:
    anchor = Anchor(replay_from=FROM, anchored_at=ANCHORED, speed=Decimal(10))

    assert ReplayClock(FixedClock(ANCHORED - 50), anchor).now() == FROM


@given(
    ticks=st.lists(st.integers(-(10**6), 10**9), min_size=2),
    speed=st.decimals(0, 1000, allow_nan=False, places=3),
)
@settings(deadline=None)
def test_recorded_time_never_goes_back_while_real_time_does_not(
    ticks: list[int], speed: Decimal
) -> None:
    base = FixedClock(ANCHORED)
    clock = ReplayClock(base, Anchor(FROM, ANCHORED, speed))

    times = []
    for tick in sorted(ticks):
        base.at = ANCHORED + tick
        times.append(clock.now())

    assert times == sorted(times)


@pytest.mark.parametrize("speed", ["-1", "NaN", "Infinity"])
def test_an_impossible_speed_is_refused(speed: str) -> None:
    with pytest.raises(ValueError, match="speed"):
        Anchor(replay_from=FROM, anchored_at=ANCHORED, speed=Decimal(speed))


def test_content_start_and_speed_are_each_another_dataset() -> None:
    ids = {
        dataset_id("abc", FROM, Decimal(1)),
        dataset_id("abd", FROM, Decimal(1)),
        dataset_id("abc", FROM + 1, Decimal(1)),
        dataset_id("abc", FROM, Decimal("1.5")),
    }

    assert len(ids) == 4


@pytest.mark.parametrize("speed", ["1.0", "1E+0", "1.000"])
def test_one_speed_written_differently_is_one_dataset(speed: str) -> None:
    assert dataset_id("abc", FROM, Decimal(speed)) == dataset_id("abc", FROM, Decimal(1))
