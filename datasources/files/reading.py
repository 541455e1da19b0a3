"""What every reader of a file of bars gives, whatever the format: batches, refusals, a position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from datasources.files.label import Label, UnreadableFile
from datasources.files.table import NEEDED, READ_AS, Rows

_SHOWN = 200
"""Characters of a refused row that a report quotes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that is not taken in. *line* counts from 1; of Parquet it is the row."""

    line: int
    reason: str
    row: str = ""

    @classmethod
    def quoting(cls, line: int, reason: str, row: bytes) -> Refused:
        shown = row[: 4 * _SHOWN].decode("utf-8", "replace").strip()
        return cls(line, reason, shown[:_SHOWN])


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: after so many bytes (Parquet: rows) and so many lines."""

    offset: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the order of the file, what could not be read among them, and what comes next."""

    rows: Rows
    refused: Sequence[Refused]
    then: Position


@dataclass(frozen=True, slots=True)
class BarFile:
    """What is known of a file before its rows are read. *size* is in the unit of `offset`."""

    path: Path
    label: Label | None
    columns: tuple[str, ...] = field(default=())
    size: int = 0


class Reader(Protocol):
    """Reads one file in bounded batches. It blocks: call it in a thread."""

    @property
    def file(self) -> BarFile: ...

    def batches(self, after: Position) -> Iterator[Batch]:
        """Yield what follows *after*, a position this reader gave. Raises `UnreadableFile`."""
        ...


def checked_columns(names: Sequence[str], *, name: str) -> tuple[str, ...]:
    """Return the *names* of columns if each that is needed is there, and none that counts twice.

    Raises `UnreadableFile` for the file called *name*.
    """
    for column in READ_AS.names:
        found = list(names).count(column)
        if found > 1:
            raise UnreadableFile(name, f"column {column!r} comes twice")
        if not found and column in NEEDED:
            raise UnreadableFile(name, f"column {column!r} is missing")
    return tuple(names)
