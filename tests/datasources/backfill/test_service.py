"""Backfills as callers see them: what is refused, what is replayed, and what a watcher is told."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from datasources.backfill.service import UNTIL_NOW, HistoryNotOffered, NothingToFill
from db.backfills import Backfill, BackfillRunning, BackfillState, IdempotencyConflict
from market.clock import FixedClock
from market.errors import BadInput
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, Window
from plugins.base import NativeFrame
from tests.datasources.backfill.stage import SETTLED, Stage, StageOpener, until
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.fakes import FakeProvider, Market, minutes_between

pytestmark = on_embedded

SINCE = RUNNING - DAY


def market(**options: object) -> FakeProvider:
    rows = Market.of(minutes_between(SINCE, NOW, every=5))
    options.setdefault("page_limit", 200)
    return FakeProvider(FixedClock(NOW), {uuid4().hex: rows}, **options)


async def test_a_job_is_enqueued_once(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        first = await stage.start(SINCE, NOW, key="k" + stage.symbol)

        again = await stage.start(SINCE, NOW, key="k" + stage.symbol)

        assert again == first
        assert stage.enqueued == [first.id]
        assert first.state is BackfillState.QUEUED


async def test_the_same_key_gives_the_job_when_time_went_on_and_nothing_is_left(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market()) as stage:
        name = "k" + stage.symbol
        first = await stage.start(SINCE, UNTIL_NOW, key=name)
        await stage.runner.run(first.id)
        stage.provider.clock.at += HOUR

        again = await stage.start(SINCE, UNTIL_NOW, key=name)

        assert again.id == first.id
        assert again.state is BackfillState.DONE


async def test_the_same_key_for_another_timeframe_is_another_input(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market()) as stage:
        name = "k" + stage.symbol
        await stage.start(SINCE, NOW, key=name)

        with pytest.raises(IdempotencyConflict):
            await stage.start(SINCE, NOW, key=name, timeframe="1h")


async def test_a_second_job_of_a_series_is_refused_and_names_the_first(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market()) as stage:
        first = await stage.start(SINCE, NOW)

        # Hours are made of minutes: it would fill the same.
        with pytest.raises(BackfillRunning) as refusal:
            await stage.start(SINCE, NOW - HOUR, timeframe="1h")

        assert refusal.value.running.id == first.id
        assert stage.enqueued == [first.id]


async def test_the_window_ends_with_what_is_settled(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        started = await stage.start(SINCE, UNTIL_NOW)

        assert started.window == Window(SINCE, SETTLED)
        assert (started.timeframe, started.native) == (MINUTE_FRAME, False)


async def test_a_series_without_minutes_is_filled_with_native_bars(open_stage: StageOpener) -> None:
    days = NativeFrame(Timeframe.parse("1d"))
    async with open_stage(market(minutes=False, natives=(days,))) as stage:
        started = await stage.start(SINCE - 20 * DAY, UNTIL_NOW, timeframe="1w")
        await stage.runner.run(started.id)

        ended = await stage.again(started)
        assert (ended.timeframe, ended.native) == (days.timeframe, True)
        assert (ended.state, ended.reason) == (BackfillState.DONE, None)
        assert ended.window == Window((SINCE - 20 * DAY) // DAY * DAY, RUNNING // DAY * DAY)


@pytest.mark.parametrize(
    ("since", "until"),
    [(NOW, UNTIL_NOW), (NOW + DAY, UNTIL_NOW), (SINCE, SINCE), (SINCE, SINCE - 1)],
)
async def test_a_window_without_settled_time_is_refused(
    open_stage: StageOpener, since: int, until: int
) -> None:
    async with open_stage(market()) as stage:
        with pytest.raises(BadInput) as refusal:
            await stage.start(since, until)

        assert refusal.value.field == "since"


async def test_a_window_of_too_many_bars_is_refused(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        with pytest.raises(BadInput, match="20,000,000"):
            await stage.start(NOW - 40 * 366 * DAY, NOW)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b"])
async def test_a_key_that_cannot_be_kept_is_refused(open_stage: StageOpener, key: str) -> None:
    async with open_stage(market()) as stage:
        with pytest.raises(BadInput) as refusal:
            await stage.service.start(
                stage.provider.instrument(stage.symbol),
                stage.series(),
                Window(SINCE, NOW),
                idempotency_key=key,
            )

        assert refusal.value.field == "idempotencyKey"


async def test_a_series_of_which_nothing_is_offered_is_refused(open_stage: StageOpener) -> None:
    async with open_stage(market(minutes=False)) as stage:
        with pytest.raises(HistoryNotOffered):
            await stage.start(SINCE, NOW)


async def test_all_that_is_known_needs_no_job_unless_minutes_could_begin_earlier(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market(), max_pages=1) as stage:
        await stage.store_minutes(Window(SINCE, SETTLED))
        with pytest.raises(NothingToFill):
            await stage.start(SINCE, NOW)
        await stage.links.beginnings.minutes_from(stage.ask)
        begins = (await stage.state()).minutes_from

        ended = await stage.filled(SINCE, NOW)

        assert begins is not None
        assert begins > SINCE
        assert (ended.state, ended.holes) == (BackfillState.DONE, 0)
        assert stage.asked() == []
        assert (await stage.state()).minutes_from == SINCE


async def test_a_job_waits_in_its_row_where_it_could_not_be_enqueued(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market()) as stage:

        async def fail(id: object) -> None:
            raise ConnectionError

        service = stage.service_with(enqueue=fail)
        started = await service.start(
            stage.provider.instrument(stage.symbol),
            stage.series(),
            Window(SINCE, NOW),
            idempotency_key=uuid4().hex,
        )

        assert started.id in await stage.backfills.orphans()


async def watched(stage: Stage, backfill: Backfill) -> list[Backfill]:
    return [seen async for seen in stage.service.watch(backfill.id)]


async def test_a_watcher_is_told_from_another_process_until_the_job_is_over(
    open_stage: StageOpener,
) -> None:
    provider = market(page_limit=20)
    async with open_stage(provider) as here, open_stage(provider) as there:
        started = await here.start(SINCE, NOW)
        watchers = [asyncio.create_task(watched(there, started)) for _ in range(3)]
        await asyncio.sleep(0)

        await here.runner.run(started.id)
        seen = await asyncio.gather(*watchers)

        for told in seen:
            assert told[-1] == await here.again(started)
            assert told[-1].state is BackfillState.DONE
            assert [each.done for each in told] == sorted(each.done for each in told)
            assert len(told) == len(set(told))


async def test_a_watcher_of_a_job_that_is_over_is_told_once(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        ended = await stage.filled(SINCE, NOW)

        assert await watched(stage, ended) == [ended]


async def test_a_watcher_of_no_job_is_told_nothing(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        assert [seen async for seen in stage.service.watch(uuid4())] == []


async def test_a_watcher_that_left_leaves_nothing_behind(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        started = await stage.start(SINCE, NOW)
        watching = stage.service.watch(started.id)
        first = await anext(watching)
        waiting = asyncio.ensure_future(anext(watching))
        await until(lambda: _watches(started))

        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        await until(lambda: not _watches(started))
        assert first.state is BackfillState.QUEUED


def _watches(backfill: Backfill) -> bool:
    return any(task.get_name() == f"watch {backfill.id}" for task in asyncio.all_tasks())


async def test_a_cancelled_job_ends_its_watchers(open_stage: StageOpener) -> None:
    async with open_stage(market()) as stage:
        started = await stage.start(SINCE, NOW)
        watcher = asyncio.create_task(watched(stage, started))
        await asyncio.sleep(0)

        await stage.service.cancel(started.id)

        told = await asyncio.wait_for(watcher, 20)
        assert told[-1].state is BackfillState.CANCELLED
