"""Pauses between tries grow, have bounds, and are never shorter than what was asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from web.jobs.backoff import Backoff

BACKOFF = Backoff(first_ms=2_000, most_ms=900_000)


class Busy(Exception):
    def __init__(self, retry_after: float | None) -> None:
        self.retry_after = retry_after


@given(st.integers(1, 10_000))
def test_a_pause_is_half_to_all_of_a_doubling_one(failures: int):
    whole = min(2_000 * 2 ** (failures - 1), 900_000)

    pause = BACKOFF.after_ms(failures, ValueError())

    assert whole // 2 <= pause <= whole


@given(st.integers(1, 50), st.none() | st.floats(0, 10_000))
def test_a_pause_is_as_long_as_asked_but_bounded(failures: int, seconds: float | None):
    pause = BACKOFF.after_ms(failures, Busy(seconds))

    assert min(int((seconds or 0) * 1000), 900_000) <= pause <= 900_000
