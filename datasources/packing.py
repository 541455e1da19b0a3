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
_FLOAT = np.dtype("<f8")


def pack(bars: Bars, facts: dict[str, Any]) -> bytes:
    """Return *bars* and JSON-able *facts* as one value: version, header length, header, columns."""
    header = orjson.dumps({"n": len(bars), **facts})
    columns = (
        getattr(bars, name).astype(_TYPES.get(name, _FLOAT), copy=False).tobytes()
        for name in Bars.COLUMNS
    )
    return b"".join((_PREFIX.pack(_VERSION, len(header)), header, *columns))


def unpack(value: bytes) -> tuple[Bars, dict[str, Any]] | None:
    """Return what `pack` was given; None if *value* has another layout or was cut."""
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
    columns: list[Any] = []
    for name in Bars.COLUMNS:
        dtype = _TYPES.get(name, _FLOAT)
        if at + n * dtype.itemsize > len(value):
            return None
        columns.append(np.frombuffer(value, dtype, n, at))
        at += n * dtype.itemsize
    return Bars(*columns), header


def spans_out(spans: Spans) -> list[tuple[int, int]]:
    return [(window.since, window.until) for window in spans]


def spans_in(pairs: list[tuple[int, int]]) -> Spans:
    return Spans(Window(since, until) for since, until in pairs)
