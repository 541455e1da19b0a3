"""Bars with numbers that need every bit, and files of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from datasources.files.formats import Format, open_writer
from datasources.files.label import Label
from datasources.files.placing import Placement
from datasources.files.table import table_of
from db.bar_pages import ObservedBars
from db.stored import SeriesFacts, SeriesKey
from market.bars import CLOSED, FROM_TRADES, Bars
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Spans, Window

T0 = 1_700_000_040_000
NOW = T0 + 10**10
KEY = SeriesKey(Listing("sim", "crypto", "BTC/USDT", dataset="1-1"), MINUTE_FRAME)
FACTS = SeriesFacts("BTC", "USDT", around_the_clock=True)
PLACEMENT = Placement(KEY, FACTS, "UTC")
NAMES = "timestamp_ms,open,high,low,close,volume"

_prices = st.floats(-1e300, 1e300, allow_nan=False, allow_infinity=False)


# No product of two of them vanishes or is beyond what can be summed up.
_amounts = st.floats(1e-140, 1e140)


@st.composite
def pages(draw: st.DrawFn) -> ObservedBars:
    """Closed minutes with any finite numbers, some with vwap and trades."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, 5),
                st.lists(_prices, min_size=4, max_size=4).map(sorted),
                st.one_of(st.just(0.0), _amounts),
                st.one_of(st.none(), st.just(0.0), _amounts, _amounts.map(lambda x: -x)),
                st.one_of(st.none(), st.integers(0, 2**53)),
                st.sampled_from((0, FROM_TRADES)),
                st.integers(0, 10**9),
                st.booleans(),
            ),
            min_size=1,
            max_size=12,
        )
    )
    time = T0 + np.cumsum([row[0] for row in rows]) * MINUTE
    inner = [row[1][1:3][:: -1 if row[7] else 1] for row in rows]
    bars = Bars.of(
        time,
        [prices[0] for prices in inner],
        [row[1][3] for row in rows],
        [row[1][0] for row in rows],
        [prices[1] for prices in inner],
        [row[2] for row in rows],
        vwap=[np.nan if row[3] is None else row[3] for row in rows],
        trades=[-1 if row[4] is None else row[4] for row in rows],
        updated=time + [row[6] for row in rows],
        flags=[CLOSED | row[5] for row in rows],
    )
    return ObservedBars(bars, time + MINUTE + np.array([row[6] for row in rows]))


def label_of(page: ObservedBars, known: Spans | None = None) -> Label:
    window = Window(int(page.bars.time[0]), int(page.bars.time[-1]) + MINUTE)
    known = Spans((window,)) if known is None else known
    return Label(KEY, FACTS, window, known, rows=len(page.bars))


def write(path: Path, label: Label, parts: Sequence[ObservedBars]) -> Path:
    with path.open("wb") as stream, open_writer(Format(path.suffix[1:]), stream, label) as writer:
        for part in parts:
            writer.write(table_of(part))
    return path


def lines(path: Path, *rows: str, names: str = NAMES, end: str = "\n") -> Path:
    """Write a CSV that is nobody's export."""
    path.write_text("".join(row + end for row in (names, *rows)), "utf-8", newline="")
    return path


def row(minute: int, close: float = 10.0) -> str:
    return f"{T0 + minute * MINUTE},{close},{close + 1},{close - 1},{close},2.5"


def same_bits(one: Bars, other: Bars) -> bool:
    """Whether two runs of bars agree in every bit of what a file holds."""
    names = ("time", "open", "high", "low", "close", "volume", "vwap", "trades", "updated", "flags")
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in names)
