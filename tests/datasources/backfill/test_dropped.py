"""What was dropped for its age is no hole: a backfill begins after it, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from datasources.backfill.service import NothingToFill
from db.backfills import BackfillState
from db.pruner import Pruner
from market.clock import FixedClock
from market.retention import Retention
from market.timeframe import MINUTE_FRAME
from market.window import DAY, HOUR, Window
from tests.datasources.backfill.stage import SETTLED, Stage, StageOpener
from tests.datasources.chains import NOW, on_embedded
from tests.fakes import FakeProvider, Market, minutes_between

pytestmark = on_embedded

TODAY = NOW // DAY * DAY
SINCE = TODAY - 4 * DAY
LINE = TODAY - 2 * DAY

Prune = Callable[[Stage], Awaitable[None]]


@pytest.fixture
def prune(store_url: str) -> Prune:
    """Drop the minutes of one listing that are older than two days."""

    async def drop(stage: Stage) -> None:
        listing = stage.key.listing
        retention = Retention(((MINUTE_FRAME, 2 * DAY),))
        clock = FixedClock(NOW)
        await Pruner(store_url, retention, clock=clock, ages=lambda one: one == listing).prune()

    return drop


def provider() -> FakeProvider:
    market = Market.of(minutes_between(SINCE, NOW, every=11))
    return FakeProvider(FixedClock(NOW), {uuid4().hex: market}, page_limit=700)


async def test_a_window_that_begins_before_the_line_is_filled_from_there_on(
    open_stage: StageOpener, prune: Prune
) -> None:
    async with open_stage(provider()) as stage:
        await stage.store_minutes(Window(SINCE, LINE + 3 * HOUR))
        await prune(stage)

        ended = await stage.filled(SINCE, NOW)

        assert (ended.state, ended.reason) == (BackfillState.DONE, "NOT_KEPT")
        assert ended.message == "Bars before 2024-04-03 are not kept."
        assert ended.holes == ended.done == SETTLED - LINE - 3 * HOUR
        assert min(window.since for window in stage.asked()) == LINE + 3 * HOUR
        bars = await stage.bars(Window(SINCE, SETTLED))
        rows = stage.provider.markets[stage.symbol].rows
        assert bars.time.tolist() == [m for m in sorted(rows) if LINE <= m < SETTLED]


async def test_a_window_all_of_which_was_dropped_has_nothing_to_fill(
    open_stage: StageOpener, prune: Prune
) -> None:
    async with open_stage(provider()) as stage:
        await stage.store_minutes(Window(LINE, LINE + 3 * HOUR))
        await prune(stage)

        with pytest.raises(NothingToFill, match="older than is kept"):
            await stage.start(SINCE, LINE)

        assert stage.asked() == []


async def test_minutes_decide_no_further_back_than_they_are_kept(
    open_stage: StageOpener, prune: Prune
) -> None:
    async with open_stage(provider(), max_pages=1) as stage:
        await stage.store_minutes(Window(SINCE, LINE + 3 * HOUR))
        await prune(stage)

        await stage.filled(SINCE, NOW)

        assert (await stage.state()).minutes_from == LINE
