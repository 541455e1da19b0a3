"""A backfill closes every hole of its window, the newest first, and asks for nothing twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import uuid4

import pytest

from datasources.backfill.service import NothingToFill
from datasources.fetching import Fetched, Fetcher
from datasources.found import Answer, Request
from db.backfills import BackfillState
from market.bars import Bars
from market.clock import FixedClock
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import NativeFrame
from tests.datasources.backfill.stage import SETTLED, StageOpener
from tests.datasources.chains import NOW, RUNNING, on_each, on_embedded
from tests.datasources.recount import bars_of
from tests.fakes import FakeProvider, Market, minutes_between

PAGE = 100
SINCE = RUNNING // DAY * DAY - 2 * DAY
CHUNK = PAGE * MINUTE


def market_since(since: int, *, every: int = 1, **options: object) -> FakeProvider:
    """Trades every so many minutes since then."""
    rows = Market.of(minutes_between(since, NOW, every=every))
    options.setdefault("page_limit", PAGE)
    return FakeProvider(FixedClock(NOW), {uuid4().hex: rows}, **options)


@on_each
async def test_every_hole_is_closed_and_what_was_stored_is_not_asked_for(
    open_stage: StageOpener,
) -> None:
    provider = market_since(SINCE, every=3)
    cut = random.Random(5)
    edges = sorted(cut.sample(range(SINCE, SETTLED, MINUTE), 20))
    stored = [Window(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]
    async with open_stage(provider) as stage:
        await stage.store_minutes(*stored)

        ended = await stage.filled(SINCE, NOW)

        bars = await stage.bars(Window(SINCE, SETTLED))
        rows = provider.markets[stage.symbol].rows
        assert bars.time.tolist() == [minute for minute in sorted(rows) if minute < SETTLED]
        assert bars.close.tolist() == [
            rows[minute].close for minute in sorted(rows) if minute < SETTLED
        ]
        assert ended.state is BackfillState.DONE
        assert ended.reason is None
        assert ended.window == Window(SINCE, SETTLED)
        missing = Spans.of(SINCE, SETTLED) - Spans(stored)
        assert ended.holes == ended.done == missing.total
        first = SINCE // CHUNK * CHUNK
        asked_for = sum(not any(w.since <= m < w.until for w in stored) for m in bars.time.tolist())
        # The running page reaches past the window, and the oldest begins before it.
        assert asked_for <= ended.bars <= asked_for + (SINCE - first + NOW - SETTLED) // MINUTE
        # Each page is asked for once, a page of one or two holes hole by hole.
        assert len(stage.asked()) <= len({w.since // CHUNK for w in stage.asked()}) + len(stored)


@on_embedded
async def test_the_newest_chunk_comes_first(open_stage: StageOpener) -> None:
    async with open_stage(market_since(SINCE), parallel=1) as stage:
        await stage.filled(SINCE, NOW)

        asked = stage.asked()
        assert len(asked) > 20
        assert asked == sorted(asked, reverse=True)


@on_embedded
async def test_a_window_without_holes_is_refused(open_stage: StageOpener) -> None:
    async with open_stage(market_since(SINCE)) as stage:
        await stage.filled(SINCE, NOW)

        with pytest.raises(NothingToFill):
            await stage.start(SINCE + HOUR, NOW)


@on_embedded
async def test_minutes_without_trades_are_known_and_not_asked_for_again(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market_since(SINCE, every=50)) as stage:
        await stage.filled(SINCE, NOW)

        state = await stage.state()

        assert state.known.holds(Window(SINCE, SETTLED))


@on_embedded
async def test_closed_sessions_are_no_holes(open_stage: StageOpener) -> None:
    provider = market_since(SINCE - 5 * DAY, calendar_name="XNYS")
    async with open_stage(provider) as stage:
        saturday = NOW // DAY * DAY - 6 * DAY
        opening = saturday + 2 * DAY + 8 * HOUR

        ended = await stage.filled(saturday, opening + HOUR)

        assert ended.state is BackfillState.DONE
        assert ended.holes <= HOUR
        assert len(stage.asked()) <= 2


@on_embedded
async def test_a_provider_of_its_newest_bars_only_is_not_asked_in_vain(
    open_stage: StageOpener,
) -> None:
    provider = market_since(SINCE, offered_from=RUNNING - 2 * HOUR)
    async with open_stage(provider) as stage:
        ended = await stage.filled(SINCE - 100 * DAY, NOW)

        assert (ended.state, ended.reason) == (BackfillState.DONE, "NEWEST_ONLY")
        assert ended.done == ended.holes
        assert len(stage.asked()) <= 3
        bars = await stage.bars(Window(SINCE - 100 * DAY, NOW))
        assert bars.time[0] == RUNNING - 2 * HOUR


@on_embedded
async def test_what_lies_before_the_listing_is_not_asked_for(open_stage: StageOpener) -> None:
    days = NativeFrame(Timeframe.parse("1d"))
    listed = SINCE + 3 * HOUR
    provider = market_since(listed, offered_from=listed, natives=(days,), natives_from=SINCE)
    async with open_stage(provider) as stage:
        ended = await stage.filled(SINCE - 300 * DAY, NOW)

        assert (ended.state, ended.reason) == (BackfillState.DONE, "BEFORE_FIRST")
        assert len(stage.asked()) <= (NOW - listed) // CHUNK + 2


@on_embedded
async def test_a_part_that_the_provider_leaves_out_is_told_and_the_rest_is_filled(
    open_stage: StageOpener,
) -> None:
    provider = market_since(SINCE)
    provider.withheld = Spans.of(SINCE + 10 * HOUR, SINCE + 10 * HOUR + MINUTE)
    async with open_stage(provider) as stage:
        ended = await stage.filled(SINCE, NOW)

        assert (ended.state, ended.reason) == (BackfillState.DONE, "INCOMPLETE")
        state = await stage.state()
        assert Spans.of(SINCE, SETTLED) - state.known == provider.withheld


@on_embedded
async def test_a_backfill_moves_the_beginning_of_minutes_and_days_are_made_of_them(
    open_stage: StageOpener,
) -> None:
    days = NativeFrame(Timeframe.parse("1d"))
    provider = market_since(SINCE, natives=(days,), natives_from=SINCE)
    async with open_stage(provider, max_pages=2) as stage:
        ended = await stage.filled(SINCE, NOW)

        assert ended.state is BackfillState.DONE
        # Whole pages are asked for, so that the oldest begins before the window.
        assert (await stage.state()).minutes_from == SINCE // CHUNK * CHUNK


@on_embedded
async def test_a_backfill_that_leaves_a_hole_moves_the_beginning_only_up_to_it(
    open_stage: StageOpener,
) -> None:
    hole = Window(SINCE + 10 * HOUR, SINCE + 10 * HOUR + MINUTE)
    provider = market_since(SINCE)
    provider.withheld = Spans((hole,))
    async with open_stage(provider, max_pages=2) as stage:
        await stage.filled(SINCE, NOW)

        assert (await stage.state()).minutes_from == hole.until


@on_embedded
async def test_a_backfill_of_a_window_apart_moves_nothing_until_the_rest_is_filled(
    open_stage: StageOpener,
) -> None:
    async with open_stage(market_since(SINCE), max_pages=2) as stage:
        await stage.filled(SINCE, SINCE + 5 * HOUR)
        apart = (await stage.state()).minutes_from

        await stage.filled(SINCE + 5 * HOUR, NOW)

        assert apart is not None
        assert apart > SINCE + DAY
        assert (await stage.state()).minutes_from == SINCE // CHUNK * CHUNK


@on_embedded
async def test_days_answered_after_a_backfill_equal_the_recomputation(
    open_stage: StageOpener,
) -> None:
    days = NativeFrame(Timeframe.parse("1d"))
    provider = market_since(SINCE, natives=(days,), natives_from=SINCE)
    async with open_stage(provider, max_pages=2) as stage:
        request = Request(
            stage.series("1d"), provider.instrument(stage.symbol), SINCE, None, 10, False
        )
        await stage.links.chain.answer([request])

        await stage.filled(SINCE, NOW)

        (answer,) = await stage.links.chain.answer([request])
        assert isinstance(answer, Answer)
        rows = provider.markets[stage.symbol].seen_at(NOW)
        expected = bars_of(rows, "1d", "UTC", now=NOW, minutes_from=0)
        assert answer.bars.volume.tolist() == pytest.approx(
            [bar.volume for bar in expected][: len(answer.bars)], rel=1e-12
        )
        assert len(answer.bars) == 2


class NotingFetcher:
    """Passes on to a fetcher, and tells when it was asked."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self.asked = asyncio.Event()

    async def fetch(self, *given: Any, **options: Any) -> Fetched:
        self.asked.set()
        return await self._fetcher.fetch(*given, **options)


@on_embedded
async def test_a_backfill_asks_for_no_page_while_a_chart_waits_for_one(
    open_stage: StageOpener,
) -> None:
    provider = market_since(SINCE, whole=True)
    async with open_stage(provider) as stage:
        started = await stage.start(SINCE, NOW)
        noting = NotingFetcher(stage.links.fetcher)
        runner = stage.runner_with(fetcher=noting)
        provider.gate = asyncio.Event()
        page = Window(SINCE - CHUNK, SINCE).aligned(CHUNK)
        chart = asyncio.create_task(
            stage.links.fetcher.fetch(stage.ask, page, Spans(), Bars.empty())
        )
        await provider.entered.wait()
        running = asyncio.create_task(runner.run(started.id))
        await noting.asked.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        meanwhile = stage.asked()
        provider.gate.set()
        await chart
        await running

        assert meanwhile == [page]
        assert (await stage.again(started)).state is BackfillState.DONE
        assert len(stage.asked()) > 20
