"""Trades prove up to when everything was told, and no clock does."""

from __future__ import annotations

import pytest

from datasources.ingest.following import Following
from datasources.ingest.sources import Told
from db.told import US
from market.window import Window

PUSHED = Told(())


@pytest.mark.parametrize(
    ("batches", "reached"),
    [
        # Before the first trade nothing is proved; others of its millisecond may have been before.
        ([(100, None)], [None]),
        ([(100, None), (200, 150)], [None, 151]),
        # A trade proves what was before it, however late it is read.
        ([(100, 90), (500, 200)], [91, 200]),
        # It begins with the trade, however far behind our clock is.
        ([(100, 190), (200, 195)], [191, 195]),
        # One that is out of order takes nothing back.
        ([(100, 90), (500, 300), (500, 250)], [91, 300, 300]),
        # Silence proves nothing, nor does a time that has not come.
        ([(100, 90), (500, None), (500, 900)], [91, 91, 500]),
    ],
)
def test_pushed_trades_prove_what_was_told(
    batches: list[tuple[int, int | None]], reached: list[int | None]
) -> None:
    following = Following()
    seen: list[int | None] = []

    for now, newest in batches:
        following.take(PUSHED, newest, now=now)
        seen.append(following.reached and following.reached // US)

    assert seen == reached


def test_what_was_asked_for_is_told_without_a_trade() -> None:
    following = Following()

    begins = following.take(Told((), Window(10, 20)), None, now=100)
    goes_on = following.take(Told((), Window(20, 35)), None, now=100)

    assert (begins, goes_on) == (True, False)
    assert following.reached == 35 * US


def test_after_a_cut_it_begins_anew() -> None:
    following = Following()
    following.take(PUSHED, 90, now=100)
    following.cut()

    assert following.reached is None
    assert following.take(PUSHED, 95, now=100)
    assert following.reached == 96 * US
