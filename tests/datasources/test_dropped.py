"""Bars that were dropped for their age are gaps that say so, and are never fetched again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

import numpy as np
import pytest

from datasources.found import Answer, GapReason
from db.migrations import TIMESCALE, mode_of
from db.pruner import Pruner
from db.timescale import Refresher
from market.bars import NATIVE
from market.calendars import calendar
from market.clock import FixedClock
from market.instrument import Session
from market.retention import Retention
from market.timeframe import DAY_FRAME, MINUTE_FRAME
from market.window import DAY, MINUTE, Window
from plugins.base import NativeFrame
from tests.datasources.chains import NOW, Opened, Opener, on_each, on_embedded
from tests.db.timescale.kept import until
from tests.fakes import FakeProvider, Market, minutes_between

TODAY = NOW // DAY * DAY
LISTED = TODAY - 40 * DAY
LINE = TODAY - 10 * DAY
"""Tuesday 2024-03-26: inside a week and a month."""

MARCH = TODAY - 35 * DAY
COARSER = ("5m", "2h", "1d", "1w", "1M")

Prune = Callable[[Opened], Awaitable[None]]


def provider(*, every: int = 61, page_limit: int = 15_000) -> FakeProvider:
    market = Market.of(minutes_between(LISTED, NOW, every=every))
    return FakeProvider(
        FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, page_limit=page_limit
    )


def stock() -> FakeProvider:
    """Trades in its sessions, and has native days."""
    minutes = np.array(minutes_between(LISTED, NOW, every=7))
    trading = calendar("XNYS").open_spans(Window(LISTED, NOW), Session.ALL)
    return FakeProvider(
        FixedClock(NOW),
        {uuid4().hex: Market.of(minutes[trading.contains(minutes)].tolist())},
        offered_from=LISTED,
        natives=[NativeFrame(DAY_FRAME, timezone=None)],
        natives_from=LISTED,
        page_limit=15_000,
        calendar_name="XNYS",
    )


@pytest.fixture
def prune(store_url: str) -> Prune:
    """Drop the minutes of one listing that are older than ten days."""

    async def drop(opened: Opened) -> None:
        if await mode_of(store_url) == TIMESCALE:
            await until(lambda: Refresher(store_url).refresh(onward=True))
        work = Pruner(
            store_url,
            Retention(((MINUTE_FRAME, 10 * DAY),)),
            clock=FixedClock(NOW),
            ages=lambda listing: listing == opened.key.listing,
        )
        assert await work.prune()
        assert work.postponed == 0
        await opened.flush()
        opened.provider.calls.clear()

    return drop


def reasons(answer: Answer) -> list[tuple[GapReason, int, int]]:
    return [(gap.reason, gap.since, gap.until) for gap in answer.gaps]


@on_embedded
async def test_dropped_minutes_are_a_gap_that_says_so_and_nobody_asks_for_them(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(provider()) as opened:
        before = await opened.get("1m", since=LISTED, until=NOW, last=100_000)
        await prune(opened)

        after = await opened.get("1m", since=LISTED, until=NOW, last=100_000)

        assert after.bars == before.bars.take(before.bars.time >= LINE)
        assert reasons(after)[0] == (GapReason.NOT_KEPT, LISTED, LINE)
        assert GapReason.NOT_KEPT not in {gap.reason for gap in after.gaps[1:]}
        assert all(window.since >= LINE for window in opened.provider.asked())


@on_each
async def test_coarser_bars_come_in_full_from_their_aggregates(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(provider(), cache_bytes=0) as opened:
        window = {"since": LISTED, "until": NOW, "last": 100_000}
        await opened.get("1m", **window)
        before = [await opened.get(timeframe, **window) for timeframe in COARSER]
        await prune(opened)

        after = [await opened.get(timeframe, **window) for timeframe in COARSER]

        assert [answer.bars for answer in after] == [answer.bars for answer in before]
        assert list(map(reasons, after)) == list(map(reasons, before))
        assert opened.provider.asked() == []


@on_embedded
async def test_buckets_that_no_aggregate_makes_up_are_gaps_where_their_minutes_are_gone(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(provider()) as opened:
        cut = {"zone": "America/New_York", "since": LISTED, "until": NOW}
        before = await opened.get("7m", **cut)
        await prune(opened)

        after = await opened.get("7m", **cut)

        # The bucket in which the line lies has lost its first minutes: it is no bar of the rest.
        (dropped,) = [gap for gap in after.gaps if gap.reason is GapReason.NOT_KEPT]
        assert LINE < dropped.until < LINE + 7 * MINUTE
        assert after.bars == before.bars.take(before.bars.time >= dropped.until)
        assert opened.provider.asked() == []


@on_embedded
async def test_a_native_bar_stands_where_the_minutes_of_a_stock_were_dropped(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(stock()) as opened:
        before = await opened.get("1d", since=LISTED, until=NOW)
        await prune(opened)

        after = await opened.get("1d", since=LISTED, until=NOW)
        again = await opened.get("1d", since=LISTED, until=NOW)

        assert after.bars.time.tolist() == before.bars.time.tolist()
        native = (after.bars.flags & NATIVE) != 0
        assert native.tolist() == (after.bars.time < LINE).tolist()
        assert all(window.since >= LINE for window in opened.provider.asked())
        assert len(opened.provider.asked(DAY_FRAME)) == 1
        assert again.bars == after.bars


@on_embedded
async def test_a_provider_that_fails_to_give_the_native_bar_is_what_the_gap_tells_of(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(stock()) as opened:
        await opened.get("1d", since=LISTED, until=NOW)
        await prune(opened)
        opened.provider.failing = lambda call: call.timeframe == DAY_FRAME

        after = await opened.get("1d", since=LISTED, until=NOW)

        told = {gap.reason for gap in after.gaps if gap.until <= LINE}
        assert told == {GapReason.PROVIDER_UNAVAILABLE, GapReason.SESSION_CLOSED}


@on_embedded
async def test_a_hole_after_the_line_is_fetched_for_a_bucket_that_began_before_it(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(provider(page_limit=1440), max_pages=50) as opened:
        await opened.get("1m", since=LISTED, until=TODAY - 5 * DAY, last=100_000)
        await prune(opened)

        answer = await opened.get("1M", since=LISTED, until=NOW)

        rows = opened.provider.markets[opened.symbol].rows
        march = [rows[m] for m in sorted(rows) if MARCH <= m < MARCH + 31 * DAY]
        assert answer.bars.volume[0] == pytest.approx(sum(row.volume for row in march), 1e-12)
        assert answer.bars.open[0] == march[0].open
        assert min(window.since for window in opened.provider.asked()) == TODAY - 5 * DAY


@on_embedded
async def test_the_newest_bars_do_not_depend_on_what_was_dropped(
    open_process: Opener, prune: Prune
) -> None:
    async with open_process(provider(every=7)) as opened:
        await opened.get("1m", since=LISTED, until=NOW, last=100_000)
        before = await opened.get("1m", last=500)
        await prune(opened)

        after = await opened.get("1m", last=500)

        assert after.bars == before.bars
        assert after.has_earlier
        assert opened.provider.asked() == []
