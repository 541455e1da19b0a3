"""CSV files of bars: read a megabyte of lines at a time, written a page of bars at a time.

Numbers are written as the shortest text that reads back as the same float64. A block of lines is
parsed by arrow as a whole; only one that arrow refuses is looked at line by line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from datasources.files.label import Label, UnreadableFile, read_label
from datasources.files.reading import BarFile, Batch, Position, Refused, checked_columns
from datasources.files.table import NONE, READ_AS, SCHEMA, Rows
from market.bars import Ints

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 16
_LONGEST_LABEL = 1 << 24
_LABEL = b"# bargraph "
_BOM = b"\xef\xbb\xbf"
_INTS = np.iinfo(np.int64)


class CsvReader:
    """Reads one CSV file, *block* bytes at a time.

    Raises `UnreadableFile` where its label or header is wrong.
    """

    def __init__(self, path: Path, *, block: int = _BLOCK) -> None:
        self._block = block
        with path.open("rb") as stream:
            line = stream.readline(_LONGEST_LABEL).removeprefix(_BOM)
            label, lines = None, 1
            if line.startswith(_LABEL):
                label, lines = read_label(line[len(_LABEL) :], name=path.name), 2
                line = stream.readline(_LONGEST_LINE)
            header = next(csv.reader([line.decode("utf-8", "replace").strip()]), [])
            columns = checked_columns([name.strip() for name in header], name=path.name)
            self._start = Position(stream.tell(), lines)
        self._file = BarFile(path, label, columns, path.stat().st_size)

    @property
    def file(self) -> BarFile:
        return self._file

    def batches(self, after: Position) -> Iterator[Batch]:
        at = after if after.offset else self._start
        with self._file.path.open("rb") as stream:
            stream.seek(at.offset)
            for block in _blocks(stream, self._block, self._file.path.name):
                lines = block.splitlines()
                then = Position(at.offset + len(block), at.line + len(lines))
                numbers = np.arange(at.line + 1, then.line + 1)
                if self._file.label is not None and not block.endswith(b"\n"):
                    # Ours end with the end of a line: this number may have had more digits.
                    refused = Refused.quoting(then.line, "the file ends in the middle", lines[-1])
                    whole = block[: len(block) - len(lines[-1])]
                    rows, others = self._parsed(whole, lines[:-1], numbers[:-1])
                    yield Batch(rows, (*others, refused), then)
                else:
                    yield Batch(*self._parsed(block, lines, numbers), then)
                at = then

    def _parsed(
        self, block: bytes, lines: list[bytes], numbers: Ints
    ) -> tuple[Rows, tuple[Refused, ...]]:
        filled = np.fromiter((bool(line.strip()) for line in lines), np.bool_, len(lines))
        if not filled.any():
            return self._empty(), ()
        try:
            table = arrow_csv.read_csv(
                io.BytesIO(block),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False, column_names=list(self._file.columns), block_size=2 * _BLOCK
                ),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=False),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=self._known(),
                    column_types=READ_AS,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowException:
            return self._one_by_one(lines, numbers)
        if table.num_rows != int(filled.sum()):
            # A quote that runs over the end of a line, for one.
            return self._one_by_one(lines, numbers)
        return Rows.of(numbers[filled], table.combine_chunks()), ()

    def _one_by_one(self, lines: list[bytes], numbers: Ints) -> tuple[Rows, tuple[Refused, ...]]:
        known = self._known()
        taken: list[int] = []
        columns: dict[str, list[Any]] = {name: [] for name in known}
        refused: list[Refused] = []
        for number, line in zip(numbers.tolist(), lines, strict=True):
            if not line.strip():
                continue
            try:
                values = self._fields(line)
            except ValueError as wrong:
                refused.append(Refused.quoting(number, str(wrong), line))
                continue
            taken.append(number)
            for name in known:
                columns[name].append(values[name])
        arrays = {
            name: np.array(values, dtype=_DTYPES[READ_AS.field(name).type])
            for name, values in columns.items()
        }
        return Rows(np.array(taken, np.int64), arrays), tuple(refused)

    def _fields(self, line: bytes) -> dict[str, Any]:
        """Return the values of *line* by column. Raises `ValueError`, which says what is wrong."""
        try:
            found = next(csv.reader([line.decode()], strict=True))
        except (csv.Error, UnicodeDecodeError, StopIteration) as error:
            raise ValueError(f"it is no CSV ({error})") from error
        names = self._file.columns
        if len(found) != len(names):
            raise ValueError(f"it has {len(found)} fields where the header has {len(names)}")
        return {
            name: _value(name, text.strip())
            for name, text in zip(names, found, strict=True)
            if name in READ_AS.names
        }

    def _known(self) -> list[str]:
        return [name for name in self._file.columns if name in READ_AS.names]

    def _empty(self) -> Rows:
        return Rows(np.empty(0, np.int64), {})


class CsvWriter:
    """Writes one CSV file: the label, the header, and pages of bars."""

    def __init__(self, stream: BinaryIO, label: Label) -> None:
        self._stream = stream
        self._options = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
        stream.write(_LABEL + label.dumped() + b"\n")
        stream.write(",".join(SCHEMA.names).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stream.flush()

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows of `SCHEMA`."""
        text = pa.BufferOutputStream()
        arrow_csv.write_csv(rows, text, self._options)
        self._stream.write(text.getvalue())


_DTYPES: dict[Any, Any] = {pa.int64(): np.int64, pa.float64(): np.float64, pa.string(): object}


def _value(name: str, text: str) -> Any:
    kind = READ_AS.field(name).type
    if pa.types.is_string(kind):
        return text
    if not text:
        return NONE if pa.types.is_integer(kind) else float("nan")
    try:
        if "_" in text:
            raise ValueError
        number = int(text) if pa.types.is_integer(kind) else float(text)
    except ValueError:
        whole = "a whole number" if pa.types.is_integer(kind) else "a number"
        raise ValueError(f"{name} {text[:40]!r} is not {whole}") from None
    if isinstance(number, int) and not _INTS.min < number <= _INTS.max:
        raise ValueError(f"{name} {text[:40]!r} is too large")
    return number


def _blocks(stream: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    """Yield whole lines, about a megabyte at a time. Raises `UnreadableFile` for an endless one."""
    rest = b""
    while read := stream.read(size):
        block = rest + read
        end = block.rfind(b"\n") + 1
        if len(block) - end > _LONGEST_LINE:
            raise UnreadableFile(name, f"it has a line of more than {_LONGEST_LINE} bytes")
        if end:
            yield block[:end]
        rest = block[end:]
    if rest:
        yield rest
