"""The query `candles`: which bars, in which shape, and what is said about them."""

from typing import Any

import pytest

from datasources.cursors import CandleCursor
from tests.api import Api
from tests.schema.recorded import CLOCK, HALF_DAY, OPENING, SILENT

pytestmark = pytest.mark.asyncio(loop_scope="session")

MINUTE = 60_000
HOUR = 60 * MINUTE
ABSENT = {"BEFORE_FIRST", "NOT_OFFERED"}
BAR = "time open high low close volume trades vwap isClosed revision updatedAt source"
WINDOW = """
query Window(
  $series: SeriesInput!, $since: Timestamp, $until: Timestamp, $last: Int, $forming: Boolean
) {
  candles(
    series: $series, since: $since, until: $until, last: $last, includeForming: $forming
  ) {
    series { provider market symbol timeframe timezone session adjustment feed }
    candles { BAR }
    columns { BAR }
    gaps { since until reason }
    hasEarlier
    cursor
    summary {
      first { time } last { time } highest { time } lowest { time }
      change changePercent trend sentence
    }
  }
}
""".replace("BAR", BAR)


def series(symbol: str = "COIN", timeframe: str = "1m", **others: Any) -> dict[str, Any]:
    provider = "sim" if "/" in symbol or symbol == "SPY" else "replay"
    return {"provider": provider, "symbol": symbol, "timeframe": timeframe} | others


async def window(api: Api, asked: dict[str, Any] | None = None, **cut: Any) -> dict[str, Any]:
    return (await api.ask(WINDOW, series=asked or series(), **cut)).data["candles"]


def times(answer: dict[str, Any]) -> list[int]:
    return answer["columns"]["time"]


