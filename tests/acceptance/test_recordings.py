"""Candles of the real recordings equal what anyone can compute from the files."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.recomputation import (
    NEW_YORK,
    UTC,
    Bucket,
    Row,
    bounds,
    days_of,
    local_date,
    midnight,
    read,
    recompute,
    session_bounds,
)
from tests.api import Api

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = 1_738_700_400_000
"""The close of the newest bar of the folder: 2025-02-04 20:20 UTC."""

WINDOW = """
query Window($series: SeriesInput!, $until: Timestamp) {
  candles(series: $series, until: $until, last: 10000) {
    columns { time open high low close volume isClosed source }
    gaps { since until reason }
    hasEarlier
  }
}
"""


class History:
    """Every bar and gap of a series, put together from as many pages as it took."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.gaps: list[dict[str, Any]] = []
        self.pages = 0

    def prepend(self, page: dict[str, Any]) -> None:
        self.columns = {
            name: column + self.columns.get(name, []) for name, column in page["columns"].items()
        }
        self.gaps = page["gaps"] + self.gaps
        self.pages += 1

    @property
    def time(self) -> list[int]:
        return self.columns["time"]

    @property
    def prices(self) -> list[tuple[float, float, float, float]]:
        c = self.columns
        return list(zip(c["open"], c["high"], c["low"], c["close"], strict=True))

    def reason_at(self, instant: int) -> str | None:
        at = bisect_right(self.gaps, instant, key=lambda gap: gap["since"]) - 1
        return self.gaps[at]["reason"] if at >= 0 and instant < self.gaps[at]["until"] else None


async def history(api: Api, symbol: str, timeframe: str, **series: str) -> History:
    whole, until = History(), None
    asked = {"provider": "replay", "symbol": symbol, "timeframe": timeframe} | series
    while True:
        page = (await api.ask(WINDOW, series=asked, until=until)).data["candles"]
        whole.prepend(page)
        if not page["hasEarlier"]:
            return whole
        until = min(page["columns"]["time"][:1] + [gap["since"] for gap in page["gaps"][:1]])


def assert_same(whole: History, expected: Sequence[Bucket]) -> None:
    assert whole.time == [bucket.opens for bucket in expected]
    assert whole.prices == [bucket.prices for bucket in expected]
    assert whole.columns["volume"] == pytest.approx(
        [bucket.volume for bucket in expected], rel=1e-12, abs=0
    )
    assert whole.columns["isClosed"] == [bucket.closes <= NOW for bucket in expected]
    for gap in whole.gaps:
        # No bar opens inside a gap.
        assert bisect_left(whole.time, gap["since"]) == bisect_left(whole.time, gap["until"])


@pytest.mark.parametrize("symbol", ["binance_BTCUSDT", "binance_ETHUSDT"])
@pytest.mark.parametrize("timeframe", ["1m", "7m", "15m", "1h", "4h", "5h", "1d", "3d", "1w", "1M"])
async def test_every_crypto_candle_equals_its_recomputation(
    api: Api, recordings: Path, symbol: str, timeframe: str
) -> None:
    rows = read(recordings / f"{symbol}_1m_202501.csv")

    whole = await history(api, symbol, timeframe)

    assert_same(whole, recompute(rows, timeframe))
    assert set(whole.columns["source"]) == {"MINUTES"}
    assert whole.pages == (5 if timeframe == "1m" else 1)


async def test_zone_moves_where_days_begin(api: Api, recordings: Path) -> None:
    rows = read(recordings / "binance_BTCUSDT_1m_202501.csv")
    # The recording is whole from midnight UTC on, which is 19:00 of the day before in New York.
    covered = midnight(date(2025, 1, 2), NEW_YORK)

    whole = await history(api, "binance_BTCUSDT", "1d", timezone="America/New_York")

    expected = [b for b in recompute(rows, "1d", NEW_YORK) if b.opens >= covered - 86_400_000]
    assert_same(whole, expected)


@pytest.mark.parametrize("timeframe", ["1m", "1h", "4h", "1d", "2d", "1w"])
async def test_days_that_were_not_recorded_give_no_partial_candle(
    api: Api, recordings: Path, timeframe: str
) -> None:
    rows = read(recordings / "coinbase_BTCUSD_1m_sparse_days.csv")

    whole = await history(api, "coinbase_BTCUSD", timeframe)

    # The days after its newest one have come by now, and were not recorded.
    days = {local_date(row.time, UTC) for row in rows}
    expected = [b for b in recompute(rows, timeframe) if days.issuperset(days_of(b, UTC))]
    assert_same(whole, expected)
    assert whole.reason_at(midnight(date(2016, 10, 12), NEW_YORK)) == "NOT_OFFERED"


