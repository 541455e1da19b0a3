"""What an export holds is of one instant, and nobody waits for whoever takes it slowly."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from datasources.files.exporting import Bounds, Exported, export_computed, export_stored
from datasources.files.formats import Format
from db.candles import CandleStore
from db.listed import StoredSeries, stored_series
from db.pool import open_pool
from db.stored import SeriesKey
from market.instrument import Series
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE
from tests.db.minutes import T0, fresh_key, minutes, put

pytestmark = pytest.mark.parametrize(
    "server_url", ["embedded", "timescale"], indirect=True, scope="session"
)

LONG = 21_000
"""Minutes that make more than one stretch of hours, and more text than a pipe takes in."""
PATIENCE = 60.0
_TRANSACTIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = $1 AND xact_start IS NOT NULL
"""


@dataclass(frozen=True)
class Kept:
    """A series of minutes in a database."""

    pool: asyncpg.Pool
    url: str
    key: SeriesKey

    async def keep(self, count: int, *, close: float = 10.0, observed_at: int = T0) -> None:
        times = (T0 + np.arange(count) * MINUTE).tolist()
        async with open_pool(self.url) as pool:
            await put(CandleStore(pool), self.key, minutes(times, close), observed_at)

    async def stored(self) -> StoredSeries:
        (stored,) = await stored_series(self.pool, symbol=self.key.listing.symbol)
        return stored

    async def export(
        self, timeframe: str, to: BinaryIO, *, advanced: Callable[[int], None] = lambda _: None
    ) -> Exported:
        frame, stored = Timeframe.parse(timeframe), await self.stored()
        if frame == MINUTE_FRAME:
            return await export_stored(
                self.pool, stored, Bounds(), kind=Format.CSV, to=to, advanced=advanced
            )
        series = Series(self.key.listing, frame, timezone="UTC", calendar="24/7")
        return await export_computed(
            self.pool, series, stored, Bounds(), kind=Format.CSV, to=to, advanced=advanced
        )


@pytest.fixture
def kept(pool: asyncpg.Pool, store_url: str) -> Kept:
    return Kept(pool, store_url, fresh_key())


async def test_computed_bars_are_all_as_they_stood_when_the_export_began(kept: Kept) -> None:
    await kept.keep(LONG)
    before, meanwhile, after = BytesIO(), BytesIO(), BytesIO()
    await kept.export("1h", before)
    pages: list[int] = []

    def meddle(count: int) -> None:
        """Replace all minutes once the first bars were written."""
        pages.append(count)
        if len(pages) == 1:
            work = kept.keep(LONG, close=99.0, observed_at=T0 + LONG * MINUTE)
            with ThreadPoolExecutor(1) as other:
                other.submit(asyncio.run, work).result()

    await kept.export("1h", meanwhile, advanced=meddle)

    await kept.export("1h", after)
    assert len(pages) > 1
    assert meanwhile.getvalue() == before.getvalue() != after.getvalue()


@pytest.mark.parametrize("timeframe", ["1m", "5m"])
async def test_an_export_that_nobody_takes_has_no_transaction_open_and_is_whole_once_it_is_taken(
    kept: Kept, store_url: str, timeframe: str
) -> None:
    await kept.keep(LONG)
    name = f"export {uuid4().hex}"
    ours, theirs = os.pipe()

    with open(ours, "rb") as taken, open(theirs, "wb") as pipe:
        async with open_pool(store_url, application_name=name) as pool:
            slow = Kept(pool, store_url, kept.key)
            export = asyncio.create_task(slow.export(timeframe, pipe))
            await asyncio.to_thread(select.select, [taken], [], [], PATIENCE)
            is_open = await kept.pool.fetchval(_TRANSACTIONS, name)
            is_taken = export.done()
            taking = asyncio.create_task(asyncio.to_thread(taken.read))
            exported = await export
        pipe.close()
        text = await taking

    assert (is_open, is_taken) == (0, False)
    assert exported.bars == text.count(b"\n") - 2 > LONG // 6


async def test_a_file_grows_as_bars_are_read(kept: Kept, tmp_path: Path) -> None:
    await kept.keep(LONG)
    sizes: list[int] = []

    with (tmp_path / "one.csv").open("wb") as file:
        await kept.export("1m", file, advanced=lambda _: sizes.append(file.tell()))

    assert 0 < sizes[0] < sizes[-1] == (tmp_path / "one.csv").stat().st_size
