"""What is sent comes back as it was, and what another version sent is known for that."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from datasources.live.events import BaseEvent, FeedState, Status
from datasources.live.keys import FeedKey, Kind
from datasources.live.quotes import QuoteEvent
from datasources.packing import pack
from market.bars import CLOSED, Bars
from market.instrument import Adjustment, Listing
from market.quotes import OrderBook, Ticker
from market.timeframe import Timeframe
from market.window import MINUTE, Window
from plugins.base import Trade

words = st.text(max_size=12)
maybe = st.none() | words
listings = st.builds(
    Listing,
    provider=words,
    market=words,
    symbol=words,
    adjustment=st.none() | st.sampled_from(Adjustment),
    feed=maybe,
    dataset=words,
)
timeframes = st.sampled_from(["1s", "1m", "7m", "4h", "1d", "1M"]).map(Timeframe.parse)
bars_keys = st.builds(
    FeedKey, st.just(Kind.BARS), listings, timeframe=timeframes, native=st.booleans()
)
other_keys = st.builds(FeedKey, st.sampled_from([Kind.TRADES, Kind.BOOK, Kind.TICKER]), listings)
keys = bars_keys | other_keys
positions = st.integers(0, 2**53 - 1)
times = st.integers(0, 4_000_000_000_000)
prices = st.floats(allow_nan=False, allow_infinity=False)
statuses = st.none() | st.builds(Status, st.sampled_from(FeedState), times, words)
jsons: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(words, inner, max_size=4),
)


@st.composite
def runs_of_bars(draw: st.DrawFn, *, flags: int, most: int) -> Bars:
    opens = sorted(draw(st.sets(st.integers(0, 1_000), max_size=most)))
    n = len(opens)
    columns = [draw(st.lists(prices, min_size=n, max_size=n)) for _ in range(5)]
    return Bars.of(
        [minute * MINUTE for minute in opens],
        *columns,
        revision=draw(st.lists(positions, min_size=n, max_size=n)),
        updated=np.array(opens, np.int64) * MINUTE + 5,
        flags=flags,
    )


windows = st.tuples(times, st.integers(1, 10**9)).map(lambda w: Window(w[0], w[0] + w[1]))
events = st.builds(
    BaseEvent,
    store=st.none() | st.uuids().map(lambda value: UUID(hex=value.hex)),
    series=st.none() | st.integers(1, 2**31 - 1),
    position=positions,
    previous=positions,
    told_from=times,
    told=times,
    changes=st.lists(windows, max_size=5).map(tuple),
    bars=runs_of_bars(flags=CLOSED, most=6),
    whole=st.booleans(),
    forming=runs_of_bars(flags=0, most=1),
    status=statuses,
)


@given(key=keys)
def test_a_key_comes_back(key: FeedKey) -> None:
    assert FeedKey.unpacked(key.packed()) == key


@given(one=keys, other=keys)
def test_no_two_keys_share_a_name(one: FeedKey, other: FeedKey) -> None:
    assert (one.name == other.name) == (one == other)


@given(value=st.binary(max_size=40) | jsons.map(orjson.dumps))
def test_no_bytes_are_taken_for_a_key_they_are_not(value: bytes) -> None:
    key = FeedKey.unpacked(value)

    assert key is None or FeedKey.unpacked(key.packed()) == key


@given(event=events)
def test_an_event_of_bars_comes_back(event: BaseEvent) -> None:
    back = BaseEvent.unpacked(event.packed())

    assert back is not None
    if len(event.bars) and len(event.forming) and event.forming.time[0] <= event.bars.time[-1]:
        # It is obsolete.
        assert not len(back.forming)
    else:
        assert back.forming == event.forming
    assert back.bars == event.bars
    for name in ("store", "series", "position", "previous", "told_from", "told", "changes"):
        assert getattr(back, name) == getattr(event, name), name
    assert (back.whole, back.status) == (event.whole, event.status)


@given(value=st.binary(max_size=60), facts=st.dictionaries(words, jsons, max_size=12))
def test_no_bytes_are_taken_for_an_event_they_are_not(value: bytes, facts: dict[str, Any]) -> None:
    assert BaseEvent.unpacked(value) is None
    assert BaseEvent.unpacked(pack(Bars.empty(), facts)) is None


@given(event=events, cut=st.integers(1, 50))
def test_an_event_that_was_cut_is_none(event: BaseEvent, cut: int) -> None:
    assert BaseEvent.unpacked(event.packed()[:-cut]) is None


levels = st.lists(st.tuples(prices, prices), max_size=5).map(tuple)
whole_numbers = st.none() | st.integers(0, 2**53 - 1)
books = st.builds(OrderBook, times, levels, levels, whole_numbers, whole_numbers)
tickers = st.builds(Ticker, times, *[st.none() | prices for _ in range(6)])
trades = st.lists(st.builds(Trade, words, times, prices, prices), max_size=5)


@given(book=st.none() | books, ticker=tickers, some=trades, status=statuses)
def test_quotes_come_back(
    book: OrderBook | None, ticker: Ticker, some: list[Trade], status: Status | None
) -> None:
    for kind, quote in ((Kind.BOOK, book), (Kind.TICKER, ticker), (Kind.TRADES, some)):
        event = QuoteEvent(quote, status)

        assert QuoteEvent.unpacked(kind, event.packed()) == event


@given(
    kind=st.sampled_from([Kind.BOOK, Kind.TICKER, Kind.TRADES]),
    value=st.binary(max_size=40)
    | jsons.map(orjson.dumps)
    | st.tuples(st.just(1), jsons, jsons).map(orjson.dumps),
)
def test_no_bytes_are_taken_for_quotes_they_are_not(kind: Kind, value: bytes) -> None:
    # It either is an event or is known for none; it never raises.
    event = QuoteEvent.unpacked(kind, value)

    assert event is None or isinstance(event, QuoteEvent)
