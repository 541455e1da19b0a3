"""Entries of the stream: what goes in comes out, and what was damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasources.ingest.entry import MOST_TRADES, Unreadable, chained, packed, parts_of, unpacked
from db.raw_trades import Telling
from db.stored import SeriesFacts, SeriesKey
from market.instrument import Adjustment, Listing
from market.timeframe import MINUTE_FRAME
from market.trades import Trades
from market.window import Spans, Window

texts = st.text(max_size=8)
listings = st.builds(
    Listing,
    texts,
    texts,
    texts,
    st.none() | st.sampled_from(Adjustment),
    st.none() | texts,
    texts,
)
rows = st.tuples(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False),
    st.text(min_size=1, max_size=9).map(str.encode).filter(lambda name: b"\0" not in name),
)


@st.composite
def tellings(draw: st.DrawFn) -> Telling:
    columns = list(zip(*draw(st.lists(rows, min_size=1, max_size=20)), strict=True))
    since, length = draw(st.integers(-(2**60), 2**60)), draw(st.integers(0, 2**50))
    return Telling(
        SeriesKey(draw(listings), MINUTE_FRAME),
        SeriesFacts(draw(st.none() | texts), draw(st.none() | texts), draw(st.booleans())),
        Trades.of(*columns),
        Window(since, since + length),
    )


def same(one: Trades, other: Trades) -> bool:
    columns = ("time", "price", "amount", "id")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


@given(tellings())
def test_what_is_packed_comes_back(telling: Telling) -> None:
    back = unpacked(packed(telling))

    assert (back.key, back.facts, back.told) == (telling.key, telling.facts, telling.told)
    assert same(back.trades, telling.trades)


@given(tellings(), st.data())
def test_what_was_cut_or_grew_is_refused(telling: Telling, data: st.DataObject) -> None:
    payload = packed(telling)
    cut = data.draw(st.integers(0, len(payload) - 1))

    for wrong in (payload[:cut], payload + b"\0"):
        with pytest.raises(Unreadable):
            unpacked(wrong)


def test_an_entry_of_another_version_is_refused() -> None:
    telling = Telling(
        SeriesKey(Listing("sim", "crypto", "A"), MINUTE_FRAME),
        SeriesFacts(),
        Trades.empty(),
        Window(0, 1),
    )

    with pytest.raises(Unreadable, match="version 2"):
        unpacked(b"\x02" + packed(telling)[1:])


@given(st.integers(0, 5 * MOST_TRADES), st.integers(0, 2**40), st.integers(0, 10_000))
def test_parts_follow_each_other_and_miss_nothing(count: int, since: int, length: int) -> None:
    length = max(length, parts_of(count)) if length else 0
    trades = Trades.of(
        range(count), np.ones(count), np.ones(count), [b"%d" % n for n in range(count)]
    )
    told = Window(since, since + length)
    key = SeriesKey(Listing("sim", "crypto", "A"), MINUTE_FRAME)

    parts = list(chained(Telling(key, SeriesFacts(), trades, told)))

    assert same(Trades.concat([part.trades for part in parts]), trades)
    assert all(len(part.trades) <= MOST_TRADES for part in parts)
    assert Spans(part.told for part in parts) == Spans((told,))
    for n in range(len(parts)):
        # Without any one of them there is a hole.
        others = Spans(part.told for part in parts[:n] + parts[n + 1 :])
        assert not length or others != Spans((told,))
