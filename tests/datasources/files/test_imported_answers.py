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
from market.bars import NATIVE
from market.clock import FixedClock
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE
from plugins.base import NativeFrame
from tests.datasources.chains import NOW, RUNNING, Opened, Opener, on_embedded, opened_chain
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


REACH = 200
"""Minutes that the provider is asked for to answer one request."""


def shallow(*natives: NativeFrame, since: int = SINCE, **options: object) -> FakeProvider:
    """Trades since then, of which one request reaches the newest only."""
    rows = Market.of(minutes_between(since, NOW, every=3))
    options.setdefault("page_limit", REACH // 2)
    return FakeProvider(FixedClock(NOW), {uuid4().hex: rows}, natives=natives, **options)


async def _take_in_all(opened: Opened, pool: asyncpg.Pool, path: Path, until: int) -> None:
    """Import what the provider ever had before then."""
    rows = opened.provider.markets[opened.symbol].rows
    old = [(m, rows[m]) for m in sorted(rows) if m < until]
    lines(path, *(f"{at},{r.open},{r.high},{r.low},{r.close},{r.volume}" for at, r in old))
    await take_in(opened, pool, path, Choices(complete=True))


@on_embedded
@pytest.mark.parametrize(
    ("timeframe", "natives"), [("7m", ()), ("1h", (NativeFrame(Timeframe.parse("1h")),))]
)
async def test_imported_minutes_decide_whether_they_came_before_the_chart_or_after(
    open_process: Opener,
    pool: asyncpg.Pool,
    tmp_path: Path,
    timeframe: str,
    natives: tuple[NativeFrame, ...],
) -> None:
    answers = []
    for chart_first in (False, True):
        async with open_process(shallow(*natives), max_pages=2) as opened:
            if chart_first:
                await opened.get(timeframe, last=2)
            path = tmp_path / f"{chart_first}.csv"
            await _take_in_all(opened, pool, path, RUNNING - HOUR)
            answers.append(await opened.get(timeframe, since=SINCE, until=NOW))

    before, after = answers
    assert before.gaps == after.gaps == []
    assert not (before.bars.flags & NATIVE).any()
    assert before.bars.time[0] < SINCE + 7 * MINUTE
    assert before.bars.time.tolist() == after.bars.time.tolist()
    assert before.bars.close.tolist() == after.bars.close.tolist()
    assert before.bars.flags.tolist() == after.bars.flags.tolist()


@on_embedded
async def test_minutes_that_a_chart_brought_decide_no_more_than_the_import_between_them(
    open_process: Opener, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    begin = SINCE - 5 * HOUR
    begins = []
    for path in (tmp_path / "one.csv", None):
        async with open_process(shallow(since=begin), max_pages=2) as opened:
            if path is not None:
                rows = opened.provider.markets[opened.symbol].rows
                for minute in [m for m in rows if m < SINCE]:
                    del rows[minute]
                await _take_in_all(opened, pool, path, RUNNING - HOUR)
            # Minutes without a break, asked for page by page.
            for until in range(NOW // HOUR * HOUR + HOUR, begin, -HOUR):
                await opened.get("1m", since=until - HOUR, until=until)

            await opened.get("7m", last=2)

            (state,) = await opened.store.states([opened.key])
            assert state is not None
            assert state.known.hull.since <= begin
            begins.append(state.minutes_from)

    assert begins == [SINCE // MINUTE * MINUTE, RUNNING - REACH * MINUTE]


@on_embedded
@pytest.mark.parametrize("chart_first", [False, True])
async def test_imported_minutes_decide_over_a_closed_night(
    open_process: Opener, pool: asyncpg.Pool, tmp_path: Path, chart_first: bool
) -> None:
    midnight = NOW // DAY * DAY
    yesterday, today = midnight - 16 * HOUR, midnight + 8 * HOUR  # from 4 o'clock in New York
    options = {"since": yesterday, "offered_from": today, "page_limit": 1_000}
    elsewhere, path = shallow(**options | {"offered_from": 0}, calendar_name="XNYS"), tmp_path / "x"
    async with open_process(elsewhere) as opened:
        await opened.get("1m", since=yesterday, until=midnight)
        (series,) = await stored_series(pool, symbol=opened.symbol)
        bounds = Bounds(since=yesterday, until=midnight)
        path = path.with_suffix(".parquet")
        await export_stored(pool, series, bounds, kind=Format.PARQUET, to=path)

    async with open_process(shallow(**options, calendar_name="XNYS")) as opened:
        if chart_first:
            await opened.get("7m", last=2)
        await take_in(opened, pool, path, Choices())
        await opened.get("7m", last=2)
        (state,) = await opened.store.states([opened.key])

    assert state is not None
    assert state.minutes_from == yesterday


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
