"""What the statements of the candle store return, turned into its words."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import numpy as np

from db.binary import array_times, array_values, multirange_spans
from db.stored import Change, SeriesKey, SeriesState
from market.bars import CLOSED, Bars, Flags

# The code in the column source is the bits above CLOSED: 1 NATIVE, 2 FROM_TRADES, 4 VOID.
_SOURCE_SHIFT = 1
_SOURCE_MASK = 3


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
    )


def changes(row: asyncpg.Record) -> tuple[Change, ...]:
    columns = (row["positions"] or (), row["since"] or (), row["until"] or ())
    return tuple(map(Change, *columns))


def bars(row: asyncpg.Record) -> Bars:
    """Return the bars of the columns that `statements` calls _BARS; all count as closed."""
    if row["time"] is None:
        return Bars.empty()
    floats = {
        name: array_values(row[name], ">f8", np.float64)
        for name in ("open", "high", "low", "close", "volume", "vwap")
    }
    return Bars(
        time=array_times(row["time"]),
        **floats,
        trades=array_values(row["trades"], ">i8", np.int64),
        revision=array_values(row["revision"], ">i8", np.int64),
        updated=array_times(row["updated"]),
        flags=flags(array_values(row["source"], ">i2", np.uint8)),
    )


def flags(source: Flags) -> Flags:
    """Return the flags of closed bars with these source codes."""
    return (source << _SOURCE_SHIFT | CLOSED).astype(np.uint8)


def source(flags: Flags) -> Flags:
    """Return the source codes of bars with these flags."""
    return (flags >> _SOURCE_SHIFT & _SOURCE_MASK).astype(np.uint8)
