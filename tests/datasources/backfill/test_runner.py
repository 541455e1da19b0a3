"""Jobs survive what interrupts them, end when they are told to, and run once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from datasources.backfill.patience import Patience
from datasources.backfill.sweeper import Sweeper
from db.backfills import Backfill, BackfillState
from db.candles import CandleStore
from db.pool import open_pool
from market.clock import FixedClock
from market.errors import ProviderUnavailable, StoreUnavailable, UnknownName
from market.instrument import Instrument, Listing
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import Page
from tests.datasources.backfill.stage import SETTLED, Stage, StageOpener, opened_stage, until
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.fakes import Call, FakeProvider, Market, minutes_between, row

pytestmark = on_embedded

PAGE = 100
SINCE = RUNNING - DAY
PAGES = DAY // (PAGE * MINUTE) + 2


def market(*, every: int = 1, **options: object) -> FakeProvider:
    rows = Market.of(minutes_between(SINCE - DAY, NOW, every=every))
    return FakeProvider(FixedClock(NOW), {uuid4().hex: rows}, page_limit=PAGE, **options)


async def test_a_job_that_is_delivered_twice_runs_once(open_stage: StageOpener) -> None:
    provider = market()
    async with open_stage(provider) as here, open_stage(provider) as there:
        started = await here.start(SINCE, NOW)

        await asyncio.gather(
            here.runner.run(started.id), here.runner.run(started.id), there.runner.run(started.id)
        )
        await here.runner.run(started.id)

        assert (await here.again(started)).state is BackfillState.DONE
        assert len(here.asked()) <= PAGES


async def test_a_cancelled_job_ends_within_the_page_it_waits_for(open_stage: StageOpener) -> None:
    provider = market()
    provider.gate = asyncio.Event()
    async with open_stage(provider) as here, open_stage(provider) as there:
        started = await here.start(SINCE, NOW)
        running = asyncio.create_task(here.runner.run(started.id))
        await provider.entered.wait()

        cancelled = await there.service.cancel(started.id)
        await asyncio.wait_for(running, 20)

        assert cancelled is not None
        assert (cancelled.state, cancelled.reason) == (BackfillState.CANCELLED, "CANCELLED")
        assert (await here.again(started)).state is BackfillState.CANCELLED
        provider.gate.set()
        assert len(here.asked()) <= 2


async def test_what_was_stored_before_a_cancellation_stays_and_is_not_asked_for_again(
    open_stage: StageOpener,
) -> None:
    provider = market()
    async with open_stage(provider, parallel=1) as stage:
        started = await stage.start(SINCE, NOW)
        calls = iter(range(1000))
        cancelled = asyncio.Event()

        def fail(call: Call) -> bool:
            if next(calls) == 5:
                cancelled.set()
            return False

        provider.failing = fail
        running = asyncio.create_task(stage.runner.run(started.id))
        await cancelled.wait()
        await stage.service.cancel(started.id)
        await running
        before = stage.asked()

        ended = await stage.filled(SINCE, NOW)

        assert len(before) < PAGES - 2
        assert ended.state is BackfillState.DONE
        assert len(stage.asked()) <= PAGES + 1


async def test_a_provider_that_fails_for_a_moment_is_asked_again(open_stage: StageOpener) -> None:
    provider = market()
    failures = iter([True, True, *[False] * 1000])
    provider.failing = lambda call: not call.window.empty and next(failures)
    async with open_stage(provider, patience=Patience(attempts=6, first=0.001)) as stage:
        ended = await stage.filled(SINCE, NOW)

        assert (ended.state, ended.reason) == (BackfillState.DONE, None)


class Unlisting(FakeProvider):
    """Says what it lists only while it is not *silent*."""

    silent = False

    async def symbols(self) -> Sequence[Instrument]:
        if self.silent:
            raise ProviderUnavailable("fake", "told to fail")
        return await super().symbols()


async def test_a_job_whose_provider_fails_rests_and_goes_on_when_it_is_back(
    open_stage: StageOpener,
) -> None:
    provider = market()
    reached = SETTLED - 5 * HOUR
    provider.failing = lambda call: call.window.length > 0 and call.window.until <= reached
    async with open_stage(provider, parallel=1) as stage:
        started = await stage.start(SINCE, NOW)
        await stage.runner.run(started.id)
        rests = await stage.again(started)
        provider.failing = lambda call: False
        await until(lambda: _run_again(stage, started))
        ended = await stage.again(started)

        assert (rests.state, rests.reason) == (BackfillState.QUEUED, None)
        assert rests.message is not None
        assert "fake" in rests.message
        assert 0 < rests.done < rests.holes
        assert (ended.state, ended.reason, ended.message) == (BackfillState.DONE, None, None)
        assert len(await stage.bars(Window(SINCE, SETTLED))) == (SETTLED - SINCE) // MINUTE


async def test_a_job_rests_if_the_provider_cannot_even_say_what_it_lists(
    open_stage: StageOpener,
) -> None:
    rows = Market.of(minutes_between(SINCE, NOW))
    provider = Unlisting(FixedClock(NOW), {uuid4().hex: rows}, page_limit=PAGE)
    async with open_stage(provider) as stage:
        started = await stage.start(SINCE, NOW)
        provider.silent = True
        await stage.runner.run(started.id)
        rests = await stage.again(started)
        provider.silent = False
        await until(lambda: _run_again(stage, started))

        assert rests.state is BackfillState.QUEUED
        assert (await stage.again(started)).state is BackfillState.DONE


async def test_a_job_that_rests_is_neither_enqueued_nor_run(open_stage: StageOpener) -> None:
    provider = market()
    provider.failing = lambda call: True
    patience = Patience(attempts=1, longest=3_600)
    async with open_stage(provider, patience=patience) as stage:
        started = await stage.start(SINCE, NOW)
        await stage.runner.run(started.id)
        asked = len(provider.firsts), len(provider.calls)

        await stage.runner.run(started.id)

        assert (await stage.again(started)).state is BackfillState.QUEUED
        assert started.id not in await stage.backfills.orphans()
        assert (len(provider.firsts), len(provider.calls)) == asked


class Deferring(FakeProvider):
    """Asks whoever wants a page to come again in three hours."""

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        raise ProviderUnavailable("fake", "rate limited", retry_after=10_800.0)


async def test_a_job_rests_for_as_long_as_its_provider_asks(
    open_stage: StageOpener, pool: asyncpg.Pool
) -> None:
    rows = Market.of(minutes_between(SINCE, NOW))
    provider = Deferring(FixedClock(NOW), {uuid4().hex: rows}, page_limit=PAGE)
    async with open_stage(provider, patience=Patience()) as stage:
        rests = await stage.filled(SINCE, NOW)

        seconds = await pool.fetchval(
            "SELECT extract(epoch FROM held_until - updated_at) FROM backfill WHERE id = $1",
            rests.id,
        )
        assert rests.state is BackfillState.QUEUED
        assert 10_800 <= seconds < 10_830


async def test_a_job_that_rested_asks_once_whether_the_provider_is_back(
    open_stage: StageOpener,
) -> None:
    provider = market()
    provider.failing = lambda call: True
    async with open_stage(
        provider, patience=Patience(attempts=3, first=0.001, longest=0.001)
    ) as stage:
        started = await stage.start(SINCE, NOW)
        await stage.runner.run(started.id)
        first = len(provider.firsts)

        async def asked_again() -> bool:
            await stage.runner.run(started.id)
            return len(provider.firsts) > first

        await until(asked_again)

        assert (first, len(provider.firsts)) == (3, 4)
        assert (await stage.again(started)).state is BackfillState.QUEUED


async def test_a_job_that_rests_can_be_cancelled(open_stage: StageOpener) -> None:
    provider = market()
    provider.failing = lambda call: True
    async with open_stage(provider) as stage:
        started = await stage.start(SINCE, NOW)
        await stage.runner.run(started.id)

        cancelled = await stage.service.cancel(started.id)

        assert cancelled is not None
        assert (cancelled.state, cancelled.message) == (BackfillState.CANCELLED, None)


async def test_a_provider_that_failed_for_long_enough_ends_the_job_and_what_came_stays(
    open_stage: StageOpener,
) -> None:
    provider = market()
    reached = SETTLED - 5 * HOUR
    provider.failing = lambda call: call.window.length > 0 and call.window.until <= reached
    patience = Patience(attempts=3, first=0.001, longest=0.01, enough=0)
    async with open_stage(provider, parallel=1, patience=patience) as stage:
        ended = await stage.filled(SINCE, NOW)

        assert ended.state is BackfillState.FAILED
        assert ended.reason == "PROVIDER_UNAVAILABLE"
        assert ended.message is not None
        assert "fake" in ended.message
        assert 0 < ended.done < ended.holes
        bars = await stage.bars(Window(SINCE, SETTLED))
        assert len(bars) > 0


class Forgetful(FakeProvider):
    """Does not know what it lists any more, from the fourth call for a page on."""

    forgets = False

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        if self.forgets:
            self.firsts.append(timeframe)
            raise UnknownName("symbol", listing.symbol, field="symbol")
        return await super().first_time(listing, timeframe, since)

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        page = await super().bars(listing, timeframe, window)
        if len(self.calls) < 4:
            return page
        self.forgets = True
        raise UnknownName("symbol", listing.symbol, field="symbol")


async def test_a_symbol_that_is_taken_off_the_list_meanwhile_ends_the_job_at_once(
    open_stage: StageOpener,
) -> None:
    rows = Market.of(minutes_between(SINCE - DAY, NOW))
    provider = Forgetful(FixedClock(NOW), {uuid4().hex: rows}, page_limit=PAGE)
    async with open_stage(provider, parallel=1) as stage:
        ended = await stage.filled(SINCE, NOW)
        before = len(provider.firsts)
        again = await stage.filled(SINCE, NOW)

        assert (ended.state, ended.reason) == (BackfillState.FAILED, "NOT_LISTED")
        assert "Unknown symbol" in str(ended.message)
        assert 0 < ended.done < ended.holes
        assert (again.state, again.reason) == (BackfillState.FAILED, "NOT_LISTED")
        # Neither a page nor a beginning is asked for twice.
        assert (len(provider.calls), len(provider.firsts)) == (4, before + 1)


async def test_bars_that_cannot_be_true_end_the_job_only_after_the_rest_is_filled(
    open_stage: StageOpener,
) -> None:
    provider = market()
    rows = provider.markets[next(iter(provider.markets))].rows
    wrong = SETTLED - 5 * HOUR
    true = rows[wrong]
    rows[wrong] = replace(true, high=true.low - 1)
    async with open_stage(provider) as stage:
        ended = await stage.filled(SINCE, NOW)
        known = (await stage.state()).known
        page = Window(wrong // (PAGE * MINUTE) * PAGE * MINUTE, wrong + MINUTE)
        rows[wrong] = true
        mended = await stage.filled(SINCE, NOW)

        assert (ended.state, ended.reason) == (BackfillState.FAILED, "INVALID_BARS")
        assert str(wrong) in str(ended.message)
        missing = Spans.of(SINCE, SETTLED) - known
        assert missing.hull.since == page.since
        assert missing.total == PAGE * MINUTE
        assert (mended.state, mended.reason) == (BackfillState.DONE, None)


class Withholding(FakeProvider):
    """Says of the time that it *keeps* to itself that it does not offer it."""

    keeps = Spans()

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        page = await super().bars(listing, timeframe, window)
        kept = self.keeps & Spans((window,))
        bars = page.bars.take(~kept.contains(page.bars.time))
        return Page(bars, page.covered - kept, page.not_offered | kept)


@pytest.mark.parametrize("answer", ["silence", "a refusal"])
async def test_answers_that_tell_nothing_new_keep_no_failing_job_alive(
    open_stage: StageOpener, answer: str
) -> None:
    rows = Market.of(minutes_between(SINCE - DAY, NOW))
    provider = Withholding(FixedClock(NOW), {uuid4().hex: rows}, page_limit=PAGE)
    again_and_again = Spans.of(SETTLED - 3 * HOUR, SETTLED - 3 * HOUR + 10 * MINUTE)
    if answer == "silence":
        provider.withheld = again_and_again
    else:
        provider.keeps = again_and_again
    reached = SETTLED - 5 * HOUR
    provider.failing = lambda call: call.window.length > 0 and call.window.until <= reached
    patience = Patience(attempts=2, first=0.001, longest=0.01, most=0.02, enough=0.5)
    async with open_stage(provider, parallel=1, patience=patience) as stage:
        started = await stage.start(SINCE, NOW)
        await until(lambda: _run_again(stage, started))

        ended = await stage.again(started)
        assert (ended.state, ended.reason) == (BackfillState.FAILED, "PROVIDER_UNAVAILABLE")
        assert 0 < ended.done < ended.holes


async def test_one_page_tells_that_the_provider_of_a_job_that_rested_still_fails(
    open_stage: StageOpener,
) -> None:
    provider = market()
    provider.failing = lambda call: call.window.length > 0
    patience = Patience(attempts=1, longest=0.001)
    async with open_stage(provider, parallel=4, patience=patience) as stage:
        started = await stage.start(SINCE, NOW)
        await stage.runner.run(started.id)
        first = len(provider.calls)

        async def asked_again() -> bool:
            await stage.runner.run(started.id)
            return len(provider.calls) > first

        await until(asked_again)

        assert len(provider.calls) == first + 1
        assert (await stage.again(started)).state is BackfillState.QUEUED


async def test_a_job_that_nobody_runs_is_found_and_run_again(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        started = await stage.start(SINCE, NOW)
        found: list = []

        async def enqueue(id: object) -> None:
            found.append(id)

        sweeper = Sweeper(stage.backfills, stage.runner, enqueue=enqueue)
        claim = await stage.backfills.claim(started.id, seconds=0.05)
        assert claim is not None
        await until(lambda: _sweep(sweeper, found, started.id))

        await stage.runner.run(started.id)

        assert (await stage.again(started)).state is BackfillState.DONE


async def _sweep(sweeper: Sweeper, found: list, id: object) -> bool:
    found.clear()
    await sweeper.sweep()
    return id in found


async def test_a_job_that_is_held_is_not_enqueued(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        started = await stage.start(SINCE, NOW)

        await stage.backfills.claim(started.id, seconds=60)

        assert started.id not in await stage.backfills.orphans()


async def test_a_runner_that_is_stopped_gives_the_job_back_at_once(
    open_stage: StageOpener,
) -> None:
    provider = market()
    provider.gate = asyncio.Event()
    async with open_stage(provider) as stage:
        started = await stage.start(SINCE, NOW)
        running = asyncio.create_task(stage.runner.run(started.id))
        await provider.entered.wait()

        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        provider.gate.set()
        await stage.runner.run(started.id)

        assert (await stage.again(started)).state is BackfillState.DONE


async def test_a_runner_whose_job_was_taken_over_changes_nothing_any_more(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market()) as stage:
        started = await stage.start(SINCE, NOW)
        former = await stage.backfills.claim(started.id, seconds=0)
        assert former is not None
        await until(lambda: _claimed(stage, started))

        noted = await stage.backfills.progress(former, holes=5, done=5, bars=5)
        ended = await stage.backfills.finish(former, BackfillState.FAILED)
        renewed = await stage.backfills.renew(former, seconds=60)

        assert (noted, ended, renewed) == (None, None, False)
        assert (await stage.again(started)).bars == 0


async def _claimed(stage: object, backfill: object) -> bool:
    return await stage.backfills.claim(backfill.id, seconds=60) is not None


async def test_a_symbol_that_is_not_listed_any_more_ends_the_job(open_stage: StageOpener) -> None:
    provider = market()
    async with open_stage(provider) as stage:
        started = await stage.start(SINCE, NOW)
        provider.markets["OTHER"] = provider.markets.pop(stage.symbol)

        await stage.runner.run(started.id)

        ended = await stage.again(started)
        assert (ended.state, ended.reason) == (BackfillState.FAILED, "NOT_LISTED")


async def test_a_minute_that_came_late_is_found_by_one_more_look(open_stage: StageOpener) -> None:
    provider = market(every=7)
    late = min(m for m in minutes_between(SETTLED - HOUR, SETTLED) if (m - SINCE) // MINUTE % 7)
    async with open_stage(provider, again_in=0) as stage:
        assert late not in provider.markets[stage.symbol].rows
        ended = await stage.filled(SINCE, NOW)
        provider.markets[stage.symbol].rows[late] = row(late)
        provider.clock.at += 2 * HOUR
        calls = len(stage.asked())

        looked = await stage.runner.look_again()
        again = await stage.runner.look_again()

        assert ended.state is BackfillState.DONE
        assert (looked, again) == (True, False)
        assert (await stage.bars(Window(late, late + MINUTE))).time.tolist() == [late]
        assert calls < len(stage.asked()) <= calls + PAGES


async def test_only_recent_time_is_looked_at_again(open_stage: StageOpener) -> None:
    provider = market(every=7)
    async with open_stage(provider, again_in=0) as stage:
        await stage.filled(SINCE - 2 * HOUR, SINCE - HOUR)
        calls = len(stage.asked())

        looked = await stage.runner.look_again()

        assert not looked
        assert len(stage.asked()) == calls


async def test_a_look_that_fails_is_taken_again_later(open_stage: StageOpener) -> None:
    provider = market(every=7)
    async with open_stage(provider, again_in=0) as stage:
        await stage.filled(SINCE, NOW)
        provider.failing = lambda call: True
        assert await stage.runner.look_again()
        provider.failing = lambda call: False

        looked = await stage.runner.look_again()

        assert looked
        assert not await stage.runner.look_again()


async def test_a_job_whose_store_went_away_goes_on_when_it_is_back(
    open_stage: StageOpener, store_url: str, redis: Redis, redis_prefix: str
) -> None:
    provider = market()
    async with open_pool(store_url) as lost:
        calls = iter(range(1000))

        def fail(call: Call) -> bool:
            if not call.window.empty and next(calls) == 5:
                lost.terminate()
            return False

        store = CandleStore(lost)
        away = opened_stage(provider, store, lost, redis, redis_prefix, lease=0.2)
        async with away as here, open_stage(provider) as there:
            started = await here.start(SINCE, NOW)
            provider.failing = fail
            with pytest.raises(StoreUnavailable):
                await here.runner.run(started.id)
            assert (await there.again(started)).state is BackfillState.RUNNING
            await until(lambda: _run_again(there, started))

            assert (await there.again(started)).state is BackfillState.DONE
            assert len(there.asked()) <= PAGES + 4


async def _run_again(stage: Stage, backfill: Backfill) -> bool:
    await stage.runner.run(backfill.id)
    return (await stage.again(backfill)).state.over


async def test_a_bug_ends_the_job_and_says_nothing_of_itself(open_stage: StageOpener) -> None:
    provider = market()

    def fail(call: Call) -> bool:
        raise ZeroDivisionError("secret")

    async with open_stage(provider) as stage:
        started = await stage.start(SINCE, NOW)
        provider.failing = fail

        await stage.runner.run(started.id)

        ended = await stage.again(started)
        assert (ended.state, ended.reason) == (BackfillState.FAILED, "INTERNAL")
        assert "secret" not in str(ended.message)
