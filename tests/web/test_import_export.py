"""`import`, `export` and `move` as they are given on a command line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from db.pool import open_pool
from db.stored import SeriesKey
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import DAY, MINUTE, Spans
from tests.conftest import scratch_database
from tests.datasources.files.tables import lines, row
from tests.db.minutes import T0, minutes, put, stored
from tests.web.serving import environment
from web.bootstrap import SQL

PATIENCE = 60.0


class Line:
    """A command line in a folder, over a database of its own."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.environment = environment(
            database_url=database_url, redis_url=redis_url, redis_prefix=f"test-{os.getpid()}:"
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "web", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, errors = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def keep(self, symbol: str, count: int) -> list[int]:
        """Store *count* minutes of binance's *symbol*, and return their times."""
        times = [T0 + n * MINUTE for n in range(count)]

        async def write() -> None:
            async with open_pool(self.database_url) as pool:
                await put(
                    CandleStore(pool),
                    minutes_of(symbol),
                    minutes(times),
                    settled=Spans.of(times[0], times[-1] + MINUTE),
                )

        asyncio.run(write())
        return times

    def bars(self, symbol: str) -> list[int]:
        """Return the times of the stored minutes of binance's *symbol*."""

        async def read() -> list[int]:
            async with open_pool(self.database_url) as pool:
                return (await stored(CandleStore(pool), minutes_of(symbol))).time.tolist()

        return asyncio.run(read())

    def drop(self, symbol: str, before: int) -> None:
        """Drop the minutes of *symbol* that are older than *before*, as retention does."""

        async def draw() -> None:
            connection = await asyncpg.connect(self.database_url)
            try:
                await connection.execute(
                    "SELECT drop_bars(id, ARRAY[from_epoch_ms($1)]) FROM series WHERE symbol = $2",
                    before,
                    symbol,
                )
            finally:
                await connection.close()

        asyncio.run(draw())

    def count(self, table: str) -> int:
        async def ask() -> int:
            connection = await asyncpg.connect(self.database_url)
            try:
                return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
            finally:
                await connection.close()

        return asyncio.run(ask())


def minutes_of(symbol: str) -> SeriesKey:
    return SeriesKey(Listing("binance", "crypto", symbol), MINUTE_FRAME)


@pytest.fixture
def line(embedded: EmbeddedServers, tmp_path: Path) -> Iterator[Line]:
    with scratch_database(embedded.postgres_url) as url:
        asyncio.run(migrate(url, SQL))
        yield Line(tmp_path, url, embedded.redis_url)


@pytest.fixture
def other_line(embedded: EmbeddedServers, tmp_path: Path) -> Iterator[Line]:
    with scratch_database(embedded.postgres_url) as url:
        yield Line(tmp_path, url, embedded.redis_url)


def test_a_recording_is_imported_and_comes_out_as_the_same_bytes(
    line: Line, other_line: Line, recordings: Path
) -> None:
    recording = recordings / "binance_BTCUSDT_1m_202501.csv"

    taken = line.run("import", str(recording), "--complete")
    written = line.run("export", "binance:BTC/USDT:1m", "-o", "one.parquet")
    again = other_line.run("import", "one.parquet")
    rewritten = other_line.run("export", "binance:BTC/USDT:1m", "-o", "two.parquet")

    assert [run.returncode for run in (taken, written, again, rewritten)] == [0] * 4
    assert taken.stdout.startswith(f"{recording.name}: 50,000 bars as binance:BTC/USDT:1m (crypto)")
    one, two = (line.folder / name for name in ("one.parquet", "two.parquet"))
    assert one.read_bytes() == two.read_bytes()


def test_refused_lines_are_named_and_the_rest_goes_in(line: Line) -> None:
    lines(line.folder / "binance_BTCUSDT_1m.csv", row(0), "nonsense", row(2))

    run = line.run("import", "binance_BTCUSDT_1m.csv")

    assert run.returncode == 0
    assert "2 bars, 1 lines refused" in run.stdout
    (report,) = line.folder.glob("binance_BTCUSDT_1m.csv.*.refused.csv")
    assert f"which lines were refused and why is in {report.name}" in run.stdout
    assert report.read_text().splitlines() == [
        "line,reason,row",
        "3,it has 1 fields where the header has 6,nonsense",
    ]
    assert len(line.bars("BTC/USDT")) == 2


def test_files_of_one_name_in_two_folders_are_reported_apart(line: Line) -> None:
    names = [f"{folder}/binance_BTCUSDT_1m.csv" for folder in ("one", "two", "three")]
    for name, rows in zip(names, [["first"], ["second"], []], strict=True):
        (line.folder / name).parent.mkdir()
        lines(line.folder / name, row(0), *rows)

    line.run("import", *names)
    line.run("import", names[0])

    reports = [path.read_text() for path in line.folder.glob("*.refused.csv")]
    assert sorted(text.splitlines()[1].rpartition(",")[2] for text in reports) == [
        "first",
        "second",
    ]


