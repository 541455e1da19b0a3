"""Writers, refreshers and readers at once: each reader's aggregates are those of its minutes."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import asyncpg
import numpy as np

from db.stored import Wanted
from db.timescale import Refresher
from market.bars import VOID, Bars
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Spans
from tests.db.minutes import (
    ALWAYS,
    VIEWS,
    Minute,
    as_aggregates,
    assert_same,
    fresh_key,
    minutes,
    put,
    recomputed,
)
from tests.db.timescale.kept import Kept

START = round(datetime(2024, 3, 31, tzinfo=UTC).timestamp() * 1000)


def model_of(bars: Bars) -> dict[int, Minute]:
    """What `recomputed` takes, of minutes as they were read."""
    return {
        int(bars.time[i]): Minute(
            open=float(bars.open[i]),
            high=float(bars.high[i]),
            low=float(bars.low[i]),
            close=float(bars.close[i]),
            volume=float(bars.volume[i]),
            vwap=None if np.isnan(bars.vwap[i]) else float(bars.vwap[i]),
            trades=None if bars.trades[i] < 0 else int(bars.trades[i]),
            revision=int(bars.revision[i]),
            void=bool(bars.flags[i] & VOID),
            observed_at=0,
        )
        for i in range(len(bars))
    }


async def test_every_snapshot_agrees_with_itself_while_others_write_and_refresh(
    own: Kept,
) -> None:
    keys = [fresh_key() for _ in range(2)]
    now = round((await own.pool.fetchval("SELECT now()")).timestamp() * 1000) // MINUTE * MINUTE
    starts = [START - DAY, START, START + 40 * DAY, now - 3 * HOUR, now - 65 * MINUTE, now]
    for key in keys:
        await put(own.store, key, minutes([START + n * MINUTE for n in range(100)]))

    async def write(seed: int) -> None:
        rng = random.Random(seed)
        for turn in range(25):
            start = rng.choice(starts) + rng.randrange(300) * MINUTE
            times = [start + n * MINUTE for n in range(rng.choice([1, 5, 90]))]
            await put(own.store, rng.choice(keys), minutes(times, close=rng.randint(1, 99)), 2**41)
            if turn % 7 == 6:
                gone = Spans.of(start, start + 3 * MINUTE)
                await put(own.store, rng.choice(keys), minutes([]), 2**41 + turn, covered=gone)

    async def run_policies(seed: int) -> None:
        rng = random.Random(seed)
        while True:
            try:
                await own.run_policy(rng.choice(list(VIEWS)))
            except asyncpg.LockNotAvailableError:
                await asyncio.sleep(0.01)  # another one refreshes the same just now

    async def refresh() -> None:
        while own.timescale:
            await Refresher(own.url).refresh(onward=True)

    others = [asyncio.create_task(refresh())]
    if own.timescale:
        others.append(asyncio.create_task(run_policies(1)))
    writers = [asyncio.create_task(write(seed)) for seed in range(3)]
    looks = 0
    try:
        while not all(writer.done() for writer in writers):
            for key in keys:
                views = [None, *map(Timeframe.parse, VIEWS)]
                found = await own.store.snapshot([Wanted(key, ALWAYS, view) for view in views])
                rows = model_of(found[0].bars)
                for view, read in zip(VIEWS, found[1:], strict=True):
                    assert_same(recomputed(rows, view), as_aggregates(read.bars.visible()))
                looks += 1
        await asyncio.gather(*writers)
    finally:
        for task in others:
            task.cancel()
        ended = await asyncio.gather(*others, return_exceptions=True)

    assert [type(end) for end in ended if end is not None] == (
        [asyncio.CancelledError] * len(others) if own.timescale else []
    )
    assert looks > 2
    await own.refresh(onward=True)
    assert await own.marks() == 0
    await own.assert_exact(*keys)
