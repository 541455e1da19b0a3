"""Minutes of trades equal a definition that is too slow to use."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market.bars import CLOSED, FROM_TRADES
from market.trades import minute_bars
from market.window import MINUTE

deals = st.lists(
    st.tuples(
        st.integers(-5 * MINUTE, 5 * MINUTE),
        st.floats(-1e6, 1e6),
        st.just(0.0) | st.floats(1e-9, 1e6),
    ),
    max_size=40,
)


@given(deals)
def test_each_minute_equals_its_trades_summed_as_fractions(
    rows: list[tuple[int, float, float]],
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.empty(0)] * 3

    bars = minute_bars(columns[0].astype(np.int64), *map(np.float64, columns[1:]))

    minutes: dict[int, list[tuple[int, float, float]]] = {}
    for row in rows:
        minutes.setdefault(row[0] // MINUTE * MINUTE, []).append(row)
    assert bars.time.tolist() == list(minutes)
    for n, inside in enumerate(minutes.values()):
        prices = [price for _, price, _ in inside]
        assert (bars.open[n], bars.close[n]) == (prices[0], prices[-1])
        assert (bars.high[n], bars.low[n]) == (max(prices), min(prices))
        assert bars.trades[n] == len(inside)
        assert bars.updated[n] == inside[-1][0]
        assert bars.volume[n] == float(sum(Fraction(amount) for _, _, amount in inside))
        turnover = float(sum(Fraction(price * amount) for _, price, amount in inside))
        if bars.volume[n] == 0:
            assert math.isnan(bars.vwap[n])
        else:
            vwap = min(max(turnover / bars.volume[n], min(prices)), max(prices))
            assert bars.vwap[n] == vwap
    assert (bars.flags == (FROM_TRADES | CLOSED)).all()
    bars.checked()
