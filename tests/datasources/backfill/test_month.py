"""A month of recorded minutes with holes: filled while it is read, all aggregates are exact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from datasources.found import Answer, Request
from db.backfills import BackfillState
from db.candles import CandleStore
from db.pool import open_pool
from db.stored import SeriesFacts, SeriesKey, Write
from market.bars import CLOSED
from market.calendars import calendar
from market.clock import FixedClock
from market.instrument import Instrument, Listing, Series
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, MINUTE, Spans, Window
from plugins.replay.clock import Anchor
from plugins.replay.provider import ReplayProvider
from plugins.replay.recordings import load
from tests.acceptance.recomputation import Bucket, read, recompute
from tests.datasources.backfill.stage import Stage, opened_stage
from tests.datasources.chains import on_each
from tests.db.minutes import assert_views_exact, rows_of

pytestmark = on_each

NAME = "binance_BTCUSDT"
SINCE = 1_735_689_600_000
"""2025-01-01 UTC, the first minute of the recording."""
UNTIL = SINCE + 31 * DAY
NOW = UNTIL + DAY
WATCHED = UNTIL - 3 * DAY
"""Charts show the newest days; what is older only the backfill asks for."""


@pytest.fixture
async def replay(recordings: Path, tmp_path: Path) -> ReplayProvider:
    file = recordings / f"{NAME}_1m_202501.csv"
    (tmp_path / file.name).symlink_to(file)
    return ReplayProvider(
        await load(tmp_path), base=FixedClock(NOW), anchor=Anchor(NOW, NOW, Decimal(0))
    )


async def test_random_holes_of_a_month_are_filled_while_queries_go_on(
    replay: ReplayProvider,
    recordings: Path,
    fresh_store_url: str,
    redis: Redis,
    redis_prefix: str,
) -> None:
    rows = read(recordings / f"{NAME}_1m_202501.csv")
    newest = [row for row in rows if row.time >= WATCHED]
    truth = {frame: recompute(newest, frame) for frame in ("1m", "7m", "15m", "1h", "4h", "1d")}
    instrument = next(i for i in await replay.symbols() if i.symbol == NAME)
    listing = Listing("replay", "crypto", NAME, dataset=replay.description.dataset)
    key = SeriesKey(listing, MINUTE_FRAME)
    edges = sorted(random.Random(20250131).sample(range(SINCE, UNTIL, MINUTE), 200))
    holes = Spans(Window(*pair) for pair in zip(edges[::2], edges[1::2], strict=True))
    minutes = series_of(listing, instrument, "1m")
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(fresh_store_url))
        store = CandleStore(pool)
        stage = await stack.enter_async_context(
            opened_stage(replay, store, pool, redis, redis_prefix)
        )
        await keep(store, replay, listing, Spans.of(SINCE, UNTIL) - holes)

        started = await stage.service.start(
            instrument, minutes, Window(SINCE, UNTIL), idempotency_key="a month"
        )
        running = asyncio.create_task(stage.runner.run(started.id))
        asked = 0
        while not running.done():
            for timeframe, expected in truth.items():
                await check(stage, series_of(listing, instrument, timeframe), instrument, expected)
                asked += 1
        await running

        ended = await stage.again(started)
        assert (ended.state, ended.reason) == (BackfillState.DONE, None)
        assert ended.holes == ended.done == holes.total
        assert asked
        stored = await rows_of(pool, key)
        assert {time: minute.close for time, minute in stored.items()} == {
            row.time: row.close for row in rows if row.time in stored or row.time < UNTIL
        }
        await assert_views_exact(pool, key)
        assert (await store.states([key]))[0].known.holds(Window(SINCE, UNTIL))


def series_of(listing: Listing, instrument: Instrument, timeframe: str) -> Series:
    return Series(
        listing,
        Timeframe.parse(timeframe),
        timezone=calendar(instrument.calendar).zone,
        calendar=instrument.calendar,
    )


async def keep(store: CandleStore, replay: ReplayProvider, listing: Listing, spans: Spans) -> None:
    """Store what was recorded of *spans*."""
    facts = SeriesFacts(around_the_clock=True)
    for window in spans:
        page = await replay.bars(listing, MINUTE_FRAME, window)
        bars = page.bars.with_columns(flags=page.bars.flags | CLOSED)
        one = Spans((window,))
        key = SeriesKey(listing, MINUTE_FRAME)
        await store.write([Write(key, facts, bars, NOW - 1, one, one)])


async def check(
    stage: Stage, series: Series, instrument: Instrument, truth: Sequence[Bucket]
) -> None:
    """Compare what is answered with the recomputation: nothing is ever a part of the truth."""
    request = Request(series, instrument, WATCHED, UNTIL, 50_000, False)
    (answer,) = await stage.links.chain.answer([request])
    assert isinstance(answer, Answer), answer
    expected = [bucket for bucket in truth if bucket.opens < UNTIL and bucket.closes <= NOW]
    bars = answer.bars
    assert bars.time.tolist() == [bucket.opens for bucket in expected]
    prices = zip(bars.open, bars.high, bars.low, bars.close, strict=True)
    assert [tuple(map(float, each)) for each in prices] == [b.prices for b in expected]
    assert bars.volume.tolist() == pytest.approx([b.volume for b in expected], rel=1e-12, abs=0)
