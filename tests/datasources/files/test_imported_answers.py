"""What charts show of imported bars, and what is still asked of their provider."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from datasources.files.exporting import Bounds, export_stored
from datasources.files.formats import Format, open_reader
from datasources.files.importing import Choices, Importer
from datasources.files.naming import Said
from datasources.files.placing import Placement, place_labelled
from datasources.found import Base, Head
from db.candles import CandleStore
from db.imports import ImportProgress
from db.listed import stored_series
from db.stored import SeriesFacts
from market.clock import FixedClock
from market.window import HOUR, MINUTE
from tests.datasources.chains import NOW, Opened, Opener, on_embedded, opened_chain
from tests.datasources.files.tables import lines
from tests.fakes import FakeProvider, Market, days_before, minutes_between, row

LISTED = days_before(NOW, 2)
SINCE = NOW // HOUR * HOUR - 10 * HOUR
PAST = {"since": SINCE, "until": SINCE + 5 * HOUR}
# Some minutes had no trades.
TRADED = [minute for minute in minutes_between(SINCE, SINCE + 5 * HOUR) if minute // MINUTE % 7]


@pytest.fixture
def open_process(store: CandleStore, redis: Redis, redis_prefix: str) -> Opener:
    return partial(opened_chain, store=store, redis=redis, prefix=redis_prefix)


def listed() -> FakeProvider:
    symbol = uuid4().hex
    return FakeProvider(FixedClock(NOW), {symbol: Market.of(TRADED)}, offered_from=LISTED)


def written(path: Path, *, version: int = 0) -> Path:
    rows = ((minute, row(minute, version=version)) for minute in TRADED)
    return lines(
        path,
        *(f"{at},{r.open},{r.high},{r.low},{r.close},{r.volume},{r.vwap}" for at, r in rows),
        names="timestamp_ms,open,high,low,close,volume,vwap",
    )


async def take_in(opened: Opened, pool: asyncpg.Pool, path: Path, choices: Choices) -> None:
    async def announce(heads: Mapping[Base, Head]) -> None:
        await opened.cache.moved(heads)

    importer = Importer(
        opened.store, ImportProgress(pool), clock=FixedClock(NOW), announce=announce
    )
    reader = open_reader(path)
    placement = Placement(opened.key, SeriesFacts(around_the_clock=True), "UTC")
    if reader.file.label is not None:
        placement = place_labelled(reader.file.label, Said(symbol=opened.symbol), name="file")
    report = path.with_suffix(".refused")
    await importer.take_in(reader, placement, choices=choices, report=report)


@on_embedded
async def test_a_provider_is_not_asked_for_what_a_complete_file_brought(
    open_process: Opener, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with open_process(listed()) as opened:
        await take_in(opened, pool, written(tmp_path / "one.csv"), Choices(complete=True))

        answer = await opened.get("1m", since=TRADED[0], until=TRADED[-1] + MINUTE)

        assert opened.provider.asked() == []
        assert answer.bars.time.tolist() == TRADED
        assert {gap.reason.value for gap in answer.gaps} == {"no_trades"}


@on_embedded
async def test_a_provider_is_asked_about_a_file_that_does_not_say_it_is_complete(
    open_process: Opener, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with open_process(listed()) as opened:
        await take_in(opened, pool, written(tmp_path / "one.csv", version=3), Choices())

        answer = await opened.get("1m", **PAST)

        # Its answer is the later one.
        assert len(opened.provider.asked()) > 0
        assert answer.bars.close.tolist() == [row(minute).close for minute in TRADED]


@on_embedded
async def test_an_answer_another_process_has_cached_ends_with_the_import_that_revises_it(
    open_process: Opener, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    provider = listed()
    async with open_process(provider) as opened, open_process(provider) as other:
        before = await other.get("1h", **PAST)
        path = written(tmp_path / "one.csv", version=3)
        await take_in(opened, pool, path, Choices(observed_at=NOW))

        after = await other.get("1h", **PAST)

        first = next(minute for minute in TRADED if minute >= SINCE)
        assert before.bars.open[0] == row(first).open
        assert after.bars.open[0] == row(first, version=3).open


@on_embedded
async def test_an_export_that_is_imported_elsewhere_is_not_asked_for_there(
    open_process: Opener, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    path = tmp_path / "one.parquet"
    async with open_process(listed()) as opened:
        told = await opened.get("1m", **PAST)
        (series,) = await stored_series(pool, symbol=opened.symbol)
        await export_stored(pool, series, Bounds(**PAST), kind=Format.PARQUET, to=path)

    async with open_process(listed()) as elsewhere:
        await take_in(elsewhere, pool, path, Choices())
        answer = await elsewhere.get("1m", **PAST)

        assert elsewhere.provider.asked() == []
        assert answer.bars.close.tolist() == told.bars.close.tolist()
        assert answer.gaps == told.gaps
