"""Bars and what is known about them as bytes, for Redis."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson

from market.bars import Bars
from market.window import Spans, Window

# Bump when the layout changes: entries of another version read as absent.
_VERSION = 2
_PREFIX = struct.Struct("<BI")
_TYPES = {"flags": np.dtype("u1")} | dict.fromkeys(
    ("time", "trades", "revision", "updated"), np.dtype("<i8")
)
_LAYOUT = tuple((name, _TYPES.get(name, np.dtype("<f8"))) for name in Bars.COLUMNS)
_ROW = sum(dtype.itemsize for _, dtype in _LAYOUT)


class Packer:
    """Packs stretches of the same bars, looking at their columns once."""

    def __init__(self, bars: Bars) -> None:
        self._columns = [
            (np.ascontiguousarray(column, dtype).view(np.uint8).data, dtype.itemsize)
            for column, (_, dtype) in zip(bars.columns, _LAYOUT, strict=True)
        ]

    def pack(self, first: int, last: int, facts: dict[str, Any]) -> bytes:
        """Return the bars from *first* up to *last* and JSON-able *facts* as one value.

        It is made of version, header length, header, columns.
        """
        header = orjson.dumps({"n": last - first, **facts})
        columns = [column[first * size : last * size] for column, size in self._columns]
        return b"".join((_PREFIX.pack(_VERSION, len(header)), header, *columns))


def pack(bars: Bars, facts: dict[str, Any]) -> bytes:
    """Return all of *bars* and JSON-able *facts* as one value."""
    return Packer(bars).pack(0, len(bars), facts)


def unpack(value: bytes) -> tuple[Bars, dict[str, Any]] | None:
    """Return what was packed; None if *value* has another layout or was cut."""
    if len(value) < _PREFIX.size:
        return None
    version, length = _PREFIX.unpack_from(value)
    if version != _VERSION:
        return None
    at = _PREFIX.size + length
    if at > len(value):
        return None
    header: dict[str, Any] = orjson.loads(value[_PREFIX.size : at])
    n = header.pop("n")
    if at + n * _ROW > len(value):
        return None
    columns: list[Any] = []
    for _, dtype in _LAYOUT:
        columns.append(np.frombuffer(value, dtype, n, at))
        at += n * dtype.itemsize
    return Bars(*columns), header


def spans_out(spans: Spans) -> list[tuple[int, int]]:
    return [(window.since, window.until) for window in spans]


def spans_in(pairs: list[tuple[int, int]]) -> Spans:
    return Spans(Window(since, until) for since, until in pairs)
