"""A folder is read whole: bad files are refused by line and reason, and the rest are served."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market.instrument import InstrumentType
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.replay import InvalidInstruments, NoRecordings, Recordings, load
from plugins.replay.files import Unreadable
from plugins.replay.recording import Recording
from plugins.replay.recordings import parsed_name

MONDAY = 1_736_121_600_000
"""2025-01-06 00:00 UTC."""
NEW_YORK = ZoneInfo("America/New_York")
HEADER = "timestamp_ms,open,high,low,close,volume"
GOOD = [f"{MONDAY + n * MINUTE},10,12,9,11,{n}" for n in range(5)]


def write(folder: Path, name: str, *lines: str, header: str = HEADER, end: str = "\n") -> None:
    (folder / name).write_text(end.join([header, *lines]) + end, newline="")


def only(recordings: Recordings) -> Recording:
    (recording,) = recordings.served
    return recording


def refusals(recordings: Recordings) -> list[tuple[str, int | None, str]]:
    return [(one.file, one.line, one.reason) for one in recordings.refused]


@pytest.mark.parametrize(
    ("stem", "symbol", "timeframe"),
    [
        ("binance_BTCUSDT_1m_202501", "binance_BTCUSDT", "1m"),
        ("stock_SPY_1d", "stock_SPY", "1d"),
        ("freqtrade_XRP_ETH_1m", "freqtrade_XRP_ETH", "1m"),
        ("coinbase_BTCUSD_1m_sparse_days", "coinbase_BTCUSD", "1m"),
        ("stock_SPY_1d_5y", "stock_SPY", "1d"),
        ("index_500_1M", "index_500", "1M"),
        ("SPY_60m", "SPY", "1h"),
        ("1d_1h", "1d", "1h"),
    ],
)
def test_a_name_says_symbol_and_timeframe(stem: str, symbol: str, timeframe: str) -> None:
    assert parsed_name(stem) == (symbol, Timeframe.parse(timeframe))


@pytest.mark.parametrize("stem", ["notes", "_1m", "1m", "BTC_60", "a b_1m", "x" * 65 + "_1m"])
def test_any_other_name_is_refused(stem: str) -> None:
    with pytest.raises(Unreadable):
        parsed_name(stem)


async def test_a_file_is_served_as_it_stands(tmp_path: Path) -> None:
    write(tmp_path, "btc_1m.csv", *GOOD)

    recordings = await load(tmp_path)

    bars = only(recordings).bars
    assert bars.time.tolist() == [MONDAY + n * MINUTE for n in range(5)]
    assert bars.volume.tolist() == [0, 1, 2, 3, 4]
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (10, 12, 9, 11)
    assert recordings.refused == ()
    assert recordings.newest_close == MONDAY + 5 * MINUTE


async def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    write(
        tmp_path,
        "btc_1m.csv",
        f"7,x,11,10,12,9,{MONDAY}",
        header="volume,note,close,open,high,low,timestamp_ms",
    )

    bars = only(await load(tmp_path)).bars

    assert (bars.open[0], bars.high[0], bars.close[0], bars.volume[0]) == (10, 12, 11, 7)


async def test_line_ends_of_windows_a_byte_order_mark_and_blank_lines_do_no_harm(
    tmp_path: Path,
) -> None:
    write(tmp_path, "btc_1m.csv", *GOOD[:2], "", *GOOD[2:], header="\ufeff" + HEADER, end="\r\n")

    assert len(only(await load(tmp_path)).bars) == 5


async def test_parquet_is_served_like_csv(tmp_path: Path) -> None:
    write(tmp_path, "one_1m.csv", *GOOD)
    rows = [[float(field) for field in line.split(",")] for line in GOOD]
    columns = dict(zip(HEADER.split(","), map(list, zip(*rows, strict=True)), strict=True))
    times = pa.array([int(time) for time in columns.pop("timestamp_ms")], pa.int64())
    pq.write_table(pa.table({**columns, "timestamp_ms": times}), tmp_path / "two_1m.parquet")

    one, two = (await load(tmp_path)).served

    assert one.bars == two.bars
    assert two.instrument.symbol == "two"


BAD = {
    "missing column": ([HEADER.replace(",volume", ""), *GOOD], None, "column 'volume' is missing"),
    "column twice": ([f"{HEADER},open", *GOOD], None, "column 'open' comes twice"),
    "no bars": ([HEADER], None, "it holds no bars"),
    "empty": ([], None, "it is empty"),
    "unsorted": (
        [HEADER, GOOD[1], GOOD[0]],
        3,
        "its time is before that of the line above",
    ),
    "twice": ([HEADER, GOOD[0], GOOD[0]], 3, "the same time comes twice"),
    "high below low": (
        [HEADER, GOOD[0], f"{MONDAY + MINUTE},10,8,9,9,1"],
        3,
        "high is below low",
    ),
    "high below close": ([HEADER, f"{MONDAY},10,12,9,13,1"], 2, "high is below open or close"),
    "low above open": ([HEADER, f"{MONDAY},8,12,9,11,1"], 2, "low is above open or close"),
    "nan": ([HEADER, GOOD[0], f"{MONDAY + MINUTE},NaN,8,9,9,1"], 3, "open is not a finite number"),
    "infinite": ([HEADER, f"{MONDAY},10,inf,9,9,1"], 2, "high is not a finite number"),
    "absent price": ([HEADER, f"{MONDAY},10,12,,9,1"], 2, "low is not a finite number"),
    "absent time": ([HEADER, ",10,12,9,9,1"], 2, "timestamp_ms is missing"),
    "volume below 0": (
        [HEADER, f"{MONDAY},10,12,9,11,-1"],
        2,
        "volume is not a number of 0 or more",
    ),
    "seconds": (
        [HEADER, f"{MONDAY // 1000},10,12,9,11,1"],
        2,
        f"timestamp_ms {MONDAY // 1000} looks like seconds, not milliseconds",
    ),
    "microseconds": (
        [HEADER, f"{MONDAY * 1000},10,12,9,11,1"],
        2,
        "timestamp_ms looks like micro- or nanoseconds, not milliseconds",
    ),
    "off the grid": (
        [HEADER, GOOD[0], f"{MONDAY + MINUTE + 1},10,12,9,11,1"],
        3,
        "its time is not the opening of a 1m bar in UTC",
    ),
    "words": (
        [HEADER, GOOD[0], "", f"{MONDAY + MINUTE},ten,12,9,9,1"],
        4,
        "open 'ten' is not a number",
    ),
    "a fraction of time": (
        [HEADER, f"{MONDAY}.5,10,12,9,9,1"],
        2,
        f"timestamp_ms '{MONDAY}.5' is not a whole number",
    ),
    "too few fields": ([HEADER, GOOD[0], "1,2,3"], 3, "it has 3 fields where the header has 6"),
}


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_file_is_refused_by_line_and_reason_and_the_rest_served(
    fault: str, tmp_path: Path
) -> None:
    lines, line, reason = BAD[fault]
    (tmp_path / "bad_1m.csv").write_text("".join(f"{text}\n" for text in lines))
    write(tmp_path, "good_1m.csv", *GOOD)

    recordings = await load(tmp_path)

    assert refusals(recordings) == [("bad_1m.csv", line, reason)]
    assert [one.instrument.symbol for one in recordings.served] == ["good"]


@pytest.mark.parametrize("content", [b"\0\1\2\3", b"PAR1 not really", b'"open\n' * 50, b"\xff\xfe"])
@pytest.mark.parametrize("name", ["bad_1m.csv", "bad_1m.parquet"])
async def test_a_file_of_rubbish_is_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    write(tmp_path, "good_1m.csv", *GOOD)

    recordings = await load(tmp_path)

    assert [one.file for one in recordings.refused] == [name]
    assert [one.instrument.symbol for one in recordings.served] == ["good"]


async def test_parquet_times_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    columns = {name: [1.0] for name in HEADER.split(",")}
    pq.write_table(pa.table(columns), tmp_path / "bad_1m.parquet")
    write(tmp_path, "good_1m.csv", *GOOD)

    (refusal,) = (await load(tmp_path)).refused

    assert str(refusal) == ("bad_1m.parquet: timestamp_ms is of type double, not a whole number")


async def test_a_row_of_parquet_is_named_by_its_number(tmp_path: Path) -> None:
    columns = {name: [1.0, float("nan")] for name in HEADER.split(",")}
    columns["timestamp_ms"] = [MONDAY, MONDAY + MINUTE]
    pq.write_table(pa.table(columns), tmp_path / "bad_1m.parquet")
    write(tmp_path, "good_1m.csv", *GOOD)

    (refusal,) = (await load(tmp_path)).refused

    assert str(refusal) == "bad_1m.parquet, line 2: open is not a finite number"


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "good_1m.csv", *GOOD)
    write(tmp_path, "._good_1m.csv", "rubbish")
    (tmp_path / "README.md").write_text("what this is")
    (tmp_path / "more_1m.csv").mkdir()

    recordings = await load(tmp_path)

    assert len(recordings.served) == 1
    assert recordings.refused == ()


async def test_files_of_one_symbol_are_joined_where_no_time_is_in_both(tmp_path: Path) -> None:
    later = [f"{MONDAY + DAY + n * MINUTE},10,12,9,11,{n}" for n in range(3)]
    write(tmp_path, "btc_1m_a.csv", *later)
    write(tmp_path, "btc_1m_b.csv", *GOOD)
    write(tmp_path, "btc_1m_c.csv", *later[2:])

    recordings = await load(tmp_path)

    recording = only(recordings)
    assert recording.bars.time.tolist() == sorted(int(x.split(",")[0]) for x in GOOD + later)
    assert (recording.closes == recording.bars.time + MINUTE).all()
    assert recording.spans() == Spans.of(MONDAY, MONDAY + 2 * DAY)
    assert refusals(recordings) == [("btc_1m_c.csv", 2, "another file has this time")]


@pytest.mark.parametrize("exists", [True, False])
async def test_a_folder_without_recordings_cannot_be_replayed(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    if exists:
        folder.mkdir()

    with pytest.raises(NoRecordings, match="folder"):
        await load(folder)


async def test_a_folder_of_bad_files_says_why_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path, "bad_1m.csv")

    with pytest.raises(NoRecordings, match=r"bad_1m\.csv: it holds no bars"):
        await load(tmp_path)


async def test_minutes_cover_the_days_on_which_they_have_a_row(tmp_path: Path) -> None:
    rows = [MONDAY + 5 * HOUR, MONDAY + DAY, MONDAY + 4 * DAY - MINUTE]
    write(tmp_path, "btc_1m.csv", *(f"{time},1,1,1,1,1" for time in rows))

    recording = only(await load(tmp_path))

    assert recording.spans() == Spans(
        (Window(MONDAY, MONDAY + 2 * DAY), Window(MONDAY + 3 * DAY, MONDAY + 4 * DAY))
    )


async def test_the_days_of_a_stock_are_those_of_new_york(tmp_path: Path) -> None:
    # 23:30 on Monday the 6th, New York.
    time = MONDAY + DAY + 4 * HOUR + 30 * MINUTE
    write(tmp_path, "stock_X_1m.csv", f"{time},1,1,1,1,1")

    recording = only(await load(tmp_path))

    assert recording.spans() == Spans.of(MONDAY + 5 * HOUR, MONDAY + DAY + 5 * HOUR)


async def test_daily_bars_are_labels_of_dates_and_begin_at_local_midnight(tmp_path: Path) -> None:
    # Friday 2025-03-07 and Monday 2025-03-10: clocks change between.
    friday, monday = MONDAY + 60 * DAY, MONDAY + 63 * DAY
    write(tmp_path, "stock_X_1d.csv", f"{friday},1,1,1,1,1", f"{monday},1,1,1,1,1")

    recording = only(await load(tmp_path))

    local = [datetime.fromtimestamp(time / 1000, NEW_YORK) for time in recording.bars.time]
    assert [one.isoformat() for one in local] == [
        "2025-03-07T00:00:00-05:00",
        "2025-03-10T00:00:00-04:00",
    ]
    assert recording.closes.tolist() == [friday + DAY + 5 * HOUR, monday + DAY + 4 * HOUR]
    assert recording.spans() == Spans.of(friday + 5 * HOUR, monday + DAY + 4 * HOUR)


async def test_daily_bars_that_begin_at_local_midnight_already_stay(tmp_path: Path) -> None:
    write(tmp_path, "stock_X_1d.csv", f"{MONDAY + 5 * HOUR},1,1,1,1,1")

    assert only(await load(tmp_path)).bars.time.tolist() == [MONDAY + 5 * HOUR]


async def test_what_lies_between_two_files_of_days_is_not_covered(tmp_path: Path) -> None:
    write(tmp_path, "btc_1d_a.csv", f"{MONDAY},1,1,1,1,1", f"{MONDAY + 2 * DAY},1,1,1,1,1")
    write(tmp_path, "btc_1d_b.csv", f"{MONDAY + 9 * DAY},1,1,1,1,1")

    recording = only(await load(tmp_path))

    assert recording.spans() == Spans(
        (Window(MONDAY, MONDAY + 3 * DAY), Window(MONDAY + 9 * DAY, MONDAY + 10 * DAY))
    )


async def test_weeks_that_begin_on_thursday_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "btc_1w.csv", f"{MONDAY},1,1,1,1,1", f"{MONDAY + 10 * DAY},1,1,1,1,1")
    write(tmp_path, "eth_1w.csv", f"{MONDAY},1,1,1,1,1", f"{MONDAY + 7 * DAY},1,1,1,1,1")

    recordings = await load(tmp_path)

    assert refusals(recordings) == [
        ("btc_1w.csv", 3, "its time is not the opening of a 1w bar in UTC")
    ]
    assert only(recordings).closes.tolist() == [MONDAY + 7 * DAY, MONDAY + 14 * DAY]


async def test_bars_of_hours_that_do_not_divide_the_day_end_with_it(tmp_path: Path) -> None:
    rows = [MONDAY + 15 * HOUR, MONDAY + 20 * HOUR, MONDAY + 24 * HOUR]
    write(tmp_path, "btc_5h.csv", *(f"{time},1,1,1,1,1" for time in rows))

    recording = only(await load(tmp_path))

    assert recording.closes.tolist() == [
        MONDAY + 20 * HOUR,
        MONDAY + 24 * HOUR,
        MONDAY + 29 * HOUR,
    ]


async def test_the_digest_follows_names_and_contents(tmp_path: Path) -> None:
    write(tmp_path, "btc_1m.csv", *GOOD)
    first = (await load(tmp_path)).digest
    again = (await load(tmp_path)).digest

    write(tmp_path, "btc_1m.csv", *GOOD[:4])
    shorter = (await load(tmp_path)).digest
    (tmp_path / "btc_1m.csv").rename(tmp_path / "eth_1m.csv")
    renamed = (await load(tmp_path)).digest
    (tmp_path / "instruments.json").write_text("{}")
    described = (await load(tmp_path)).digest

    assert first == again
    assert len({first, shorter, renamed, described}) == 4


async def test_symbols_default_to_crypto_and_stocks_by_their_name(tmp_path: Path) -> None:
    write(tmp_path, "btc_1m.csv", *GOOD)
    write(tmp_path, "stock_X_1d.csv", f"{MONDAY},1,1,1,1,1")

    coin, stock = (one.instrument for one in (await load(tmp_path)).served)

    assert (coin.market, coin.type, coin.calendar) == ("crypto", InstrumentType.SPOT, "24/7")
    assert (stock.market, stock.type, stock.calendar) == ("stocks", InstrumentType.STOCK, "XNYS")


async def test_instruments_json_says_otherwise(tmp_path: Path) -> None:
    write(tmp_path, "spx_1d.csv", f"{MONDAY},1,1,1,1,1")
    (tmp_path / "instruments.json").write_text(
        '{"spx": {"type": "index", "calendar": "XNYS", "market": "stocks", "tick_size": "0.01"}}'
    )

    recording = only(await load(tmp_path))

    assert recording.instrument.type is InstrumentType.INDEX
    assert str(recording.instrument.tick_size) == "0.01"
    assert recording.bars.time.tolist() == [MONDAY + 5 * HOUR]


@pytest.mark.parametrize(
    ("text", "symbol", "field"),
    [
        ("not json", "", ""),
        ("[]", "", ""),
        ('{"btc": {"calendar": "XNYX"}}', "btc", "calendar"),
        ('{"btc": {"type": "spoon"}}', "btc", "type"),
        ('{"btc": {"colour": "red"}}', "btc", "colour"),
        ('{"btc": {"tick_size": "0"}}', "btc", "tick_size"),
        ('{"btc": {"market": "a:b"}}', "btc", "market"),
    ],
)
async def test_a_wrong_instruments_json_names_the_place(
    text: str, symbol: str, field: str, tmp_path: Path
) -> None:
    write(tmp_path, "btc_1m.csv", *GOOD)
    (tmp_path / "instruments.json").write_text(text)

    with pytest.raises(InvalidInstruments) as refused:
        await load(tmp_path)

    assert (refused.value.symbol, refused.value.field) == (symbol, field)
    assert str(refused.value).startswith("instruments.json")


async def test_an_entry_without_a_recording_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "btc_1m.csv", *GOOD)
    (tmp_path / "instruments.json").write_text('{"btcc": {"type": "swap"}}')

    recordings = await load(tmp_path)

    assert refusals(recordings) == [("instruments.json", None, "no recording is served for 'btcc'")]


async def test_real_recordings_are_all_served_bit_for_bit(recordings: Path) -> None:
    loaded = await load(recordings)

    assert loaded.refused == ()
    assert {f"{one.instrument.symbol}_{one.timeframe}" for one in loaded.served} >= {
        "binance_BTCUSDT_1m",
        "binance_ETHUSDT_1m",
        "coinbase_BTCUSD_1m",
        "freqtrade_XRP_ETH_1m",
        "stock_AAPL_1m",
        "stock_GOOG_1d",
        "stock_SPY_1d",
        "stock_SPY_1m",
    }
    ether = next(one for one in loaded.served if one.instrument.symbol == "freqtrade_XRP_ETH")
    with (recordings / "freqtrade_XRP_ETH_1m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ether.bars.time.tolist() == [int(row["timestamp_ms"]) for row in rows]
    assert ether.bars.close.tolist() == [float(row["close"]) for row in rows]
    assert ether.bars.volume.tolist() == [float(row["volume"]) for row in rows]


async def test_real_daily_bars_begin_at_midnight_in_new_york(recordings: Path) -> None:
    loaded = await load(recordings)

    daily = next(one for one in loaded.served if str(one.timeframe) == "1d")
    local = [datetime.fromtimestamp(time / 1000, NEW_YORK) for time in daily.bars.time]
    assert {(one.hour, one.minute) for one in local} == {(0, 0)}
    assert {one.weekday() for one in local} == {0, 1, 2, 3, 4}
    assert (np.diff(daily.bars.time) >= 23 * HOUR).all()
