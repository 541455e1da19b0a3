"""What runs now is shown as forming, soon replaced, and never stored as final."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import numpy as np
import pytest

from datasources.found import Want
from datasources.plan import bases_of
from db.stored import Wanted
from market.clock import FixedClock
from market.window import HOUR, MINUTE, Spans, Window
from tests.datasources.chains import NOW, RUNNING, SETTLE, Opened, Opener, on_embedded
from tests.datasources.recount import assert_says, bars_of
from tests.fakes import FakeProvider, Market, days_before, minutes_between, row

pytestmark = on_embedded

LISTED = days_before(NOW, 2)
ALWAYS = Window(-(1 << 62), 1 << 62)


def trading(**options: object) -> FakeProvider:
    """A market that trades every minute, up to hours after now."""
    market = Market.of(minutes_between(LISTED, NOW + 5 * HOUR))
    return FakeProvider(FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, **options)


def expected(opened: Opened, timeframe: str) -> list:
    now = opened.clock.now()
    rows = opened.provider.markets[opened.symbol].seen_at(now)
    return bars_of(rows, timeframe, "UTC", now=now, minutes_from=LISTED)


async def stored_times(opened: Opened) -> list[int]:
    (found,) = await opened.store.snapshot([Wanted(opened.key, ALWAYS)])
    return found.bars.time.tolist()


class Hurrying(FixedClock):
    """A clock by which more than a minute passes between two looks: a slow machine's."""

    def now(self) -> int:
        self.at += MINUTE + 30_000
        return super().now()


async def test_an_answer_tells_of_all_that_closed_by_the_time_it_is_as_of(
    open_process: Opener,
) -> None:
    market = Market.of(minutes_between(LISTED, NOW + 5 * HOUR))
    provider = FakeProvider(Hurrying(NOW), {uuid4().hex: market}, offered_from=LISTED)
    async with open_process(provider) as opened:
        answer = await opened.get("1m", last=100)

    told = set(answer.bars.closed().time.tolist())
    for gap in answer.gaps:
        told |= set(range(gap.since, gap.until, MINUTE))
    assert {m for m in range(min(told), answer.as_of, MINUTE) if m + MINUTE <= answer.as_of} <= told


@pytest.mark.parametrize("timeframe", ["1m", "7m", "1h"])
async def test_a_forming_bar_says_so_and_its_closing_values_follow(
    open_process: Opener, timeframe: str
) -> None:
    async with open_process(trading()) as opened:
        forming = await opened.get(timeframe, last=2)
        assert_says(forming, expected(opened, timeframe)[-2:])
        assert forming.bars.is_closed.tolist() == [True, False]
        assert forming.bars.revision.tolist()[1] == 0 or timeframe != "1m"

        opened.clock.at += 2 * HOUR
        later = await opened.get(timeframe, since=int(forming.bars.time[1]), last=10_000)

    final = later.bars.take(slice(0, 1))
    assert final.is_closed.all()
    assert_says(later, [b for b in expected(opened, timeframe) if b.time >= final.time[0]])
    assert (final.revision > 0).all()


async def test_the_minute_that_runs_is_not_stored(open_process: Opener) -> None:
    async with open_process(trading()) as opened:
        await opened.get("1m", last=5)
        at_first = await stored_times(opened)
        opened.clock.at += MINUTE
        await opened.get("1m", last=5)

        assert max(at_first) == RUNNING - MINUTE
        assert max(await stored_times(opened)) == RUNNING


async def test_a_forming_bar_is_at_most_its_time_to_live_old(open_process: Opener) -> None:
    async with open_process(trading(), forming_ttl=1) as opened:
        first = await opened.get("1m", last=1)
        calls = len(opened.provider.calls)
        opened.clock.at += 999
        same = await opened.get("1m", last=1)
        assert len(opened.provider.calls) == calls

        opened.clock.at += 1
        fresh = await opened.get("1m", last=1)

    assert same.bars == first.bars
    assert same.as_of == NOW
    assert len(opened.provider.calls) == calls + 1
    assert fresh.bars.close[0] != first.bars.close[0]
    assert_says(fresh, expected(opened, "1m")[-1:])


@pytest.mark.parametrize("timeframe", ["1m", "5m", "1h"])
async def test_a_late_trade_within_settle_is_fetched(open_process: Opener, timeframe: str) -> None:
    provider = trading()
    (market,) = provider.markets.values()
    late = RUNNING - MINUTE
    market.late[late] = 90_000
    async with open_process(provider) as opened:
        early = await opened.get(timeframe, last=8)
        assert_says(early, expected(opened, timeframe)[-8:])

        opened.clock.at = late + MINUTE + SETTLE
        after = await opened.get(timeframe, last=8)
        assert_says(after, expected(opened, timeframe)[-8:])

    if timeframe == "1m":
        at = np.flatnonzero(after.bars.time == late)
        assert after.bars.revision[at].tolist() == [2]
        assert after.bars.volume[at] != early.bars.volume[early.bars.time == late]


