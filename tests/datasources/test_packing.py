"""Bars as bytes: what was packed comes back, and what was cut reads as absent."""

from __future__ import annotations

import pytest

from datasources.packing import Packer, pack, unpack
from market.window import Window
from tests.fakes import row, to_bars

MINUTE = 60_000


def test_a_value_comes_back_whole_and_cut_anywhere_it_is_absent() -> None:
    bars = to_bars({0: row(0), 60_000: row(60_000)}, 120_000)

    value = pack(bars, {"as_of": 5})

    assert unpack(value) == (bars, {"as_of": 5})
    assert {unpack(value[:length]) for length in range(len(value))} == {None}


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 2), (1, 3), (2, 2), (0, 0)])
def test_a_stretch_packed_of_many_is_the_stretch_packed_alone(first: int, last: int) -> None:
    bars = to_bars({n * MINUTE: row(n * MINUTE) for n in range(3)}, 3 * MINUTE)
    alone = bars.slice(Window(first * MINUTE, last * MINUTE))

    value = Packer(bars).pack(first, last, {"as_of": 5})

    assert value == pack(alone, {"as_of": 5})
    assert unpack(value) == (alone, {"as_of": 5})


def test_columns_that_are_not_contiguous_are_packed_by_their_values() -> None:
    bars = to_bars({n * MINUTE: row(n * MINUTE) for n in range(4)}, 4 * MINUTE)
    every_other = bars.take(slice(None, None, 2))

    assert unpack(pack(every_other, {})) == (every_other, {})
