"""What cannot be had is a gap with its reason, and a failure never reads as emptiness."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from datasources.found import Answer, GapReason
from market.clock import FixedClock
from market.errors import ProviderUnavailable, UnknownName
from market.instrument import Session
from market.timeframe import DAY_FRAME
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import NativeFrame, Trade
from tests.datasources.chains import NOW, RUNNING, Opener, on_embedded
from tests.fakes import Call, FakeProvider, Market, days_before, minutes_between

pytestmark = on_embedded

LISTED = days_before(NOW, 20)
HOUR_NOW = NOW // HOUR * HOUR


def listed(market: Market | None = None, **options: Any) -> FakeProvider:
    options = {"offered_from": LISTED, "page_limit": 1000} | options
    market = market or Market.of(minutes_between(LISTED, NOW))
    return FakeProvider(FixedClock(NOW), {uuid4().hex: market}, **options)


def gaps(answer: Answer) -> list[tuple[int, int, GapReason]]:
    return [(gap.since, gap.until, gap.reason) for gap in answer.gaps]


async def test_minutes_without_trades_are_told_apart_from_all_else(open_process: Opener) -> None:
    quiet = RUNNING - 2 * HOUR
    market = Market.of(m for m in minutes_between(LISTED, NOW) if not quiet <= m < quiet + HOUR)
    async with open_process(listed(market)) as opened:
        answer = await opened.get("1m", since=quiet - HOUR, until=quiet + 2 * HOUR)

    assert gaps(answer) == [(quiet, quiet + HOUR, GapReason.NO_TRADES)]
    assert len(answer.bars) == 120


async def test_time_before_the_first_bar_and_after_now_have_reasons_of_their_own(
    open_process: Opener,
) -> None:
    async with open_process(listed()) as opened:
        answer = await opened.get("1m", since=LISTED - DAY, until=LISTED + HOUR)
        ahead = await opened.get("1m", since=RUNNING, until=RUNNING + HOUR)
        past = await opened.get("1h", since=LISTED - 10 * DAY, until=LISTED - 9 * DAY)
        future = await opened.get("1h", since=HOUR_NOW + 5 * HOUR, until=HOUR_NOW + 9 * HOUR)

    assert gaps(answer) == [(LISTED - DAY, LISTED, GapReason.BEFORE_FIRST)]
    assert gaps(ahead) == [(RUNNING + MINUTE, RUNNING + HOUR, GapReason.AFTER_LAST)]
    assert ahead.bars.time.tolist() == [RUNNING]
    assert gaps(past) == [(LISTED - 10 * DAY, LISTED - 9 * DAY, GapReason.BEFORE_FIRST)]
    assert gaps(future) == [(HOUR_NOW + 5 * HOUR, HOUR_NOW + 9 * HOUR, GapReason.AFTER_LAST)]
    assert not answer.has_earlier and not past.has_earlier


async def test_time_between_sessions_is_closed_and_quiet_time_inside_them_is_not(
    open_process: Opener,
) -> None:
    monday = 1_711_978_200_000  # 2024-04-01 13:30 UTC
    first_hour = monday + HOUR
    market = Market.of(
        m
        for n in range(2)
        for m in minutes_between(monday + n * DAY, monday + n * DAY + 390 * MINUTE)
        if not first_hour <= m < first_hour + HOUR
    )
    provider = listed(market, offered_from=monday - 10 * DAY, calendar_name="XNYS")
    async with open_process(provider) as opened:
        request = {"since": monday - HOUR, "until": monday + DAY + HOUR}
        regular = await opened.get("1h", session=Session.REGULAR, **request)
        days = await opened.get("1d", since=monday - 3 * DAY, until=monday + DAY)

    close = monday + 390 * MINUTE
    assert gaps(regular) == [
        (monday - HOUR, monday, GapReason.SESSION_CLOSED),
        (first_hour, first_hour + HOUR, GapReason.NO_TRADES),
        (close, monday + DAY, GapReason.SESSION_CLOSED),
    ]
    # Good Friday, and the weekend.
    assert [reason for _, _, reason in gaps(days)] == [GapReason.SESSION_CLOSED]
    assert len(days.bars) == 2


async def test_closed_sessions_are_never_asked_for(open_process: Opener) -> None:
    saturday = 1_711_756_800_000  # 2024-03-30 00:00 UTC
    provider = listed(
        Market.of(minutes_between(saturday - 20 * HOUR, saturday - 4 * HOUR)),
        offered_from=saturday - 10 * DAY,
        calendar_name="XNYS",
    )
    async with open_process(provider) as opened:
        answer = await opened.get(
            "1h", session=Session.REGULAR, since=saturday, until=saturday + 2 * DAY
        )

    assert gaps(answer) == [(saturday, saturday + 2 * DAY, GapReason.SESSION_CLOSED)]
    assert provider.calls == []


async def test_what_the_provider_does_not_have_is_not_offered(open_process: Opener) -> None:
    provider = listed(offered_from=NOW // DAY * DAY - 5 * DAY, minutes=False)
    async with open_process(provider) as opened:
        answer = await opened.get("1h", since=RUNNING - DAY, until=RUNNING)

    assert len(answer.bars) == 0
    assert [reason for _, _, reason in gaps(answer)] == [GapReason.NOT_OFFERED]


async def test_more_pages_than_allowed_are_not_fetched_and_said_so(open_process: Opener) -> None:
    provider = listed(page_limit=60)
    async with open_process(provider, max_pages=3) as opened:
        since = HOUR_NOW - 12 * HOUR
        answer = await opened.get("1m", since=since, until=HOUR_NOW)
        assert len(provider.calls) == 3
        rest = await opened.get("1m", since=since, until=HOUR_NOW)

    assert gaps(answer) == [(since, HOUR_NOW - 3 * HOUR, GapReason.NOT_FETCHED)]
    assert answer.bars.time.tolist() == list(minutes_between(HOUR_NOW - 3 * HOUR, HOUR_NOW))
    # The next request goes on from there.
    assert gaps(rest) == [(since, HOUR_NOW - 6 * HOUR, GapReason.NOT_FETCHED)]


@pytest.mark.parametrize("timeframe", ["1m", "7m", "1h", "1d"])
@pytest.mark.parametrize("cut", [{"last": 5}, {"since": RUNNING - 5 * DAY}], ids=["last", "since"])
async def test_a_provider_that_fails_is_an_error_and_never_an_empty_list(
    open_process: Opener, timeframe: str, cut: dict[str, int]
) -> None:
    provider = listed()
    provider.failing = lambda call: True
    async with open_process(provider) as opened:
        failed = await opened.try_get(timeframe, **cut)
        provider.failing = lambda call: False
        recovered = await opened.get(timeframe, **cut)

    assert isinstance(failed, ProviderUnavailable)
    assert failed.provider == "fake"
    assert len(recovered.bars) >= 5
    assert recovered.bars.is_closed[:-1].all()


async def test_of_a_window_whose_part_fails_the_rest_is_answered(open_process: Opener) -> None:
    provider = listed(page_limit=60)
    broken = HOUR_NOW - 3 * HOUR
    provider.failing = lambda call: call.window.since == broken
    async with open_process(provider) as opened:
        cut = {"since": HOUR_NOW - 5 * HOUR, "until": HOUR_NOW}
        partly = await opened.get("1m", **cut)
        provider.failing = lambda call: False
        whole = await opened.get("1m", **cut)

    assert gaps(partly) == [(broken, broken + HOUR, GapReason.PROVIDER_UNAVAILABLE)]
    assert len(partly.bars) == 240
    assert gaps(whole) == []
    assert len(whole.bars) == 300


async def test_what_the_store_has_is_answered_while_the_provider_is_away(
    open_process: Opener,
) -> None:
    provider = listed()
    async with open_process(provider) as opened:
        await opened.get("1h", since=HOUR_NOW - 10 * HOUR, until=HOUR_NOW)
        await opened.flush()
        provider.failing = lambda call: True
    async with open_process(provider) as opened:
        settled = await opened.get("1h", since=HOUR_NOW - 5 * HOUR, until=HOUR_NOW)
        with_forming = await opened.get("1h", since=HOUR_NOW - 5 * HOUR)

    assert len(settled.bars) == 5 and settled.gaps == []
    assert with_forming.bars == settled.bars
    assert gaps(with_forming) == [
        (HOUR_NOW, HOUR_NOW + HOUR, GapReason.PROVIDER_UNAVAILABLE),
    ]


async def test_a_page_that_was_cut_leaves_a_gap_that_is_asked_for_again(
    open_process: Opener,
) -> None:
    provider = listed()
    cut_off = HOUR_NOW - 2 * HOUR
    provider.withheld = Spans.of(cut_off, cut_off + 30 * MINUTE)
    async with open_process(provider) as opened:
        cut = {"since": HOUR_NOW - 3 * HOUR, "until": HOUR_NOW}
        partly = await opened.get("1m", **cut)
        hours = await opened.get("1h", **cut)
        provider.withheld = Spans()
        opened.clock.at += 1000
        whole = await opened.get("1m", **cut)

    assert gaps(partly) == [(cut_off, cut_off + 30 * MINUTE, GapReason.PROVIDER_UNAVAILABLE)]
    assert len(partly.bars) == 150
    # Never a bar made of half its minutes.
    assert hours.bars.time.tolist() == [HOUR_NOW - 3 * HOUR, HOUR_NOW - HOUR]
    assert gaps(hours) == [(cut_off, cut_off + HOUR, GapReason.PROVIDER_UNAVAILABLE)]
    assert gaps(whole) == [] and len(whole.bars) == 180


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d", "1M"])
async def test_a_window_of_a_thousand_years_costs_few_calls(
    open_process: Opener, timeframe: str
) -> None:
    thousand = 1000 * 365 * DAY
    provider = listed(page_limit=10_000)
    async with open_process(provider) as opened:
        answer = await opened.get(timeframe, since=NOW - thousand, until=NOW + thousand, last=100)
        old = await opened.get(timeframe, since=NOW - thousand, until=NOW - thousand // 2)

    assert len(answer.bars) > 0
    assert len(provider.calls) <= 5
    assert answer.gaps[-1].reason is GapReason.AFTER_LAST
    assert len(old.bars) == 0
    assert [reason for _, _, reason in gaps(old)] == [GapReason.BEFORE_FIRST]


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1w"])
async def test_a_listing_that_never_traded_is_empty_and_costs_few_calls(
    open_process: Opener, timeframe: str
) -> None:
    provider = listed(Market(), page_limit=10_000)
    async with open_process(provider) as opened:
        answer = await opened.get(timeframe, last=500)

    assert len(answer.bars) == 0
    assert not answer.has_earlier
    reasons = [reason for _, _, reason in gaps(answer)]
    # The bar around the first minute can never be whole.
    assert reasons in ([GapReason.NO_TRADES], [GapReason.NOT_FETCHED, GapReason.NO_TRADES])
    assert len(provider.calls) <= 10


async def test_a_listing_of_the_future_has_nothing_yet(open_process: Opener) -> None:
    async with open_process(listed(Market(), offered_from=NOW + DAY)) as opened:
        answer = await opened.get("1h", since=NOW - DAY)

    assert len(answer.bars) == 0
    assert all(gap.since < gap.until for gap in answer.gaps)


class Trading(FakeProvider):
    """A provider that has single trades: one at the start of every minute it knows."""

    async def trades(self, listing: Any, window: Any) -> list[Trade]:
        self.entered.set()
        self.asked_trades = [*getattr(self, "asked_trades", []), window]
        rows = self.markets[listing.symbol].seen_at(self.clock.now(), window)
        return [Trade(str(m), m, r.open, r.volume) for m, r in rows.items()]


async def test_frames_under_a_minute_come_from_trades_and_from_few_calls(
    open_process: Opener,
) -> None:
    market = Market.of(minutes_between(LISTED, NOW))
    provider = Trading(FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED)
    async with open_process(provider, max_pages=3) as opened:
        seconds = await opened.get("1s", since=RUNNING - 5 * MINUTE, until=RUNNING)
        tens = await opened.get("10s", last=4)
        far = await opened.get("1s", since=RUNNING - 10 * DAY, until=RUNNING, last=10)

    assert seconds.bars.time.tolist() == [RUNNING - n * MINUTE for n in (5, 4, 3, 2, 1)]
    assert seconds.bars.open.tolist() == [market.rows[t].open for t in seconds.bars.time.tolist()]
    assert tens.bars.time.tolist() == [RUNNING - n * MINUTE for n in (3, 2, 1, 0)]
    assert far.bars.time.tolist() == [RUNNING - n * MINUTE for n in range(10, 0, -1)]
    assert len(provider.asked_trades) <= 12


async def test_frames_under_a_minute_without_trades_are_not_offered(open_process: Opener) -> None:
    async with open_process(listed()) as opened:
        answer = await opened.get("1s", since=RUNNING - MINUTE, until=RUNNING)

    assert gaps(answer) == [(RUNNING - MINUTE, RUNNING, GapReason.NOT_OFFERED)]
    assert opened.provider.calls == []


@pytest.mark.parametrize("timeframe", ["1m", "1h"])
async def test_a_symbol_taken_off_the_list_fails_alone(
    open_process: Opener, timeframe: str
) -> None:
    provider = listed()
    gone = uuid4().hex
    provider.markets[gone] = Market.of(())

    def refused(call: Call) -> bool:
        if call.listing.symbol == gone:
            raise UnknownName("symbol", gone, field="symbol")
        return False

    provider.failing = refused
    async with open_process(provider) as opened:
        there, not_there = await opened.chain.answer(
            [opened.request(timeframe, last=5), opened.request(timeframe, last=5, symbol=gone)]
        )

    assert isinstance(there, Answer) and len(there.bars) == 5
    assert isinstance(not_there, ProviderUnavailable)


async def test_bars_that_open_off_their_grid_fail_alone(open_process: Opener) -> None:
    provider = listed()
    slanted = uuid4().hex
    half_past = (minute + MINUTE // 2 for minute in minutes_between(LISTED, NOW - HOUR))
    provider.markets[slanted] = Market.of(half_past)
    async with open_process(provider) as opened:
        there, not_there = await opened.chain.answer(
            [opened.request("1m", last=500), opened.request("1m", last=500, symbol=slanted)]
        )

    assert isinstance(there, Answer) and len(there.bars) == 500
    assert isinstance(not_there, ProviderUnavailable)


async def test_time_before_1970_is_answered_as_any_other(open_process: Opener) -> None:
    start = -5 * 365 * DAY
    market = Market.of(minutes_between(start, start + 3 * HOUR))
    async with open_process(listed(market, offered_from=start, whole=True)) as opened:
        minutes = await opened.get("1m", since=start, until=start + 4 * HOUR)
        hours = await opened.get("1h", since=start, until=start + 4 * HOUR)

    assert minutes.bars.time.tolist() == list(minutes_between(start, start + 3 * HOUR))
    assert gaps(minutes) == [(start + 3 * HOUR, start + 4 * HOUR, GapReason.NO_TRADES)]
    assert len(hours.bars) == 3


async def test_days_of_years_whose_sessions_are_not_known_are_not_taken_for_closed(
    open_process: Opener,
) -> None:
    # A Thursday of 1964, 15:00 UTC.
    traded = -2000 * DAY + 15 * HOUR
    provider = listed(
        Market.of(minutes_between(traded, traded + HOUR)),
        natives=[NativeFrame(DAY_FRAME, timezone=None)],
        natives_from=traded - 9 * DAY,
        minutes=False,
        calendar_name="XNYS",
    )
    async with open_process(provider) as opened:
        answer = await opened.get("1d", since=traded - 2 * DAY, until=traded + 2 * DAY)

    assert len(answer.bars) == 1
    assert {gap.reason for gap in answer.gaps} == {GapReason.NO_TRADES}


async def test_many_holes_of_a_page_are_asked_for_with_one_call(open_process: Opener) -> None:
    provider = listed()
    cut = {"since": HOUR_NOW - 5 * HOUR, "until": HOUR_NOW - 4 * HOUR}
    holes = minutes_between(cut["since"], cut["until"], every=2)
    provider.withheld = Spans(Window(minute, minute + MINUTE) for minute in holes)
    async with open_process(provider) as opened:
        partly = await opened.get("1m", **cut)
        provider.withheld = Spans()
        provider.calls.clear()
        opened.clock.at += HOUR

        whole = await opened.get("1m", **cut)

    assert len(partly.bars) == 30
    assert len(whole.bars) == 60
    assert set(whole.bars.revision.tolist()) == {1}
    assert len(provider.calls) <= 2
