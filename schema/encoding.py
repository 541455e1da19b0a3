"""Write bars as JSON straight from their columns, and keep what was written of closed ones.

A selection is which fields of `Candle` a client wants under which names. Its text for a chunk of
stored, closed bars is kept by their times, revisions and flags, without which no correction is; the
bars after them are written anew each time. What is kept is bounded by bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import orjson

from datasources.meter import Meter
from market.bars import FROM_TRADES, NATIVE, Bars
from market.instrument import Series
from market.lru import LRU

CHUNK_BARS = 512
_MOST_TEXTS = 100_000
_LONGEST_KEPT = 1_000
"""Characters of all names of a selection that is kept; clients choose them."""
_INT_MAX = 2**31 - 1
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
Texts = list[bytes]


class Unencodable(Exception):
    """Bars that the ordinary path must answer for, because it would refuse some of their values."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Response names with the fields they stand for, in order. `__typename` is *typename*."""

    fields: tuple[tuple[str, str], ...]
    typename: str
    pieces: tuple[bytes, ...] = field(init=False, compare=False)
    columns: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        pieces, columns, pending = [], [], b"{"
        for name, of in self.fields:
            pending += orjson.dumps(name) + b":"
            if of == "__typename":
                pending += orjson.dumps(self.typename) + b","
            else:
                pieces.append(pending)
                columns.append(of)
                pending = b","
        closing = pending.rstrip(b",") + b"}"
        object.__setattr__(self, "pieces", (*pieces, closing))
        object.__setattr__(self, "columns", tuple(columns))


def selection_of(fields: tuple[tuple[str, str], ...], typename: str) -> Selection:
    """Return the selection of *fields*; hot ones are compiled once, unless they are very long."""
    is_long = sum(len(name) for name, _ in fields) > _LONGEST_KEPT
    return Selection(fields, typename) if is_long else _compiled(fields, typename)


@lru_cache(maxsize=256)
def _compiled(fields: tuple[tuple[str, str], ...], typename: str) -> Selection:
    return Selection(fields, typename)


class BarEncoder:
    """Texts of chunks by selection and series, at most *max_bytes* of them."""

    def __init__(self, *, max_bytes: int, meter: Meter) -> None:
        self._meter = meter
        self._kept: LRU[tuple[object, ...], bytes] = LRU(
            max_count=_MOST_TEXTS, max_weight=max_bytes
        )

    @property
    def kept_bytes(self) -> int:
        return self._kept.weight

    def rows(self, series: Series, bars: Bars, selection: Selection) -> bytes:
        """Return the JSON array of *bars*. Raises `Unencodable`."""
        length = CHUNK_BARS * series.timeframe.nominal
        lasting = _lasting(bars)
        texts = []
        at = 0
        while at < lasting:
            number = int(bars.time[at]) // length
            end = min(lasting, int(np.searchsorted(bars.time, (number + 1) * length)))
            texts.append(self._chunk(series, bars.take(slice(at, end)), selection))
            at = end
        if at < len(bars):
            texts.append(write_rows(bars.take(slice(at, None)), selection))
        return b"[" + b",".join(texts) + b"]"

    def _chunk(self, series: Series, bars: Bars, selection: Selection) -> bytes:
        # No sums: one minute may come as another is withdrawn.
        same = hash((bars.time.tobytes(), bars.revision.tobytes(), bars.flags.tobytes()))
        key = (selection, series, int(bars.time[0]), same)
        text = self._kept.get(key)
        self._meter.lookup("encoded", hit=text is not None)
        if text is None:
            text = write_rows(bars, selection)
            self._kept.put(key, text, weight=len(text))
        return text


def _lasting(bars: Bars) -> int:
    """Return how many of the first bars are closed and stored: only a revision changes those."""
    passing = ~bars.is_closed | (bars.revision <= 0)
    return int(np.argmax(passing)) if passing.any() else len(bars)


def write_rows(bars: Bars, selection: Selection) -> bytes:
    """Return *bars* as JSON objects with commas between them. Raises `Unencodable`."""
    n = len(bars)
    if not n:
        return b""
    width = 2 * len(selection.columns) + 1
    parts: list[bytes] = [selection.pieces[-1] + b","] * (n * width)
    written: dict[str, Texts] = {}
    for i, name in enumerate(selection.columns):
        if name not in written:
            written[name] = _TEXTS[name](bars)
        parts[2 * i :: width] = [selection.pieces[i]] * n
        parts[2 * i + 1 :: width] = written[name]
    parts[-1] = selection.pieces[-1]
    return b"".join(parts)


def write_columns(bars: Bars, selection: Selection) -> bytes:
    """Return *bars* as one JSON object of arrays. Raises `Unencodable`."""
    texts = []
    for piece, name in zip(selection.pieces[:-1], selection.columns, strict=True):
        texts += [piece, _array(bars, name)]
    return b"".join((*texts, selection.pieces[-1]))


def _array(bars: Bars, name: str) -> bytes:
    if name in _PLAIN:
        return _dump(_checked(bars, name))
    return b"[" + b",".join(_TEXTS[name](bars)) + b"]"


def _checked(bars: Bars, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Return a column that JSON can hold as it is. Raises `Unencodable` where it could not."""
    column = np.ascontiguousarray(getattr(bars, _PLAIN[name]))
    if name == "revision" and len(column) and int(column.max()) > _INT_MAX:
        raise Unencodable
    if column.dtype == np.float64 and name != "vwap" and not np.isfinite(column).all():
        raise Unencodable
    return column


def _dump(column: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    return orjson.dumps(column, option=_NUMPY)


def _plain(name: str) -> Callable[[Bars], Texts]:
    return lambda bars: _dump(_checked(bars, name))[1:-1].split(b",")


def _trades(bars: Bars) -> Texts:
    if len(bars) and int(bars.trades.max()) > _INT_MAX:
        raise Unencodable
    if (bars.trades < 0).all():
        return [b"null"] * len(bars)
    texts = _dump(np.ascontiguousarray(bars.trades))[1:-1].split(b",")
    return [b"null" if text[:1] == b"-" else text for text in texts]


def _is_closed(bars: Bars) -> Texts:
    return [b"true" if closed else b"false" for closed in bars.is_closed.tolist()]


def _source(bars: Bars) -> Texts:
    return [_SOURCES[flags & (NATIVE | FROM_TRADES)] for flags in bars.flags.tolist()]


_SOURCES = {
    0: b'"MINUTES"',
    NATIVE: b'"NATIVE"',
    FROM_TRADES: b'"TRADES"',
    NATIVE | FROM_TRADES: b'"NATIVE"',
}
# Fields whose column is JSON as it stands; a vwap of NaN is written as null.
_PLAIN = {
    "time": "time",
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "volume": "volume",
    "vwap": "vwap",
    "revision": "revision",
    "updatedAt": "updated",
}
_TEXTS: dict[str, Callable[[Bars], Texts]] = {
    **{name: _plain(name) for name in _PLAIN},
    "trades": _trades,
    "isClosed": _is_closed,
    "source": _source,
}
