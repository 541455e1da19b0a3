"""What an export holds is of one instant, however slowly it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from io import BytesIO
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
from market.timeframe import Timeframe
from market.window import MINUTE
from tests.db.minutes import T0, fresh_key, minutes, put
from tests.db.timescale.kept import until

LONG = 21_000
"""Minutes that make more than one stretch of hours."""
LETS_WAIT = 300
"""Milliseconds for which the server of `impatient` lets a transaction wait."""
_WAITS = """
    SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state <> 'idle'
       AND state_change > clock_timestamp() - $2 * interval '1 millisecond'
"""


class Meddler(BytesIO):
    """A file; once the first bars have come to it, it does *work* before it takes more."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work = work
        self.met = False

    def write(self, part: bytes) -> int:  # type: ignore[override] - as BufferedWriter has it
        taken = super().write(part)
        # The label and the names of the columns come before.
        if self.getvalue().count(b"\n") > 2 and not self.met:
            self.met = True
            self._work()
        return taken


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

    async def hours(self, to: BytesIO) -> Exported:
        frame = Timeframe.parse("1h")
        series = Series(self.key.listing, frame, timezone="UTC", calendar="24/7")
        return await export_computed(
            self.pool, series, await self.stored(), Bounds(), kind=Format.CSV, to=to
        )


@pytest.fixture
def kept(pool: asyncpg.Pool, store_url: str) -> Kept:
    return Kept(pool, store_url, fresh_key())


@pytest.fixture
async def impatient(store_url: str) -> AsyncIterator[tuple[asyncpg.Pool, str]]:
    """A pool whose server ends a transaction that waits for long, and its name there."""
    name = f"impatient {uuid4().hex}"
    settings = {
        "application_name": name,
        "idle_in_transaction_session_timeout": str(LETS_WAIT),
    }
    async with asyncpg.create_pool(store_url, min_size=0, server_settings=settings) as pool:
        yield pool, name


async def test_computed_bars_are_all_as_they_stood_when_the_export_began(kept: Kept) -> None:
    await kept.keep(LONG)
    before = BytesIO()
    await kept.hours(before)

    meddler = Meddler(
        lambda: asyncio.run(kept.keep(LONG, close=99.0, observed_at=T0 + LONG * MINUTE))
    )
    await kept.hours(meddler)

    after = BytesIO()
    await kept.hours(after)
    assert meddler.met
    assert meddler.getvalue() == before.getvalue() != after.getvalue()


@pytest.mark.parametrize("computed", [False, True])
async def test_who_takes_an_export_slowly_gets_all_of_it(
    kept: Kept, impatient: tuple[asyncpg.Pool, str], store_url: str, computed: bool
) -> None:
    count = LONG if computed else 3
    await kept.keep(count)
    pool, name = impatient
    meddler = Meddler(lambda: asyncio.run(waited(store_url, name)))
    slow = Kept(pool, store_url, kept.key)

    if computed:
        exported = await slow.hours(meddler)
    else:
        exported = await export_stored(
            pool, await slow.stored(), Bounds(), kind=Format.CSV, to=meddler
        )

    assert meddler.met
    assert exported.bars == (count // 60 - 1 if computed else count)


async def waited(url: str, name: str) -> None:
    """Return once the transaction of *name* has waited for longer than it is let, or was ended."""
    connection = await asyncpg.connect(url)

    async def over() -> bool:
        return not await connection.fetchval(_WAITS, name, 3.0 * LETS_WAIT)

    try:
        await until(over)
    finally:
        await connection.close()
