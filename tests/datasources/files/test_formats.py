"""What is written to a file is read back bit for bit, and what is no bar is told from what is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from datasources.files.csv_files import CsvReader
from datasources.files.formats import open_reader
from datasources.files.label import UnreadableFile
from datasources.files.reading import Batch, Position, Reader
from datasources.files.sifting import Sieve
from db.bar_pages import ObservedBars
from market.bars import Bars
from market.window import MINUTE, Spans
from tests.datasources.files.tables import (
    NAMES,
    NOW,
    PLACEMENT,
    T0,
    label_of,
    lines,
    pages,
    row,
    same_bits,
    write,
)

FORMATS = pytest.mark.parametrize("ending", ["csv", "parquet"])


def read(reader: Reader, after: Position | None = None) -> tuple[Bars, np.ndarray, list]:
    """Return all that a file holds: bars, when they were asked for, and what is refused."""
    sieve = Sieve(PLACEMENT, name="file", now=NOW)
    sifted = [sieve.sift(batch) for batch in reader.batches(after or Position())]
    bars = Bars.concat([part.bars for part in sifted])
    observed = [part.observed for part in sifted] or [np.empty(0, np.int64)]
    return bars, np.concatenate(observed), [one for part in sifted for one in part.refused]


def reasons(path: Path) -> dict[int, str]:
    return {one.line: one.reason for one in read(open_reader(path))[2]}


@FORMATS
@given(page=pages())
def test_every_bit_of_a_bar_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, ending: str, page: ObservedBars
) -> None:
    folder = tmp_path_factory.mktemp("files")
    path = write(folder / f"one.{ending}", label_of(page), [page])

    bars, observed, refused = read(open_reader(path))

    assert same_bits(bars, page.bars)
    assert observed.tolist() == page.observed.tolist()
    assert refused == []


@FORMATS
@given(page=pages())
def test_what_was_read_is_written_as_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, ending: str, page: ObservedBars
) -> None:
    folder = tmp_path_factory.mktemp("files")
    one = write(folder / f"one.{ending}", label_of(page), [page])

    reader = open_reader(one)
    bars, observed, _ = read(reader)
    other = write(folder / f"other.{ending}", reader.file.label, [ObservedBars(bars, observed)])

    assert one.read_bytes() == other.read_bytes()


@FORMATS
def test_a_label_says_whose_bars_and_what_is_known(tmp_path: Path, ending: str) -> None:
    time = np.array([T0])
    page = ObservedBars(Bars.of(time, [1], [2], [1], [2], [3], flags=1), time)
    label = label_of(page, known=Spans.of(T0, T0 + 5 * MINUTE))
    path = write(tmp_path / f"one.{ending}", label, [page])

    assert open_reader(path).file.label == label


@pytest.mark.parametrize("block", [70, 200, 10_000])
def test_reading_goes_on_from_any_place_it_had_come_to(tmp_path: Path, block: int) -> None:
    path = lines(tmp_path / "one.csv", *(row(minute, 10 + minute) for minute in range(40)))
    whole, _, _ = read(CsvReader(path, block=block))
    places = [batch.then for batch in CsvReader(path, block=block).batches(Position())]

    for place in places:
        rest, _, _ = read(CsvReader(path, block=block), place)
        told = place.line - 1
        assert same_bits(rest, whole.take(slice(told, None)))

    assert len(whole) == 40
    assert places[-1] == Position(path.stat().st_size, 41)


def test_reading_parquet_goes_on_from_any_row(tmp_path: Path) -> None:
    time = T0 + np.arange(25_000) * MINUTE
    close = np.arange(25_000) + 0.5
    bars = Bars.of(time, close, close, close, close, close, flags=1)
    path = write(
        tmp_path / "one.parquet",
        label_of(ObservedBars(bars, time)),
        [
            ObservedBars(bars.take(slice(n, n + 4_000)), time[n : n + 4_000])
            for n in range(0, 25_000, 4_000)
        ],
    )
    batches: list[Batch] = list(open_reader(path).batches(Position()))

    for batch in batches:
        rest, _, _ = read(open_reader(path), batch.then)
        assert rest.time.tolist() == time[batch.then.offset :].tolist()

    assert max(len(batch.rows) for batch in batches) <= 10_000
    assert batches[-1].then.offset == 25_000


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("x,1,2,1,2,3", "timestamp_ms 'x' is not a whole number"),
        (f"{T0 + MINUTE},1,2,1,2", "it has 5 fields where the header has 6"),
        (f"{T0 + MINUTE},1,2,1,2,3,4", "it has 7 fields where the header has 6"),
        (f"{T0 + MINUTE},,2,1,2,3", "open is not a finite number"),
        (f"{T0 + MINUTE},nan,2,1,2,3", "open is not a finite number"),
        (f"{T0 + MINUTE},1,inf,1,2,3", "high is not a finite number"),
        (f"{T0 + MINUTE},1,1_2,1,2,3", "high '1_2' is not a number"),
        (f"{T0 + MINUTE},1,2,1,2,-3", "volume is not a number of 0 or more"),
        (f"{T0 + MINUTE},1,2,3,2,3", "high is below low"),
        (f"{T0 + MINUTE},1,2,1,2.5,3", "high is below open or close"),
        (f"{T0 + MINUTE},1,2,1,0.5,3", "low is above open or close"),
        (f"{T0 + MINUTE + 1},1,2,1,2,3", "no bar of 1m opens at its timestamp_ms"),
        (f"{T0},1,2,1,2,3", "its timestamp_ms is not after that of the bar before it"),
        (f"{T0 - MINUTE},1,2,1,2,3", "its timestamp_ms is not after that of the bar before it"),
        (f"{NOW // MINUTE * MINUTE},1,2,1,2,3", "its bar is not over yet"),
        (f"{10**17},1,2,1,2,3", "timestamp_ms is no time in milliseconds"),
        (",1,2,1,2,3", "timestamp_ms is missing"),
        (f"{10**30},1,2,1,2,3", f"timestamp_ms '{10**30}' is too large"),
        ('"1,2,1,2,3', "it is no CSV (unexpected end of data)"),
        ("\x00\x01", "it has 1 fields where the header has 6"),
    ],
)
def test_a_row_that_is_no_bar_is_refused_and_its_neighbours_are_not(
    tmp_path: Path, wrong: str, reason: str
) -> None:
    path = lines(tmp_path / "one.csv", row(0), wrong, row(2))

    bars, _, refused = read(open_reader(path))

    assert bars.time.tolist() == [T0, T0 + 2 * MINUTE]
    assert [(one.line, one.reason) for one in refused] == [(3, reason)]


def test_more_columns_may_refuse_a_row_too(tmp_path: Path) -> None:
    names = NAMES + ",vwap,trades,source"
    path = lines(
        tmp_path / "one.csv",
        row(0) + ",inf,1,MINUTES",
        row(1) + ",1.5,-1,MINUTES",
        row(2) + ",1.5,1,GUESSES",
        f"{T0 + 3 * MINUTE},1,2,1,2,1e200,1e200,1,",
        f"{T0 + 4 * MINUTE},1,2,1,2,1e-200,1e-200,1,",
        row(5) + ",,,",
        names=names,
    )

    assert reasons(path) == {
        2: "vwap is not a finite number",
        3: "trades is below 0",
        4: "source is none of MINUTES, NATIVE, TRADES",
        5: "volume or vwap is beyond what can be summed up",
        6: "volume or vwap is beyond what can be summed up",
    }


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.csv", "", row(0), "", "", "x", row(1), end="\r\n")

    bars, _, refused = read(open_reader(path))

    assert [one.line for one in refused] == [6]
    assert len(bars) == 2


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text(f"\ufeffvolume,close,note,low,high,open,timestamp_ms\n5,4,hello,1,8,2,{T0}\n")

    bars, observed, refused = read(open_reader(path))

    assert refused == []
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]) == (
        2,
        8,
        1,
        4,
        5,
    )
    assert observed.tolist() == [T0 + MINUTE] == bars.updated.tolist()


def test_an_export_that_was_cut_off_does_not_end_with_half_a_number(tmp_path: Path) -> None:
    time = np.array([T0, T0 + MINUTE])
    page = ObservedBars(Bars.of(time, [1] * 2, [2] * 2, [1] * 2, [2] * 2, [3] * 2, flags=1), time)
    path = write(tmp_path / "one.csv", label_of(page), [page])
    path.write_bytes(path.read_bytes()[:-4])

    bars, _, refused = read(open_reader(path))

    assert bars.time.tolist() == [T0]
    assert [(one.line, one.reason) for one in refused] == [(4, "the file ends in the middle")]


def test_a_file_from_new_to_old_is_refused_whole(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.csv", *(row(minute) for minute in reversed(range(5))))

    with pytest.raises(UnreadableFile, match="the oldest first"):
        read(open_reader(path))


def test_seconds_are_not_taken_for_milliseconds(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.csv", "1700000040,1,2,1,2,3", "1700000100,1,2,1,2,3")

    assert set(reasons(path).values()) == {"timestamp_ms looks like seconds, not milliseconds"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("timestamp_ms,open,high,low,close\n", "column 'volume' is missing"),
        (NAMES + ",open\n", "column 'open' comes twice"),
        ("", "column 'timestamp_ms' is missing"),
        ("# bargraph {}\n" + NAMES + "\n", "its label cannot be read"),
        ('# bargraph {"version":2}\n', "its label has version 2, not 1"),
        (NAMES + "\n" + "9" * 200_000, "it has a line of more than 65536 bytes"),
    ],
)
def test_what_is_no_table_of_bars_says_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "one.csv"
    path.write_text(text)

    with pytest.raises(UnreadableFile, match=r"^one\.csv: ") as refused:
        read(open_reader(path))

    assert refused.value.reason.startswith(reason)


def test_parquet_with_other_types_is_refused_not_rounded(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    columns = {name: pa.array([1.5], pa.float64()) for name in NAMES.split(",")}
    columns |= {"timestamp_ms": pa.array([T0]), "open": pa.array([1.5], pa.float32())}
    pq.write_table(pa.table(columns), path)

    with pytest.raises(UnreadableFile, match="'open' is of type float, not double"):
        open_reader(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    path.write_bytes(b"hello")

    with pytest.raises(UnreadableFile):
        open_reader(path)