async def test_what_was_looked_at_later_than_settle_is_not_asked_for_again(
    open_process: Opener,
) -> None:
    market = Market.of(minutes_between(LISTED, NOW - HOUR))
    provider = FakeProvider(FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED)
    async with open_process(provider) as opened:
        quiet = {"since": RUNNING - 30 * MINUTE, "until": RUNNING - 10 * MINUTE}
        first = await opened.get("1m", **quiet)
        calls = len(provider.calls)
        assert calls > 0

        for _ in range(3):
            opened.clock.at += HOUR
            await opened.flush()
            assert (await opened.get("1m", **quiet)).gaps == first.gaps

    assert len(first.bars) == 0
    assert len(provider.calls) == calls


async def test_what_was_looked_at_sooner_than_settle_is_asked_for_once_more(
    open_process: Opener,
) -> None:
    async with open_process(trading()) as opened:
        young = {"since": RUNNING - MINUTE, "until": RUNNING}
        await opened.get("1m", **young)
        assert len(opened.provider.calls) == 1

        for _ in range(3):
            opened.clock.at += SETTLE
            await opened.get("1m", **young)

    assert len(opened.provider.calls) == 2


async def test_only_what_is_not_settled_is_asked_of_the_provider(open_process: Opener) -> None:
    async with open_process(trading()) as opened:
        await opened.get("1m", since=RUNNING - 10 * HOUR)
        opened.provider.calls.clear()
        opened.clock.at += 10_000

        await opened.get("1m", since=RUNNING - 10 * HOUR)
        await opened.get("1h", last=9)

    # The younger of the closed minutes, and the one that runs.
    settled = (opened.clock.now() - SETTLE) // MINUTE * MINUTE
    assert opened.provider.asked() == [Window(settled, opened.clock.now())]


async def test_a_bar_without_trades_so_far_is_neither_a_bar_nor_a_gap(
    open_process: Opener,
) -> None:
    market = Market.of([*minutes_between(LISTED, RUNNING), RUNNING + MINUTE])
    provider = FakeProvider(FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED)
    async with open_process(provider) as opened:
        running = await opened.get("1m", since=RUNNING - 2 * MINUTE)
        opened.clock.at += MINUTE
        over = await opened.get("1m", since=RUNNING - 2 * MINUTE)

    assert running.bars.time.tolist() == [RUNNING - 2 * MINUTE, RUNNING - MINUTE]
    assert running.gaps == []
    assert [(gap.since, gap.until) for gap in over.gaps] == [(RUNNING, RUNNING + MINUTE)]
    assert over.bars.time.tolist()[-1] == RUNNING + MINUTE


async def test_a_withdrawn_young_minute_disappears(open_process: Opener) -> None:
    async with open_process(trading()) as opened:
        young = RUNNING - MINUTE
        before = await opened.get("5m", last=2)
        del opened.provider.markets[opened.symbol].rows[young]
        opened.clock.at += SETTLE

        after = await opened.get("5m", since=int(before.bars.time[0]))
        minutes = await opened.get("1m", since=RUNNING - 5 * MINUTE)

        assert_says(after, [b for b in expected(opened, "5m") if b.time >= before.bars.time[0]])
        assert young not in minutes.bars.time.tolist()


async def test_a_corrected_young_minute_is_shown_as_corrected(open_process: Opener) -> None:
    async with open_process(trading()) as opened:
        young = RUNNING - MINUTE
        await opened.get("1m", last=5)
        opened.provider.markets[opened.symbol].rows[young] = row(young, version=1)
        opened.clock.at += 1000

        answer = await opened.get("1m", last=5)

        assert_says(answer, expected(opened, "1m")[-5:])
        assert answer.bars.revision.tolist() == [1, 1, 1, 2, 0]


async def test_the_minute_that_opened_since_an_answer_to_others_is_no_gap(
    open_process: Opener,
) -> None:
    provider = trading()
    provider.clock.at = RUNNING + MINUTE - 100
    async with open_process(provider) as opened:
        provider.gate = asyncio.Event()
        first = asyncio.create_task(opened.get("1m", last=3))
        await provider.entered.wait()
        provider.clock.at += 200
        joined = asyncio.create_task(opened.get("1m", last=3))
        provider.gate.set()
        await first

        answers = [await joined, await opened.get("1m", last=3)]

    for answer in answers:
        assert answer.bars.time.tolist()[-1] in (RUNNING, RUNNING + MINUTE)
        assert answer.gaps == []


async def test_what_runs_is_cached_anew_whenever_it_was_too_old(open_process: Opener) -> None:
    async with open_process(trading()) as opened:
        request = opened.request("1h", last=3)
        await opened.get("1h", last=3)
        opened.clock.at += 1100
        await opened.get("1h", last=3)
        bases = bases_of(request.series, request.instrument, opened.provider)
        hour = Spans.of(NOW // HOUR * HOUR, NOW + MINUTE)

        (found,) = await opened.cache.fetch(
            [Want(request.series, request.instrument, bases, hour, opened.clock.now())]
        )

    assert found.as_of == NOW + 1100
    assert found.bars.is_closed.tolist()[-1] is False
