"""Where the store makes the bars of a bucket, it sends one for each, and answers stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from datasources.aggregates import made_by_store
from datasources.compose import Stock, buckets_in, compose
from datasources.found import Base
from db.candles import CandleStore
from db.stored import Found, Wanted
from market.bars import CLOSED, Bars
from market.calendars import calendar
from market.clock import FixedClock
from market.instrument import Listing, Series, Session
from market.resample import resample
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from tests.datasources.chains import NOW, on_each, opened_chain
from tests.fakes import FakeProvider, Market, minutes_between

LISTED = NOW // DAY * DAY - 12 * DAY
CLOCKS_CHANGE = 1_710_028_800_000
"""2024-03-10, when New York's clocks change."""
LISTING = Listing("fake", "stocks", "AAPL")
BASE = Base(LISTING, MINUTE_FRAME, native=False)


class CountingStore(CandleStore):
    """Counts the bars that come out of the store."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.bars_sent = 0

    async def snapshot(self, wanted: Sequence[Wanted]) -> list[Found]:
        found = await super().snapshot(wanted)
        self.bars_sent += sum(len(one.bars) for one in found)
        return found


def stock(timeframe: str, zone: str, session: Session) -> Series:
    return Series(LISTING, Timeframe.parse(timeframe), zone, session, "XNYS")


@on_each
@pytest.mark.parametrize(
    ("calendar_name", "cut"),
    [
        ("24/7", {"timeframe": "7m"}),
        ("XNYS", {"timeframe": "1h", "session": Session.REGULAR}),
        ("XNYS", {"timeframe": "1d", "session": Session.REGULAR}),
        ("XNYS", {"timeframe": "1d", "session": Session.EXTENDED}),
        ("XNYS", {"timeframe": "1d"}),
    ],
    ids=str,
)
async def test_the_store_sends_as_many_bars_as_there_are_buckets(
    pool: asyncpg.Pool, redis: Redis, redis_prefix: str, calendar_name: str, cut: dict[str, Any]
) -> None:
    trading = calendar(calendar_name).open_spans(Window(LISTED, NOW), Session.ALL)
    every = np.array(minutes_between(LISTED, NOW))
    market = Market.of(every[trading.contains(every)].tolist())
    provider = FakeProvider(
        FixedClock(NOW),
        {uuid4().hex: market},
        offered_from=LISTED,
        page_limit=15_000,
        calendar_name=calendar_name,
    )
    window = {"since": LISTED + DAY, "until": LISTED + 10 * DAY}
    async with opened_chain(provider, CandleStore(pool), redis, redis_prefix) as first:
        fetched = await first.get(**cut, **window)
        await first.flush()
    provider.calls.clear()
    store = CountingStore(pool)

    async with opened_chain(provider, store, redis, redis_prefix) as later:
        stored = await later.get(**cut, **window)

    assert provider.calls == []
    assert store.bars_sent == len(stored.bars) > 5
    for column in ("time", "open", "high", "low", "close", "trades", "revision", "flags"):
        assert getattr(stored.bars, column).tolist() == getattr(fetched.bars, column).tolist()
    for column in ("volume", "vwap"):
        assert getattr(stored.bars, column) == pytest.approx(
            getattr(fetched.bars, column), rel=1e-12
        )


@settings(deadline=None)
@given(
    timeframe=st.sampled_from(["7m", "30m", "1h", "5h", "1d", "3d", "1w", "1M"]),
    zone=st.sampled_from(["America/New_York", "UTC", "Europe/Berlin", "Asia/Tokyo"]),
    session=st.sampled_from(list(Session)),
    since=st.integers(-20 * 24, 20 * 24),
    hours=st.integers(1, 30 * 24),
    at=st.lists(st.integers(-30 * 24 * 60, 50 * 24 * 60), unique=True, max_size=150).map(sorted),
    every=st.integers(11, 400),
)
def test_bars_made_first_compose_to_those_composed_of_minutes(
    timeframe: str,
    zone: str,
    session: Session,
    since: int,
    hours: int,
    at: list[int],
    every: int,
) -> None:
    series = stock(timeframe, zone, session)
    start = CLOCKS_CHANGE + since * HOUR
    now = CLOCKS_CHANGE + 400 * DAY
    buckets = buckets_in(series, Spans.of(start, start + hours * HOUR))
    more = range(-20 * 24 * 60, 50 * 24 * 60, every)
    times = np.unique(np.array([*at, *more], np.int64)) * MINUTE + CLOCKS_CHANGE
    price = 100.0 + np.arange(len(times)) % 7
    minutes = Bars.of(
        times,
        price,
        price + 1,
        price - 1,
        price,
        price,
        vwap=price,
        trades=np.arange(len(times)),
        revision=np.arange(1, len(times) + 1),
        updated=times + MINUTE,
        flags=CLOSED,
    )
    known = Spans.of(CLOCKS_CHANGE - 400 * DAY, now)
    if not len(buckets):
        return
    made = made_by_store(series, BASE, None, buckets)

    of_minutes = compose(series, buckets, Stock(BASE, minutes, known, known, now))
    bars = minutes if made is None else resample(minutes, made, now=now)
    of_made = compose(series, buckets, Stock(BASE, bars, known, known, now))

    assert of_made.bars.vwap == pytest.approx(of_minutes.bars.vwap, rel=1e-12)
    vwap = of_minutes.bars.vwap
    assert of_made.bars.with_columns(vwap=vwap) == of_minutes.bars
    # Elsewhere a session of New York may go on over midnight.
    assert made is not None or (zone != "America/New_York" and session is not Session.ALL)


@pytest.mark.parametrize(
    ("timeframe", "base"),
    [
        ("5m", BASE),
        ("1d", Base(LISTING, Timeframe.parse("1h"), native=True)),
    ],
    ids=str,
)
def test_few_stored_bars_a_bucket_are_sent_as_they_are(timeframe: str, base: Base) -> None:
    series = stock(timeframe, "America/New_York", Session.ALL)
    buckets = buckets_in(series, Spans.of(CLOCKS_CHANGE, CLOCKS_CHANGE + 3 * DAY))

    assert made_by_store(series, base, None, buckets) is None
