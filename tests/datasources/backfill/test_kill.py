"""A process that runs a backfill is killed at any moment; another one goes on where it stopped."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from db.backfills import BackfillState
from market.window import MINUTE, Window
from tests.datasources.backfill.child import PAGE, SINCE, market_of
from tests.datasources.backfill.stage import SETTLED, StageOpener, until
from tests.datasources.chains import NOW, on_each

pytestmark = on_each


@pytest.mark.parametrize("deaths", [1, 4])
async def test_a_killed_backfill_goes_on_and_asks_for_nothing_twice_that_was_stored(
    open_stage: StageOpener,
    store_url: str,
    redis: Redis,
    redis_url: str,
    redis_prefix: str,
    tmp_path: Path,
    deaths: int,
) -> None:
    symbol, calls = uuid4().hex, tmp_path / "calls"
    calls.touch()

    async def child() -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.datasources.backfill.child"),
            *(store_url, redis_url, redis_prefix, symbol, str(started.id), str(calls)),
        )

    async with open_stage(market_of(symbol)) as stage:
        started = await stage.start(SINCE, NOW)
        stored_at_death: list[set[int]] = []
        for death in range(deaths):
            seen = _lines(calls)
            process = await child()
            try:
                await until(lambda seen=seen, p=process: _lines(calls) > seen + 4 or _gone(p))
            finally:
                process.kill()
                await process.wait()
            # What the dead held in Redis ends by itself, half a minute later.
            async for lock in redis.scan_iter(f"{redis_prefix}lock:*"):
                await redis.delete(lock)
            stored = await stage.bars(Window(SINCE, SETTLED))
            stored_at_death.append({time // (PAGE * MINUTE) for time in stored.time.tolist()})
            assert not (await stage.again(started)).state.over, f"it ended before death {death}"
            await until(lambda: _orphaned(stage, started.id))

        before = _lines(calls)
        await stage.runner.run(started.id)

        ended = await stage.again(started)
        assert (ended.state, ended.reason) == (BackfillState.DONE, None)
        assert ended.done == ended.holes
        rows = stage.provider.markets[symbol].rows
        bars = await stage.bars(Window(SINCE, SETTLED))
        assert bars.time.tolist() == [minute for minute in sorted(rows) if minute < SETTLED]
        assert bars.revision.tolist() == [1] * len(bars)
        asked_again = {window.since // (PAGE * MINUTE) for window in stage.asked()}
        running = (NOW - 1) // (PAGE * MINUTE)
        assert not asked_again & (set.union(*stored_at_death) - {running})
        # Two pages are under way at each death; all others are asked for once.
        pages = (NOW - SINCE) // (PAGE * MINUTE) + 2
        assert before + len(stage.asked()) <= pages + 3 * deaths


def _lines(file: Path) -> int:
    return file.read_text().count("\n")


def _gone(process: Process) -> bool:
    return process.returncode is not None


async def _orphaned(stage: object, id: object) -> bool:
    return id in await stage.backfills.orphans()
