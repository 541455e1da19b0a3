"""Columns to and from PostgreSQL's binary formats, without an object a value.

Rows to write are one packed numpy array in the layout of `COPY ... (FORMAT binary)`; columns read
are the bytes of `array_send(array_agg(...))`, whose elements must not be null.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from market.window import Spans, Times, Window

EARLIEST = -62_135_596_800_000
"""The year 1, in milliseconds since the epoch: times before are clipped or refused."""
LATEST = 253_402_300_800_000
"""The year 10000."""

_EPOCH = 946_684_800_000
"""PostgreSQL counts microseconds from 2000-01-01; this is that day in ours."""
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_ARRAY_HEADER = 20
_ROWS_A_CHUNK = 16_384
_RANGE = struct.Struct(">iBiqiq")
"""Size, flags, then the size of a bound and the bound, twice."""

_Number = TypeVar("_Number", bound=np.generic)

Column = tuple[str, str, NDArray[np.generic]]
"""A column's name, its big-endian type in PostgreSQL (`>i4`, `>f8`, `S9` for texts of nine bytes,
...), and its values."""


def clipped(time: int) -> int:
    """Return *time*, or the nearest one that the store can hold."""
    return min(max(time, EARLIEST), LATEST)


def to_server_time(time: Times) -> Times:
    """Return microseconds since 2000 for milliseconds since 1970."""
    return (time - _EPOCH) * 1000


def from_server_time(time: Times) -> Times:
    """Return milliseconds since 1970 for microseconds since 2000."""
    return time // 1000 + _EPOCH


def copy_rows(*groups: tuple[Column, ...]) -> Iterator[bytes]:
    """Yield the rows of equally long columns as a COPY stream, in bounded chunks.

    Where texts differ in length, rows of each length are a group of their own.
    """
    yield _COPY_HEADER
    for columns in groups:
        yield from _rows(columns)
    yield _COPY_TRAILER


def _rows(columns: tuple[Column, ...]) -> Iterator[bytes]:
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind, _ in columns:
        layout += [(f"{name}_size", ">i4"), (name, kind)]
    dtype = np.dtype(layout)
    count = len(columns[0][2])
    for start in range(0, count, _ROWS_A_CHUNK):
        stop = min(start + _ROWS_A_CHUNK, count)
        rows = np.empty(stop - start, dtype)
        rows["fields"] = len(columns)
        for name, _, values in columns:
            rows[f"{name}_size"] = dtype[name].itemsize
            rows[name] = values[start:stop]
        yield rows.tobytes()


def array_values(sent: bytes | None, kind: str, dtype: type[_Number]) -> NDArray[_Number]:
    """Return the elements of an array sent as type *kind*, as a native *dtype*; null is empty."""
    if not sent or len(sent) < _ARRAY_HEADER:
        return np.empty(0, dtype)
    element = np.dtype([("size", ">i4"), ("value", kind)])
    return np.frombuffer(sent, element, offset=_ARRAY_HEADER)["value"].astype(dtype)


def array_floats(sent: bytes, count: int) -> NDArray[np.float64]:
    """Return the elements of an array sent, each *count* float8 long, as *count* columns.

    Points are two long, segments four.
    """
    element = np.dtype([("size", ">i4"), ("values", ">f8", (count,))])
    values = np.frombuffer(sent, element, offset=_ARRAY_HEADER)["values"]
    return np.array(values.T, np.float64, order="C")


def array_times(sent: bytes | None) -> Times:
    """Return the elements of a `timestamptz[]` in milliseconds since the epoch."""
    return from_server_time(array_values(sent, ">i8", np.int64))


def multirange_spans(sent: bytes) -> Spans:
    """Return the ranges of a `tstzmultirange`, all of which must be finite and half-open."""
    return Spans(
        Window(lower // 1000 + _EPOCH, upper // 1000 + _EPOCH)
        for _, _, _, lower, _, upper in _RANGE.iter_unpack(memoryview(sent)[4:])
    )


def multirange_spans_us(sent: bytes) -> Spans:
    """Return the same ranges in microseconds since 1970, where they are finer than ours."""
    return Spans(
        Window(lower + _EPOCH * 1000, upper + _EPOCH * 1000)
        for _, _, _, lower, _, upper in _RANGE.iter_unpack(memoryview(sent)[4:])
    )
