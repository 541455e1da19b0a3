"""What the statements of the candle store return, turned into its words."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import numpy as np

from db.binary import array_floats, array_times, array_values, multirange_spans
from db.stored import NOTHING, Change, SeriesKey, SeriesState
from market.bars import CLOSED, Bars, Flags

# The code in the column source is the bits above CLOSED: 1 NATIVE, 2 FROM_TRADES, 4 VOID.
_SOURCE_SHIFT = 1
_SOURCE_MASK = 3
# A bar's marks are its revision above three bits: this code, VOID included.
_MARK_BITS = 3
_MARKS = 7


def names(keys: Sequence[SeriesKey]) -> tuple[list[str], ...]:
    """Return the columns that name series, in the order the statements take them."""
    return (
        [key.listing.provider for key in keys],
        [key.listing.market for key in keys],
        [key.listing.symbol for key in keys],
        [str(key.timeframe) for key in keys],
        [key.listing.adjustment or "" for key in keys],
        [key.listing.feed or "" for key in keys],
        [key.listing.dataset for key in keys],
    )


def state(row: asyncpg.Record) -> SeriesState | None:
    return None if row["id"] is None else existing_state(row)


def existing_state(row: asyncpg.Record) -> SeriesState:
    return SeriesState(
        id=row["id"],
        minutes_from=row["minutes_from"],
        position=row["position"],
        generation=row["generation"],
        known=multirange_spans(row["known"]),
        retained_from=row["retained_from"],
        rolled=multirange_spans(rolled) if (rolled := row.get("rolled")) else NOTHING,
    )


def changes(row: asyncpg.Record) -> tuple[Change, ...]:
    columns = (row["positions"] or (), row["since"] or (), row["until"] or ())
    return tuple(map(Change, *columns))


def bars(row: asyncpg.Record) -> Bars:
    """Return the bars of the columns that `sql/0006_read.sql` tells of; all count as closed."""
    if row["time"] is None:
        return Bars.empty()
    time = array_times(row["time"])
    marks = array_values(row["marks"], ">i8", np.int64)
    open_, high, low, close = array_floats(row["prices"], 4)
    volume, vwap = array_floats(row["volumes"], 2)
    trades = row["trades"]
    return Bars(
        time=time,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        vwap=vwap,
        trades=np.full(len(time), -1) if trades is None else array_values(trades, ">i8", np.int64),
        revision=marks >> _MARK_BITS,
        updated=array_times(row["updated"]),
        flags=flags((marks & _MARKS).astype(np.uint8)),
    )


def flags(source: Flags) -> Flags:
    """Return the flags of closed bars with these source codes."""
    return (source << _SOURCE_SHIFT | CLOSED).astype(np.uint8)


def source(flags: Flags) -> Flags:
    """Return the source codes of bars with these flags."""
    return (flags >> _SOURCE_SHIFT & _SOURCE_MASK).astype(np.uint8)
