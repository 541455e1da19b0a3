"""Exports and backtests have the coarser bars that charts have, once the minutes were dropped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import BytesIO

import asyncpg
import numpy as np
import pytest

from datasources.files.exporting import Bounds, Exported, export_computed, export_stored
from datasources.files.formats import Format
from datasources.history import ShelfHistory, Stretch
from datasources.shelves import StoreShelf
from db.candles import CandleStore
from db.listed import StoredSeries, stored_series
from db.migrations import TIMESCALE, mode_of
from db.pruner import Pruner
from db.stored import SeriesFacts, SeriesKey, Write
from db.timescale import Refresher
from market.bars import Bars
from market.clock import FixedClock
from market.instrument import Series
from market.retention import Retention
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from tests.db.minutes import AROUND, fresh_key
from tests.db.timescale.kept import until

pytestmark = pytest.mark.parametrize(
    "server_url", ["embedded", "timescale"], indirect=True, scope="session"
)

SINCE = 1_730_073_600_000
"""Monday 2024-10-28: the line is drawn inside its week, and after the month has changed."""
HELD = Window(SINCE, SINCE + 8 * DAY)
LINE = SINCE + 5 * DAY
CHARTS = ("5m", "2h", "1d", "1w")
PRICES = ("time", "open", "high", "low", "close", "trades", "revision")

Prune = Callable[..., Awaitable[None]]


class Shown:
    """Eight days of minutes, each eleventh without trades, as an export or a backtest has them."""

    def __init__(self, pool: asyncpg.Pool, key: SeriesKey, facts: SeriesFacts) -> None:
        self.pool = pool
        self.key = key
        self.facts = facts

    async def keep(self, *, settled: Spans) -> None:
        opens = np.arange(HELD.since, HELD.until, MINUTE)
        opens = opens[opens // MINUTE % 11 != 0]
        close = 100 + np.sin(opens / HOUR)
        bars = Bars.of(
            *(opens, close, close + 1, close - 1, close, opens // MINUTE % 7 + 0.1),
            vwap=close,
            trades=opens // MINUTE % 5,
            updated=opens + MINUTE,
            flags=1,
        )
        write = Write(self.key, self.facts, bars, HELD.until, settled=settled)
        await CandleStore(self.pool).write([write])

    def series(self, timeframe: str, zone: str = "UTC") -> Series:
        stocks = not self.facts.around_the_clock
        return Series(
            self.key.listing,
            Timeframe.parse(timeframe),
            timezone="America/New_York" if stocks else zone,
            calendar="XNYS" if stocks else "24/7",
        )

    async def read(self, series: Series, window: Window = HELD) -> list[Stretch]:
        history = ShelfHistory(StoreShelf(self.pool))
        return [stretch async for stretch in history.bars(series, window)]

    async def bars(self, series: Series, window: Window = HELD) -> Bars:
        return Bars.concat([stretch.bars for stretch in await self.read(series, window)])

    async def stored(self) -> StoredSeries:
        (stored,) = await stored_series(self.pool, symbol=self.key.listing.symbol)
        return stored

    async def hours_kept_from(self) -> int:
        """Return since when the store keeps the aggregate of hours."""
        since = await self.pool.fetchval(
            "SELECT (extract(epoch FROM since) * 1000)::bigint FROM retained "
            "WHERE series_id = $1 AND level = 4",
            (await self.stored()).id,
        )
        return int(since)

    async def export(self, timeframe: str, bounds: Bounds | None = None) -> tuple[Exported, int]:
        """Return what an export of computed bars says, and how many it holds."""
        file = BytesIO()
        exported = await export_computed(
            self.pool,
            self.series(timeframe),
            await self.stored(),
            bounds or Bounds(),
            kind=Format.CSV,
            to=file,
        )
        return exported, file.getvalue().count(b"\n") - 2


@pytest.fixture
async def shown(pool: asyncpg.Pool) -> Shown:
    shown = Shown(pool, fresh_key(), AROUND)
    await shown.keep(settled=Spans((HELD,)))
    return shown


@pytest.fixture
def prune(store_url: str) -> Prune:
    """Drop what lies before `LINE`, and hours before the day that is named besides."""

    async def drop(shown: Shown, *, hours_before: int | None = None) -> None:
        if await mode_of(store_url) == TIMESCALE:
            await until(lambda: Refresher(store_url).refresh(onward=True))
        periods = [(MINUTE_FRAME, HELD.until - LINE)]
        if hours_before is not None:
            periods.append((Timeframe.parse("1h"), HELD.until - hours_before))
        work = Pruner(
            store_url,
            Retention(tuple(periods)),
            clock=FixedClock(HELD.until),
            ages=lambda listing: listing == shown.key.listing,
        )
        assert await work.prune()
        assert work.postponed == 0

    return drop


def alike(one: Bars, other: Bars) -> bool:
    """Whether bars agree as promised: sums within 1e-12, all else in every bit."""
    exact = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in PRICES)
    return exact and all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=0)
        for name in ("volume", "vwap")
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
async def test_coarser_bars_are_the_same_after_their_minutes_were_dropped(
    shown: Shown, prune: Prune, zone: str
) -> None:
    before = [await shown.bars(shown.series(timeframe, zone)) for timeframe in CHARTS]
    await prune(shown)

    after = [await shown.bars(shown.series(timeframe, zone)) for timeframe in CHARTS]

    assert [len(bars) for bars in after] == [len(bars) for bars in before]
    # No week that begins on Sunday evening is whole.
    assert [len(bars) > 0 for bars in before] == [True, True, True, zone == "UTC"]
    assert all(alike(one, other) for one, other in zip(after, before, strict=True))


async def test_coarser_bars_are_exported_in_full_without_their_minutes(
    shown: Shown, prune: Prune
) -> None:
    before = await shown.export("1h")
    await prune(shown)

    after = await shown.export("1h")

    assert after == before
    assert after[1] == 8 * 24
    assert after[0].complete_from is None


async def test_a_bar_that_no_aggregate_makes_up_is_a_gap_and_the_export_says_since_when_none_is(
    shown: Shown, prune: Prune
) -> None:
    before = await shown.bars(shown.series("7m"))
    await prune(shown)

    stretches = await shown.read(shown.series("7m"))
    exported, count = await shown.export("7m")

    after = Bars.concat([stretch.bars for stretch in stretches])
    # A midnight, at which such bars begin anew.
    assert after == before.take(before.time >= LINE)
    assert Spans(gap for stretch in stretches for gap in stretch.dropped) == Spans.of(SINCE, LINE)
    assert exported.complete_from == LINE
    assert exported.label.window == HELD
    assert count == len(after)


async def test_a_bar_that_lost_some_of_its_minutes_is_no_bar_of_the_rest(
    shown: Shown, prune: Prune
) -> None:
    # In New York 7m begin anew at four in the morning, UTC: one of them has the line inside.
    series = shown.series("7m", "America/New_York")
    before = await shown.bars(series)
    await prune(shown)

    stretches = await shown.read(series)

    after = Bars.concat([stretch.bars for stretch in stretches])
    dropped = Spans(gap for stretch in stretches for gap in stretch.dropped)
    assert LINE < dropped.hull.until < LINE + 7 * MINUTE
    assert after == before.take(before.time >= dropped.hull.until)


async def test_a_gap_that_was_never_filled_is_not_laid_to_what_was_dropped(
    pool: asyncpg.Pool, prune: Prune
) -> None:
    shown = Shown(pool, fresh_key(), AROUND)
    unknown = Spans.of(LINE + HOUR, LINE + 2 * HOUR)
    await shown.keep(settled=Spans((HELD,)) - unknown)
    await prune(shown)

    # The aggregate still tells of all of the week that was dropped.
    week = Window(SINCE, SINCE + 7 * DAY)
    stretches = await shown.read(shown.series("1w"), week)

    assert Spans(gap for stretch in stretches for gap in stretch.gaps) == Spans((week,))
    assert not any(stretch.dropped for stretch in stretches)


async def test_minutes_that_were_dropped_are_named_where_they_were_asked_for(
    shown: Shown, prune: Prune
) -> None:
    await prune(shown)

    file = BytesIO()
    exported = await export_stored(
        shown.pool, await shown.stored(), Bounds(*_sides(HELD)), kind=Format.CSV, to=file
    )
    rest = await export_stored(
        shown.pool, await shown.stored(), Bounds(), kind=Format.CSV, to=BytesIO()
    )

    assert exported.complete_from == LINE
    assert exported.label.known == Spans.of(LINE, HELD.until)
    assert exported.label.rows == exported.bars == rest.bars > 0
    assert rest.complete_from == LINE


async def test_what_was_not_settled_when_it_was_dropped_is_not_taken_for_empty(
    pool: asyncpg.Pool, prune: Prune
) -> None:
    shown = Shown(pool, fresh_key(), AROUND)
    half = Window(SINCE + 2 * DAY, HELD.until)
    await shown.keep(settled=Spans((half,)))
    await prune(shown)

    stretches = await shown.read(shown.series("1h"))

    told = Spans(span for stretch in stretches for span in stretch.told)
    bars = Bars.concat([stretch.bars for stretch in stretches])
    assert told == Spans((half,))
    assert bars.time.tolist() == list(range(half.since, half.until, HOUR))


async def test_an_aggregate_that_was_dropped_too_tells_of_nothing_before_its_own_line(
    shown: Shown, prune: Prune
) -> None:
    days = await shown.bars(shown.series("1d"))
    await prune(shown, hours_before=SINCE + 3 * DAY)

    hours = await shown.bars(shown.series("1h"))

    kept = await shown.hours_kept_from()
    assert SINCE < kept < LINE
    assert hours.time.tolist() == list(range(kept, HELD.until, HOUR))
    assert alike(await shown.bars(shown.series("1d")), days)


async def test_an_export_of_bars_that_were_dropped_too_says_since_when_these_are_kept(
    shown: Shown, prune: Prune
) -> None:
    before = await shown.export("1h")
    await prune(shown, hours_before=SINCE + 3 * DAY)

    hours, count = await shown.export("1h")
    days, _ = await shown.export("1d")

    kept = await shown.hours_kept_from()
    assert before[0].complete_from is None
    assert SINCE < kept < LINE
    assert hours.complete_from == hours.label.window.since == kept
    assert count == (HELD.until - kept) // HOUR
    # Days are kept for ever.
    assert days.complete_from is None


async def test_an_export_of_which_nothing_is_kept_any_more_says_so(pool: asyncpg.Pool) -> None:
    shown = Shown(pool, fresh_key(), SeriesFacts())
    await shown.keep(settled=Spans((HELD,)))
    await pool.execute(
        "SELECT drop_bars($1, ARRAY[from_epoch_ms($2)])", (await shown.stored()).id, HELD.until
    )

    exported, count = await shown.export("1h")

    assert count == 0
    assert exported.complete_from == HELD.until


async def test_a_stock_has_no_aggregates_and_its_hours_begin_at_the_line(
    pool: asyncpg.Pool, prune: Prune
) -> None:
    shown = Shown(pool, fresh_key(), SeriesFacts())
    await shown.keep(settled=Spans((HELD,)))
    before = await shown.bars(shown.series("1h"))
    await prune(shown)

    exported, count = await shown.export("1h", Bounds(*_sides(HELD)))

    assert exported.complete_from == LINE
    assert count == int((before.time >= LINE).sum())


def _sides(window: Window) -> tuple[int, int]:
    return window.since, window.until