def test_an_export_that_was_cut_off_is_taken_in_with_a_warning(
    line: Line, other_line: Line
) -> None:
    line.keep("BTC/USDT", 100)
    line.run("export", "binance:BTC/USDT:1m", "-o", "one.csv")
    whole = (line.folder / "one.csv").read_text().splitlines(keepends=True)
    (line.folder / "one.csv").write_text("".join(whole[:52]))

    run = other_line.run("import", "one.csv")
    again = line.run("import", "one.csv")

    assert "its label says 100 rows, but there are 50: it was cut off or changed" in run.stdout
    assert "its label says 100 rows, but there are 50" in again.stdout
    assert len(other_line.bars("BTC/USDT")) == 50
    assert len(line.bars("BTC/USDT")) == 100


def test_a_file_that_cannot_be_taken_in_does_not_keep_the_others_out(line: Line) -> None:
    lines(line.folder / "prices.csv", row(0))
    lines(line.folder / "binance_BTCUSDT_1m.csv", row(0))

    run = line.run("import", "prices.csv", "absent_X_1m.csv", "binance_BTCUSDT_1m.csv")

    assert run.returncode == 1
    assert "prices.csv: it says not whose bars it holds" in run.stderr
    assert "absent_X_1m.csv: No such file or directory" in run.stderr
    assert len(line.bars("BTC/USDT")) == 1


def test_hours_are_computed_of_the_stored_minutes_and_not_taken_in_again(line: Line) -> None:
    line.keep("BTC/USDT", 180)

    run = line.run("export", "binance:BTC/USDT:1h")
    again = line.run("import", "binance_BTC-USDT_1h.csv")

    exported = (line.folder / "binance_BTC-USDT_1h.csv").read_text().splitlines()
    assert run.returncode == 0
    # Three hours of minutes that begin at no full hour: two are whole.
    assert [text.split(",")[5] for text in exported[2:]] == ["120"] * 2
    assert again.returncode == 1
    assert "computed from finer ones" in again.stderr


def test_an_export_says_since_when_it_is_complete_if_minutes_were_dropped(line: Line) -> None:
    times = line.keep("BTC/USDT", 2 * 1440)
    midnight = times[0] // DAY * DAY + DAY
    line.drop("BTC/USDT", midnight)

    # The first hour was never whole.
    whole = ("--since", "2023-11-14T23:00:00Z")
    hours = line.run("export", "binance:BTC/USDT:1h", "-o", "hours.csv", *whole)
    odd = line.run("export", "binance:BTC/USDT:7m", "-o", "odd.csv")
    rest = line.run("export", "binance:BTC/USDT:1m", "-o", "rest.csv")

    assert hours.stderr.startswith("47 bars")
    assert "complete from" not in hours.stderr
    written = (line.folder / "odd.csv").read_text().splitlines()[2:]
    assert int(written[0].split(",")[0]) == midnight
    told = "complete from 2023-11-15T00:00:00Z on: older bars are not kept"
    assert told in odd.stderr
    assert told in rest.stderr


def test_an_export_goes_to_a_pipe_in_the_window_that_was_asked_for(line: Line) -> None:
    times = line.keep("BTC/USDT", 10)
    first, last = times[3], times[5]

    run = line.run(
        *("export", "binance:BTC/USDT:1m", "-o", "-"),
        *("--since", str(first), "--until", str(last)),
    )

    told = [int(text.split(",")[0]) for text in run.stdout.splitlines()[2:]]
    assert told == [first, first + MINUTE]


def test_a_series_that_is_not_stored_is_named_with_the_nearest(line: Line) -> None:
    line.keep("BTC/USDT", 1)

    run = line.run("export", "binance:BTCUSD:1m")

    assert run.returncode == 1
    assert "Unknown stored symbol 'BTCUSD'. Did you mean BTC/USDT?" in run.stderr


def test_an_import_that_was_killed_goes_on_where_it_stopped(line: Line) -> None:
    rows = [row(minute, 10 + minute % 50) for minute in range(150_000)]
    lines(line.folder / "binance_BTCUSDT_1m.csv", *rows)
    killed = line.start("import", "binance_BTCUSDT_1m.csv")
    deadline = time.monotonic() + PATIENCE
    while not line.count("import_progress"):
        assert time.monotonic() < deadline
    killed.kill()
    killed.communicate()
    before = line.count("bar")

    run = line.run("import", "binance_BTCUSDT_1m.csv")

    assert 0 < before < 150_000
    assert "150,000 bars" in run.stdout
    assert "gone on after line" in run.stdout
    assert len(line.bars("BTC/USDT")) == 150_000
    assert line.count("import_progress") == 0


def test_a_store_moves_by_one_command(line: Line, other_line: Line) -> None:
    times = line.keep("BTC/USDT", 100)

    run = line.run("move", "--to", other_line.database_url)

    assert run.returncode == 0, run.stderr
    assert "each compared" in run.stdout
    assert "Its mode is plain." in run.stdout
    assert other_line.bars("BTC/USDT") == times


def test_a_wrong_target_is_not_quoted_for_it_may_hold_a_password(line: Line) -> None:
    run = line.run("move", "--to", "mysql://user:secret@host/name")

    assert run.returncode == 2
    assert "secret" not in run.stderr + run.stdout
