"""Which formats there are, and how a file is opened to be read or written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from datasources.files.csv_files import CsvReader, CsvWriter
from datasources.files.label import Label, UnreadableFile
from datasources.files.parquet_files import ParquetReader, ParquetWriter
from datasources.files.reading import Reader


class Format(StrEnum):
    """A format, called as files of it end."""

    CSV = "csv"
    PARQUET = "parquet"


class Writer(Protocol):
    """Writes one file."""

    def write(self, rows: Any) -> None: ...


def format_of(path: Path) -> Format:
    """Return the format that the name of *path* ends with. Raises `UnreadableFile`."""
    try:
        return Format(path.suffix.lower().removeprefix("."))
    except ValueError:
        raise UnreadableFile(path.name, "it ends neither in .csv nor in .parquet") from None


def open_reader(path: Path) -> Reader:
    """Return a reader of *path*. It blocks: call it in a thread. Raises `UnreadableFile`."""
    kind = format_of(path)
    try:
        return CsvReader(path) if kind is Format.CSV else ParquetReader(path)
    except OSError as error:
        raise UnreadableFile(path.name, error.strerror or "it cannot be read") from error


def open_writer(kind: Format, stream: BinaryIO, label: Label) -> AbstractContextManager[Writer]:
    """Return a writer of format *kind* to *stream*, which begins with *label*."""
    return CsvWriter(stream, label) if kind is Format.CSV else ParquetWriter(stream, label)