async def test_rows_and_columns_are_the_same_bars(api: Api) -> None:
    answer = await window(api, series("BTC/USDT", "5m"), last=50)

    columns = answer["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert len(rows) == 50
    assert answer["candles"] == rows
    assert [row["isClosed"] for row in rows] == [True] * 49 + [False]


async def test_since_is_included_and_until_is_not(api: Api) -> None:
    answer = await window(api, since=OPENING + MINUTE, until=OPENING + 4 * MINUTE)

    assert times(answer) == [OPENING + n * MINUTE for n in (1, 2, 3)]
    assert answer["hasEarlier"] is False
    assert answer["gaps"] == []


async def test_a_bar_belongs_to_the_window_it_opens_in_and_is_made_of_all_its_minutes(
    api: Api,
) -> None:
    answer = await window(api, series(timeframe="1h"), since=OPENING + 1, until=OPENING + HOUR + 1)

    (bar,) = answer["candles"]
    assert bar["time"] == OPENING + HOUR
    assert (bar["open"], bar["close"], bar["volume"]) == (160.0, 219.5, 120.0)


async def test_last_keeps_the_newest_and_says_that_there_are_earlier_ones(api: Api) -> None:
    answer = await window(api, since=OPENING, until=OPENING + 9 * MINUTE, last=3)

    assert times(answer) == [OPENING + n * MINUTE for n in (6, 7, 8)]
    assert answer["hasEarlier"] is True


async def test_last_that_matches_all_cuts_nothing_off(api: Api) -> None:
    answer = await window(api, since=OPENING, until=OPENING + 9 * MINUTE, last=9)

    assert len(times(answer)) == 9
    assert answer["hasEarlier"] is False


async def test_without_until_the_window_ends_at_the_providers_now(api: Api) -> None:
    answer = await window(api, last=2)

    assert times(answer) == [CLOCK - 2 * MINUTE, CLOCK - MINUTE]


async def test_null_and_absent_arguments_take_the_same_defaults(api: Api) -> None:
    absent = await api.ask(
        '{ candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"})'
        "{ columns { time isClosed } } }"
    )
    null = await window(api, series("BTC/USDT"), last=None, forming=None)

    assert absent.data["candles"]["columns"]["time"] == times(null)
    assert len(times(null)) == 500
    assert null["columns"]["isClosed"][-1] is False


async def test_forming_bar_can_be_left_out(api: Api) -> None:
    both = await window(api, series("ETH/USDT", "1h"), last=3)

    closed = await window(api, series("ETH/USDT", "1h"), last=3, forming=False)

    assert both["columns"]["isClosed"] == [True, True, False]
    assert closed["columns"]["isClosed"] == [True, True, True]
    assert times(closed)[1:] == times(both)[:2]


async def test_forming_bar_is_not_stored(api: Api) -> None:
    answer = await window(api, series("SOL/USDT"), last=3)

    assert [revision > 0 for revision in answer["columns"]["revision"]] == [True, True, False]


async def test_minutes_without_trades_are_one_gap_with_its_reason(api: Api) -> None:
    answer = await window(api, since=OPENING, until=OPENING + 30 * MINUTE)

    assert len(times(answer)) == 20
    assert answer["gaps"] == [
        {
            "since": OPENING + SILENT.start * MINUTE,
            "until": OPENING + SILENT.stop * MINUTE,
            "reason": "NO_TRADES",
        }
    ]


async def test_time_before_the_first_bar_and_after_now_are_gaps(api: Api) -> None:
    answer = await window(api, series(timeframe="1h"), since=OPENING - HOUR, until=CLOCK + HOUR)

    assert times(answer) == [OPENING + n * HOUR for n in range(4)]
    before, after = answer["gaps"]
    assert (before["since"], before["until"]) == (OPENING - HOUR, OPENING)
    assert before["reason"] in ABSENT
    assert after == {"since": CLOCK, "until": CLOCK + HOUR, "reason": "AFTER_LAST"}


async def test_window_wholly_before_the_first_bar_is_empty_with_its_gap(api: Api) -> None:
    answer = await window(api, since=OPENING - 10 * HOUR, until=OPENING - 9 * HOUR)

    assert times(answer) == []
    assert {gap["reason"] for gap in answer["gaps"]} <= ABSENT
    assert answer["gaps"][0]["since"] == OPENING - 10 * HOUR
    assert answer["gaps"][-1]["until"] == OPENING - 9 * HOUR


async def test_window_wholly_after_now_is_empty_with_its_gap(api: Api) -> None:
    answer = await window(api, since=CLOCK + HOUR, until=CLOCK + 2 * HOUR)

    assert times(answer) == []
    assert answer["gaps"] == [
        {"since": CLOCK + HOUR, "until": CLOCK + 2 * HOUR, "reason": "AFTER_LAST"}
    ]


async def test_empty_window_is_empty(api: Api) -> None:
    answer = await window(api, since=OPENING, until=OPENING)

    assert (times(answer), answer["gaps"], answer["hasEarlier"]) == ([], [], False)


async def test_night_of_an_exchange_is_a_closed_session(api: Api) -> None:
    midnight = int(HALF_DAY.timestamp()) * 1000

    answer = await window(api, series("stock_HALF"), since=midnight, until=midnight + 5 * HOUR)

    assert len(times(answer)) == 60
    assert answer["gaps"] == [
        {"since": midnight, "until": midnight + 4 * HOUR, "reason": "SESSION_CLOSED"}
    ]


async def test_regular_session_of_a_half_day_ends_at_one(api: Api) -> None:
    bell = int(HALF_DAY.replace(hour=9, minute=30).timestamp()) * 1000

    answer = await window(
        api, series("stock_HALF", "1h", session="REGULAR"), since=bell, until=bell + 12 * HOUR
    )

    assert times(answer) == [bell + n * HOUR for n in range(4)]
    # Minute n of the recording trades 1 + n; 330 minutes lie before the bell. The last is short.
    assert answer["columns"]["volume"] == [
        sum(1.0 + n for n in range(330 + 60 * hour, min(390 + 60 * hour, 540))) for hour in range(4)
    ]


async def test_defaults_of_a_series_are_resolved(api: Api) -> None:
    coin = await window(api, series(timeframe="60"), last=1)
    stock = await window(api, series("stock_HALF", "90m"), last=1)
    around_the_clock = await window(api, series(session="REGULAR"), last=1)

    assert coin["series"] == {
        "provider": "replay",
        "market": "crypto",
        "symbol": "COIN",
        "timeframe": "1h",
        "timezone": "UTC",
        "session": "ALL",
        "adjustment": None,
        "feed": None,
    }
    assert (stock["series"]["timezone"], stock["series"]["timeframe"]) == (
        "America/New_York",
        "90m",
    )
    assert around_the_clock["series"]["session"] == "ALL"


@pytest.mark.parametrize(
    ("written", "lowest"),
    [("1min", "1m"), ("60m", "1h"), ("120min", "2h"), ("1mon", "1M"), ("12M", "1y"), ("7d", "7d")],
)
async def test_timeframe_is_shown_in_lowest_terms(api: Api, written: str, lowest: str) -> None:
    answer = await window(api, series(timeframe=written), last=1)

    assert answer["series"]["timeframe"] == lowest


async def test_minute_and_month_are_not_confused(api: Api) -> None:
    minute = await window(api, series("BTC/USDT", "1m"), last=2)
    month = await window(api, series("BTC/USDT", "1M"), last=2)

    assert times(minute)[1] - times(minute)[0] == MINUTE
    assert times(month)[1] - times(month)[0] == 30 * 24 * HOUR  # September


async def test_summary_tells_the_facts_of_the_bars(api: Api) -> None:
    answer = await window(api, since=OPENING, until=OPENING + 5 * MINUTE)

    summary = answer["summary"]
    assert summary["first"] == summary["lowest"] == {"time": OPENING}
    assert summary["last"] == summary["highest"] == {"time": OPENING + 4 * MINUTE}
    assert (summary["change"], summary["changePercent"], summary["trend"]) == (4.5, 4.5, "UP")
    assert summary["sentence"] == (
        "5 COIN, 1-minute bars from 1 January 2025 00:00 to 1 January 2025 00:04: "
        "up 4.50 percent, from 100 to 104.5; highest 105 on 1 January 2025 00:04, "
        "lowest 99 on 1 January 2025 00:00."
    )


async def test_summary_of_nothing_says_so(api: Api) -> None:
    answer = await window(api, since=OPENING, until=OPENING)

    summary = answer["summary"]
    assert summary.pop("sentence") == "COIN, 1-minute bars: none in this window."
    assert set(summary.values()) == {None}


async def test_cursor_is_opaque_and_stays_while_nothing_changes(api: Api) -> None:
    first = await window(api, series(timeframe="1h"), last=3)
    second = await window(api, series(timeframe="1h"), last=3)
    other = await window(api, series("MANY00", "1h"), last=1)

    cursor = CandleCursor.parse(first["cursor"])
    assert first["cursor"] == second["cursor"] != other["cursor"]
    assert cursor.store is not None
    assert len(cursor.positions) == 1
    assert cursor.told_until == CLOCK


async def test_paging_back_by_until_meets_every_bar_once(api: Api) -> None:
    pages = [await window(api, last=50)]
    while pages[-1]["hasEarlier"]:
        pages.append(await window(api, until=times(pages[-1])[0], last=50))

    met = [time for page in reversed(pages) for time in times(page)]
    assert met == [OPENING + n * MINUTE for n in range(240) if n not in SILENT]


async def test_symbols_candles_are_those_of_the_query(api: Api) -> None:
    watchlist = await api.ask(
        """query Watchlist($until: Timestamp) {
          symbols(provider: "sim", market: "crypto") {
            nodes { symbol candles(timeframe: "15m", until: $until, last: 4) {
              series { symbol market } columns { time open high low close volume } gaps { reason }
            } }
          }
        }"""
    )

    nodes = watchlist.data["symbols"]["nodes"]
    assert len(nodes) == 5
    for node in nodes:
        same = await window(api, series(node["symbol"], "15m"), last=4)
        columns = node["candles"]["columns"]
        assert columns == {name: same["columns"][name] for name in columns}
        assert len(columns["time"]) == 4


async def test_symbols_candles_default_to_the_newest_hundred(api: Api) -> None:
    answer = await api.ask(
        '{ symbols(provider: "sim", search: "btc") { nodes { '
        'one: candles(timeframe: "1m") { columns { time } } '
        'two: candles(timeframe: "1m", last: null) { columns { time } } '
        'three: candles(timeframe: "1h", timezone: "Asia/Tokyo", session: ALL, since: 0, last: 2) '
        "{ series { timezone } columns { time } } } } }"
    )

    (node,) = answer.data["symbols"]["nodes"]
    assert len(node["one"]["columns"]["time"]) == 100
    assert node["one"] == node["two"]
    assert node["three"]["series"]["timezone"] == "Asia/Tokyo"
    assert len(node["three"]["columns"]["time"]) == 2


async def test_stock_without_a_session_has_the_hours_around_it(api: Api) -> None:
    regular = await window(api, series("SPY", "1d", session="REGULAR"), last=3)
    extended = await window(api, series("SPY", "1d", session="EXTENDED"), last=3)
    everything = await window(api, series("SPY", "1d"), last=3)

    assert [
        r < e
        for r, e in zip(
            regular["columns"]["volume"][:2], extended["columns"]["volume"][:2], strict=True
        )
    ] == [True, True]
    assert everything["columns"]["volume"] == extended["columns"]["volume"]
