"""Parquet files of bars: read and written a page of bars at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasources.files.label import Label, UnreadableFile, read_label
from datasources.files.reading import BarFile, Batch, Position, checked_columns
from datasources.files.table import READ_AS, SCHEMA, Rows

BATCH = 10_000
"""Rows of one batch, and of one group that is written."""
_LABEL = b"bargraph"
_STEADY = ("timestamp_ms", "trades", "updated_ms", "observed_ms")
"""Columns of numbers that differ little from row to row."""
_LOST = (pa.ArrowException, OSError)


class ParquetReader:
    """Reads one Parquet file. Raises `UnreadableFile` where it is none, or holds no bars."""

    def __init__(self, path: Path) -> None:
        try:
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                self._groups = [
                    file.metadata.row_group(group).num_rows
                    for group in range(file.metadata.num_row_groups)
                ]
        except _LOST as error:
            raise UnreadableFile(path.name, _first_line(error)) from error
        columns = checked_columns(schema.names, name=path.name)
        for name in columns:
            if name in READ_AS.names:
                _check_type(name, schema.field(name).type, path.name)
        text = (schema.metadata or {}).get(_LABEL)
        label = None if text is None else read_label(text, name=path.name)
        self._file = BarFile(path, label, columns, rows)

    @property
    def file(self) -> BarFile:
        return self._file

    def batches(self, after: Position) -> Iterator[Batch]:
        wanted = [name for name in self._file.columns if name in READ_AS.names]
        schema = pa.schema([READ_AS.field(name) for name in wanted])
        first, at = self._group_of(after.offset)
        groups = list(range(first, len(self._groups)))
        try:
            with pq.ParquetFile(self._file.path) as file:
                for found in file.iter_batches(BATCH, row_groups=groups, columns=wanted):
                    start, at = at, at + found.num_rows
                    if at <= after.offset:
                        continue
                    left = found.slice(max(0, after.offset - start)).select(wanted).cast(schema)
                    numbers = np.arange(at - left.num_rows + 1, at + 1)
                    yield Batch(Rows.of(numbers, left), (), Position(at, at))
        except _LOST as error:
            raise UnreadableFile(self._file.path.name, _first_line(error)) from error

    def _group_of(self, row: int) -> tuple[int, int]:
        """Return the group that holds *row*, and its first row."""
        start = 0
        for group, count in enumerate(self._groups):
            if row < start + count:
                return group, start
            start += count
        return len(self._groups), start


class ParquetWriter:
    """Writes one Parquet file: pages of bars, each a row group, and the label."""

    def __init__(self, stream: BinaryIO, label: Label) -> None:
        schema = SCHEMA.with_metadata({_LABEL: label.dumped()})
        self._writer = pq.ParquetWriter(
            stream,
            schema,
            compression="zstd",
            use_dictionary=["source"],
            column_encoding=dict.fromkeys(_STEADY, "DELTA_BINARY_PACKED"),
        )
        self._schema = schema

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows of `SCHEMA`."""
        table = pa.Table.from_batches([rows]).cast(self._schema)
        self._writer.write_table(table, row_group_size=BATCH)


def _check_type(name: str, kind: pa.DataType, file: str) -> None:
    wanted = READ_AS.field(name).type
    if pa.types.is_integer(wanted):
        fits = pa.types.is_integer(kind)
    elif pa.types.is_string(wanted):
        fits = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        fits = fits or (pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))
    else:
        # A float32 is no shorter way to write a price: most become another number.
        fits = pa.types.is_float64(kind) or pa.types.is_integer(kind)
    if not fits:
        raise UnreadableFile(file, f"column {name!r} is of type {kind}, not {wanted}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
