"""Bars as bytes: what was packed comes back, and what was cut reads as absent."""

from __future__ import annotations

from datasources.packing import pack, unpack
from tests.fakes import row, to_bars


def test_a_value_comes_back_whole_and_cut_anywhere_it_is_absent() -> None:
    bars = to_bars({0: row(0), 60_000: row(60_000)}, 120_000)

    value = pack(bars, {"as_of": 5})

    assert unpack(value) == (bars, {"as_of": 5})
    assert {unpack(value[:length]) for length in range(len(value))} == {None}