async def test_minutes_without_trades_are_known_to_be_empty(api: Api, recordings: Path) -> None:
    rows = read(recordings / "freqtrade_XRP_ETH_1m.csv")
    traded = {row.time for row in rows}

    whole = await history(api, "freqtrade_XRP_ETH", "1m")

    assert_same(whole, recompute(rows, "1m"))
    first, last = rows[0].time, rows[-1].time
    silent = [t for t in range(first, last, 60_000) if t not in traded]
    assert len(silent) > 676
    assert {whole.reason_at(minute) for minute in silent} == {"NO_TRADES"}


@pytest.mark.parametrize("timeframe", ["7m", "1h", "1d"])
async def test_candles_over_minutes_without_trades_equal_their_recomputation(
    api: Api, recordings: Path, timeframe: str
) -> None:
    rows = read(recordings / "freqtrade_XRP_ETH_1m.csv")

    whole = await history(api, "freqtrade_XRP_ETH", timeframe)

    assert_same(whole, recompute(rows, timeframe))


@pytest.mark.parametrize("symbol", ["stock_SPY", "stock_AAPL"])
@pytest.mark.parametrize("timeframe", ["1h", "7m", "30m", "4h"])
async def test_regular_session_counts_from_the_opening_bell(
    api: Api, recordings: Path, symbol: str, timeframe: str
) -> None:
    expected: dict[int, Bucket] = {}
    for row in read(recordings / f"{symbol}_1m.csv"):
        edges = session_bounds(row.time, timeframe)
        if edges is not None:
            expected.setdefault(edges[0], Bucket(*edges)).rows.append(row)

    whole = await history(api, symbol, timeframe, session="REGULAR")

    assert_same(whole, list(expected.values()))
    assert len(expected) >= 3 * 2


@pytest.mark.parametrize("timeframe", ["1m", "1h", "5h"])
async def test_all_hours_of_a_stock_count_from_new_yorks_midnight(
    api: Api, recordings: Path, timeframe: str
) -> None:
    rows = read(recordings / "stock_SPY_1m.csv")

    whole = await history(api, "stock_SPY", timeframe)

    assert_same(whole, recompute(rows, timeframe, NEW_YORK))


def labelled(rows: Sequence[Row]) -> list[Row]:
    """Return days stamped at midnight UTC as the New York days whose dates they are."""
    return [
        Row(
            midnight(date(1970, 1, 1) + timedelta(row.time // 86_400_000), NEW_YORK),
            *(row.open, row.high, row.low, row.close, row.volume),
        )
        for row in rows
    ]


@pytest.mark.parametrize("timeframe", ["1d", "1w", "1M"])
async def test_days_without_minutes_are_the_recorded_days(
    api: Api, recordings: Path, timeframe: str
) -> None:
    minutes = read(recordings / "stock_SPY_1m.csv")
    days = labelled(read(recordings / "stock_SPY_1d.csv"))
    natives = [bucket for bucket in grouped(days, timeframe) if inside(bucket, days)]
    # The day after the recorded minutes is not known to have had none.
    dates = {local_date(row.time, NEW_YORK) for row in minutes}
    computed = [
        bucket
        for bucket in recompute(minutes, timeframe, NEW_YORK)
        if dates.issuperset(trading_days(bucket))
    ]
    expected = {b.opens: b for b in natives} | {b.opens: b for b in computed}

    whole = await history(api, "stock_SPY", timeframe)

    assert_same(whole, [expected[opens] for opens in sorted(expected)])
    by_minutes = {b.opens for b in computed}
    assert whole.columns["source"] == [
        "MINUTES" if opens in by_minutes else "NATIVE" for opens in whole.time
    ]
    assert len(by_minutes) == {"1d": 7, "1w": 1, "1M": 0}[timeframe]


async def test_weeks_of_a_stock_are_made_of_its_recorded_days(api: Api, recordings: Path) -> None:
    days = labelled(read(recordings / "stock_GOOG_1d.csv"))
    expected = [bucket for bucket in grouped(days, "1w") if inside(bucket, days)]

    whole = await history(api, "stock_GOOG", "1w")

    assert_same(whole, expected)
    assert set(whole.columns["source"]) == {"NATIVE"}
    assert len(expected) > 860


def grouped(rows: Sequence[Row], timeframe: str) -> list[Bucket]:
    found: dict[int, Bucket] = {}
    for row in rows:
        opens, closes = bounds(row.time, timeframe, NEW_YORK)
        found.setdefault(opens, Bucket(opens, closes)).rows.append(row)
    return list(found.values())


def inside(bucket: Bucket, rows: Sequence[Row]) -> bool:
    """Whether the trading days of *bucket* lie between the first and the last row."""
    first, last = (local_date(row.time, NEW_YORK) for row in (rows[0], rows[-1]))
    days = trading_days(bucket)
    return first <= days[0] and days[-1] <= last


def trading_days(bucket: Bucket) -> list[date]:
    """Return its days, less weekends and the only holiday that decides anything here."""
    return [
        day
        for day in days_of(bucket, NEW_YORK)
        if day.weekday() < 5 and (day.month, day.day) != (1, 1)
    ]
