"""The columns of a file of bars, and how they become bars and back.

| column | holds | absent |
| --- | --- | --- |
| `timestamp_ms` | when the bar opens, milliseconds since the epoch, UTC | refused |
| `open high low close volume` | float64, written so that every bit is read back | refused |
| `vwap`, `trades` | empty where the provider gives none | none |
| `source` | `MINUTES`, `NATIVE` or `TRADES` | by the timeframe |
| `updated_ms` | the provider's time of the last input | when the bar closed |
| `observed_ms` | when the provider was asked for these values | when the bar closed |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from db.bar_pages import ObservedBars
from market.bars import CLOSED, FROM_TRADES, NATIVE, Bars, Flags, Floats, Ints

TIME = "timestamp_ms"
PRICES = ("open", "high", "low", "close")
NEEDED = (TIME, *PRICES, "volume")
SCHEMA = pa.schema(
    [
        pa.field(TIME, pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in (*PRICES, "volume")),
        pa.field("vwap", pa.float64()),
        pa.field("trades", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("updated_ms", pa.int64(), nullable=False),
        pa.field("observed_ms", pa.int64(), nullable=False),
    ]
)
READ_AS = pa.schema([pa.field(field.name, field.type) for field in SCHEMA])
"""The same columns, in which anything may be missing."""
NONE = np.iinfo(np.int64).min
"""Stands for a whole number that a row lacks."""
_SOURCES = {"MINUTES": 0, "NATIVE": NATIVE, "TRADES": FROM_TRADES}


def table_of(page: ObservedBars) -> pa.RecordBatch:
    """Return closed bars as rows of a file."""
    bars = page.bars
    return pa.record_batch(
        [
            pa.array(bars.time),
            *(pa.array(getattr(bars, name)) for name in (*PRICES, "volume")),
            pa.array(bars.vwap, mask=np.isnan(bars.vwap)),
            pa.array(bars.trades, mask=bars.trades < 0),
            pa.array(_words(bars.flags)),
            pa.array(bars.updated),
            pa.array(page.observed),
        ],
        schema=SCHEMA,
    )


class Rows:
    """Rows of a file as columns, unchecked. *line* counts from 1; of Parquet it is the row."""

    __slots__ = ("columns", "line")

    def __init__(self, line: Ints, columns: dict[str, NDArray[Any]]) -> None:
        self.line = line
        self.columns = columns

    @classmethod
    def of(cls, line: Ints, table: pa.Table | pa.RecordBatch) -> Rows:
        """Return the rows of *table*, whose columns are some of `READ_AS`.

        A number that is missing is NaN, a whole one `NONE`, a word "".
        """
        columns: dict[str, NDArray[Any]] = {}
        for name in table.schema.names:
            column = table.column(name)
            kind = READ_AS.field(name).type
            if pa.types.is_string(kind):
                columns[name] = np.asarray(column.fill_null("").to_pylist(), dtype=object)
            elif pa.types.is_integer(kind):
                columns[name] = column.fill_null(NONE).to_numpy(zero_copy_only=False)
            else:
                columns[name] = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
        return cls(line, columns)

    def __len__(self) -> int:
        return len(self.line)

    def take(self, index: NDArray[Any]) -> Rows:
        return Rows(
            self.line[index], {name: column[index] for name, column in self.columns.items()}
        )

    def ints(self, name: str, otherwise: Ints) -> Ints:
        """Return a column of whole numbers, *otherwise* where there is none."""
        if name not in self.columns:
            return otherwise
        column: Ints = self.columns[name]
        return np.where(column == NONE, otherwise, column)

    def floats(self, name: str) -> Floats:
        """Return a column of numbers, NaN where there is none."""
        column: Floats = self.columns.get(name, np.full(len(self), np.nan))
        return column

    def sources(self, otherwise: int) -> tuple[Flags, NDArray[np.bool_]]:
        """Return the flag of each row's source, and which name one that there is not."""
        words = self.columns.get("source")
        if words is None:
            return np.full(len(self), otherwise, np.uint8), np.zeros(len(self), np.bool_)
        named, place = np.unique(words.astype(str), return_inverse=True)
        codes = np.array([_SOURCES.get(word, otherwise) for word in named], np.uint8)
        wrong = np.array([bool(word) and word not in _SOURCES for word in named], np.bool_)
        return codes[place], wrong[place]

    def bars(self, *, time: Ints, updated: Ints, marks: Flags) -> Bars:
        """Return the rows as closed bars that open at *time*, oldest first already."""
        trades = self.ints("trades", np.full(len(self), -1))
        return Bars.of(
            time,
            *(self.floats(name) for name in (*PRICES, "volume")),
            vwap=self.floats("vwap"),
            trades=trades,
            updated=updated,
            flags=(marks | CLOSED).astype(np.uint8),
        )


def _words(flags: Flags) -> NDArray[Any]:
    words = np.full(len(flags), "MINUTES", dtype=object)
    words[(flags & NATIVE) != 0] = "NATIVE"
    words[(flags & FROM_TRADES) != 0] = "TRADES"
    return words
