"""Read one recording's columns from CSV or Parquet, or say which line is wrong and why.

Columns by header, in any order, others ignored: `timestamp_ms` (opening, milliseconds since the
epoch, UTC), `open`, `high`, `low`, `close`, `volume`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from market.bars import Floats
from market.window import DAY, Mask, Times
from market.zones import ERA

TIME = "timestamp_ms"
PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")
SUFFIXES = (".csv", ".parquet")
LARGEST_FILE = 1 << 30
"""Bytes. Ten years of minutes take 0.4 GB as CSV."""

# A recording whose every time is this near to 1970 counts seconds (until the year 2286).
_NEAR_EPOCH = 10_000_000_000


class Unreadable(Exception):
    """A file that is refused. *row* counts its records from 0; None blames the whole file."""

    def __init__(self, row: int | None, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What a file holds, unchanged; *prices* and *volume* by row, times strictly ascending."""

    time: Times
    prices: tuple[Floats, Floats, Floats, Floats]
    volume: Floats


def read(path: Path) -> Columns:
    """Return the checked columns of the file at *path*. Raises `Unreadable`."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise Unreadable(None, f"it has {size} bytes, more than {LARGEST_FILE}")
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if table.num_rows == 0:
        raise Unreadable(None, "it holds no bars")
    if table.column(TIME).null_count:
        missing = np.asarray(table.column(TIME).is_null())
        raise Unreadable(int(np.argmax(missing)), f"{TIME} is missing")
    time = table.column(TIME).to_numpy().astype(np.int64)
    opened, high, low, close, volume = (
        table.column(name).to_numpy().astype(np.float64) for name in NUMBERS
    )
    columns = Columns(time, (opened, high, low, close), volume)
    _check(columns)
    return columns


def line_of(path: Path, row: int) -> int:
    """Return the line that record *row* (from 0) stands on; of Parquet, its number from 1."""
    if path.suffix.lower() == ".parquet":
        return row + 1
    for index, (line, _) in enumerate(_records(path)):
        # The header is the first of them.
        if index == row + 1:
            return line
    return row + 2


def refuse_first(*wrong: tuple[Mask, str]) -> None:
    """Raise `Unreadable` for the first row that any of the masks marks, with its reason."""
    found = [(int(np.argmax(mask)), reason) for mask, reason in wrong if mask.any()]
    if found:
        raise Unreadable(*min(found, key=lambda one: one[0]))


def _check(columns: Columns) -> None:
    time, volume = columns.time, columns.volume
    opened, high, low, close = columns.prices
    _check_unit(time)
    refuse_first(
        *(
            (~np.isfinite(price), f"{name} is not a finite number")
            for name, price in zip(PRICES, columns.prices, strict=True)
        ),
        (~np.isfinite(volume) | (volume < 0), "volume is not a number of 0 or more"),
        (high < low, "high is below low"),
        (high < np.maximum(opened, close), "high is below open or close"),
        (low > np.minimum(opened, close), "low is above open or close"),
        (np.diff(time, prepend=time[0] - 1) == 0, "the same time comes twice"),
        (np.diff(time, prepend=time[0] - 1) < 0, "its time is before that of the line above"),
    )


def _check_unit(time: Times) -> None:
    if np.abs(time).max() < _NEAR_EPOCH and (len(time) > 1 or time[0] % DAY):
        raise Unreadable(0, f"{TIME} {time[0]} looks like seconds, not milliseconds")
    refuse_first(
        (time >= ERA.until, f"{TIME} looks like micro- or nanoseconds, not milliseconds"),
        (time < ERA.since, f"{TIME} is before the year 1700"),
    )


def _parquet(path: Path) -> Any:
    # Imported here, as below: pyarrow is needed only where there are recordings.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            _check_header(file.schema_arrow.names)
            table = file.read(columns=[TIME, *NUMBERS])
            kind = table.schema.field(TIME).type
            if not pa.types.is_integer(kind):
                raise Unreadable(None, f"{TIME} is of type {kind}, not a whole number")
            return table.cast(_schema(pa))
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(None, _first_line(error)) from error


def _csv(path: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv as arrow_csv  # noqa: PLC0415

    _check_header(next((record for _, record in _records(path)), []))
    schema = _schema(pa)
    try:
        return arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(use_threads=False),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=schema.names, column_types=schema
            ),
        )
    except (pa.ArrowException, OSError) as error:
        _find_unparseable(path)
        raise Unreadable(None, _first_line(error)) from error


def _schema(pa: Any) -> Any:
    return pa.schema([(TIME, pa.int64()), *((name, pa.float64()) for name in NUMBERS)])


def _check_header(names: list[str]) -> None:
    if not names:
        raise Unreadable(None, "it is empty")
    for name in (TIME, *NUMBERS):
        if names.count(name) != 1:
            fault = "is missing" if name not in names else "comes twice"
            raise Unreadable(None, f"column {name!r} {fault}")


def _find_unparseable(path: Path) -> None:
    """Raise `Unreadable` for the first record that is no bar; arrow says no line number."""
    records = _records(path)
    _, header = next(records)
    for row, (_, record) in enumerate(records):
        if len(record) != len(header):
            raise Unreadable(row, f"it has {len(record)} fields where the header has {len(header)}")
        fields = dict(zip(header, record, strict=True))
        if not _is(int, fields[TIME]):
            raise Unreadable(row, f"{TIME} {fields[TIME][:40]!r} is not a whole number")
        for name in NUMBERS:
            if not _is(float, fields[name]):
                raise Unreadable(row, f"{name} {fields[name][:40]!r} is not a number")


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line it ends on, without blank lines, the header first."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        try:
            for record in reader:
                if record:
                    yield reader.line_num, record
        except csv.Error as error:
            raise Unreadable(None, f"line {reader.line_num}: {error}") from error


def _is(kind: type[int | float], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return "_" not in text


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
