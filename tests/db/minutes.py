"""Series and minutes for tests of the store, and the nine aggregates recomputed from scratch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg

from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, Wanted, Write, Written
from market.bars import CLOSED, Bars
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Spans, Window

AROUND = SeriesFacts("BTC", "USDT", around_the_clock=True)
ALWAYS = Window(-(1 << 62), 1 << 62)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T0 = 1_700_000_040_000
"""A full minute in November 2023."""


def fresh_key(timeframe: Timeframe = MINUTE_FRAME) -> SeriesKey:
    """A series nobody else writes to."""
    return SeriesKey(Listing("sim", "crypto", f"T{uuid4().hex}"), timeframe)


def minutes(times: Sequence[int], close: float = 10.0, **columns: object) -> Bars:
    n = len(times)
    return Bars.of(
        times,
        [close] * n,
        [close + 1] * n,
        [close - 1] * n,
        [close] * n,
        [2.0] * n,
        updated=[t + MINUTE for t in times],
        flags=CLOSED,
        **columns,
    )


async def put(
    store: CandleStore,
    key: SeriesKey,
    bars: Bars,
    observed_at: int = T0,
    *,
    covered: Spans | None = None,
    settled: Spans | None = None,
) -> Written:
    write = Write(key, AROUND, bars, observed_at, covered or Spans(), settled or Spans())
    return (await store.write([write]))[0]


async def stored(store: CandleStore, key: SeriesKey, view: Timeframe | None = None) -> Bars:
    return (await store.snapshot([Wanted(key, ALWAYS, view)]))[0].bars.visible()


@dataclass(frozen=True)
class Minute:
    """One stored minute, withdrawn or not, as the model of a test sees it."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None
    trades: int | None
    revision: int
    void: bool
    observed_at: int


@dataclass(frozen=True)
class Aggregate:
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None
    trades: int | None
    revision: int


def bucket(time: int, view: str) -> int:
    """The opening of the bucket that holds *time*, by the calendar and not by division alone."""
    moment = EPOCH + timedelta(milliseconds=time)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    match view:
        case "5m" | "15m" | "30m":
            start = moment.replace(minute=moment.minute - moment.minute % int(view[:-1]))
        case "1h" | "4h":
            start = moment.replace(hour=moment.hour - moment.hour % int(view[:-1]), minute=0)
        case "1d":
            start = midnight
        case "1w":
            start = midnight - timedelta(days=midnight.isoweekday() - 1)
        case "1M":
            start = midnight.replace(day=1)
        case "1y":
            start = midnight.replace(month=1, day=1)
    return round((start - EPOCH) / timedelta(milliseconds=1))


def recomputed(rows: Mapping[int, Minute], view: str) -> dict[int, Aggregate]:
    """Every bar of *view* over all of *rows*, keyed by opening; sums are exact (`math.fsum`)."""
    buckets: dict[int, list[Minute]] = {}
    for time in sorted(rows):
        buckets.setdefault(bucket(time, view), []).append(rows[time])
    bars: dict[int, Aggregate] = {}
    for start, group in buckets.items():
        shown = [minute for minute in group if not minute.void]
        if not shown:
            continue
        volume = math.fsum(minute.volume for minute in shown)
        lacks_vwap = any(minute.volume > 0 and minute.vwap is None for minute in shown)
        bars[start] = Aggregate(
            open=shown[0].open,
            high=max(minute.high for minute in shown),
            low=min(minute.low for minute in shown),
            close=shown[-1].close,
            volume=volume,
            vwap=None
            if lacks_vwap or not volume
            else math.fsum(m.volume * m.vwap for m in shown if m.vwap is not None) / volume,
            trades=None
            if any(minute.trades is None for minute in shown)
            else sum(minute.trades or 0 for minute in shown),
            revision=sum(minute.revision for minute in group),
        )
    return bars


def as_aggregates(bars: Bars) -> dict[int, Aggregate]:
    """The bars read from a view in the shape of `recomputed`."""
    return {
        int(bars.time[i]): Aggregate(
            open=float(bars.open[i]),
            high=float(bars.high[i]),
            low=float(bars.low[i]),
            close=float(bars.close[i]),
            volume=float(bars.volume[i]),
            vwap=None if math.isnan(bars.vwap[i]) else float(bars.vwap[i]),
            trades=None if bars.trades[i] < 0 else int(bars.trades[i]),
            revision=int(bars.revision[i]),
        )
        for i in range(len(bars))
    }


def assert_same(expected: Mapping[int, Aggregate], actual: Mapping[int, Aggregate]) -> None:
    """Prices, trades and revisions bit for bit; volume and vwap within 1e-12."""
    assert expected.keys() == actual.keys()
    for start, want in expected.items():
        got = actual[start]
        assert (want.open, want.high, want.low, want.close, want.trades, want.revision) == (
            (got.open, got.high, got.low, got.close, got.trades, got.revision)
        )
        assert math.isclose(want.volume, got.volume, rel_tol=1e-12)
        assert (want.vwap is None) == (got.vwap is None)
        if want.vwap is not None and got.vwap is not None:
            assert math.isclose(want.vwap, got.vwap, rel_tol=1e-12)


async def empty_tables(pool: asyncpg.Pool) -> None:
    """Take every series and bar away, as a database made anew would lack them."""
    tables = await pool.fetchval(
        "SELECT string_agg(relname, ', ') FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = current_schema()::regnamespace "
        "AND relname IN ('series', 'bar', 'rollup', 'stale', 'change')"
    )
    await pool.execute(f"TRUNCATE {tables} RESTART IDENTITY")


VIEWS = {
    "5m": "ohlcv_5min",
    "15m": "ohlcv_15min",
    "30m": "ohlcv_30min",
    "1h": "ohlcv_1h",
    "4h": "ohlcv_4h",
    "1d": "ohlcv_1d",
    "1w": "ohlcv_1w",
    "1M": "ohlcv_1mon",
    "1y": "ohlcv_1y",
}


async def rows_of(pool: asyncpg.Pool, key: SeriesKey) -> dict[int, Minute]:
    """Every row of the series, withdrawn ones too, straight from the table."""
    rows = await pool.fetch(
        """
        SELECT (extract(epoch FROM b."timestamp") * 1000)::bigint AS time,
               (extract(epoch FROM b.observed_at) * 1000)::bigint AS observed, b.*
        FROM bar b JOIN series s ON s.id = b.series_id WHERE s.symbol = $1
        """,
        key.listing.symbol,
    )
    names = ("open", "high", "low", "close", "volume", "vwap", "trades", "revision", "void")
    return {
        row["time"]: Minute(*(row[name] for name in names), observed_at=row["observed"])
        for row in rows
    }


async def assert_views_exact(pool: asyncpg.Pool, key: SeriesKey) -> None:
    """The nine views anyone can query equal the recomputation from the stored rows."""
    rows = await rows_of(pool, key)
    for timeframe, view in VIEWS.items():
        shown = await pool.fetch(
            f'SELECT (extract(epoch FROM "timestamp") * 1000)::bigint AS time, * FROM {view} '
            "WHERE symbol = $1",
            key.listing.symbol,
        )
        names = ("open", "high", "low", "close", "volume", "vwap", "trades", "revision")
        actual = {row["time"]: Aggregate(*(row[name] for name in names)) for row in shown}
        assert len(actual) == len(shown)
        assert_same(recomputed(rows, timeframe), actual)
