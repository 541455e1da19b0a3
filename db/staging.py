"""Writes on their way in: checked, copied into the staging table, merged, and answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import asyncpg
import numpy as np

from db import rows, statements
from db.binary import (
    EARLIEST,
    LATEST,
    Column,
    array_times,
    array_values,
    clipped,
    copy_rows,
    to_server_time,
)
from db.stored import Write, Written
from market.bars import Bars
from market.errors import InvalidBars
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Spans, Times, Window

_DROPPED = 3
"""The verdict of `write_bars` on a bar that a later answer stands against."""
_ALL_TIME = Window(EARLIEST, LATEST)


def check(write: Write) -> None:
    """Raise `InvalidBars` unless the bars of *write* are true, closed and in storable time."""
    bars = write.bars.checked()
    reasons = [
        (~bars.is_closed, "is still forming"),
        ((bars.time < EARLIEST) | (bars.time >= LATEST), "lies outside the years 1 to 9999"),
        ((bars.updated < EARLIEST) | (bars.updated >= LATEST), "has an impossible updated"),
        (rows.source(bars.flags) > 2, "is both native and built from trades"),
    ]
    if write.key.timeframe == MINUTE_FRAME:
        reasons.append((bars.time % MINUTE != 0, "does not open on a full minute"))
    for wrong, reason in reasons:
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InvalidBars(f"bar {at} (time {int(bars.time[at])}) {reason}")


async def merge(connection: asyncpg.Connection, writes: Mapping[int, Write]) -> dict[int, Written]:
    """Merge writes by series id, ascending, inside the caller's transaction."""
    columns = _columns(writes)
    if len(columns[0][2]):
        await connection.copy_to_table(
            "incoming",
            source=_stream(columns),
            columns=[name for name, _, _ in columns],
            format="binary",
        )
    covered = _parallel((own, write.covered) for own, write in writes.items())
    settled = _parallel((own, write.settled) for own, write in writes.items())
    observed = [clipped(writes[own].observed_at) for own in covered[0]]
    found = await connection.fetch(statements.MERGE, list(writes), *covered, observed, *settled)
    return {row["id"]: await _written(connection, writes[row["id"]], row) for row in found}


def _columns(writes: Mapping[int, Write]) -> tuple[Column, ...]:
    """Return the columns of the table incoming, the writes one below the other."""
    parts = [write.bars for write in writes.values()]
    sizes = [len(part) for part in parts]

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    vwap = joined("vwap")
    observed = np.concatenate([_observed(write) for write in writes.values()])
    return (
        ("n", ">i4", np.arange(sum(sizes))),
        ("series_id", ">i4", np.repeat(np.array(list(writes)), sizes)),
        ("timestamp", ">i8", to_server_time(joined("time"))),
        ("open", ">f8", joined("open")),
        ("high", ">f8", joined("high")),
        ("low", ">f8", joined("low")),
        ("close", ">f8", joined("close")),
        ("volume", ">f8", joined("volume")),
        ("vwap", ">f8", np.where(np.isfinite(vwap), vwap, np.nan)),
        ("trades", ">i8", np.maximum(joined("trades"), -1)),
        ("observed_at", ">i8", to_server_time(observed)),
        ("updated_at", ">i8", to_server_time(joined("updated"))),
        ("source", ">i2", rows.source(joined("flags"))),
    )


def _observed(write: Write) -> Times:
    """Return when the values of each bar were asked for."""
    if write.observed is not None:
        return write.observed.clip(EARLIEST, LATEST)
    return np.full(len(write.bars), clipped(write.observed_at), np.int64)


async def _stream(columns: tuple[Column, ...]) -> AsyncIterator[bytes]:
    for chunk in copy_rows(columns):
        yield chunk


def _parallel(spans: Iterable[tuple[int, Spans]]) -> tuple[list[int], list[int], list[int]]:
    """Return spans by series id as parallel lists: id, since, until."""
    flat = [(own, span) for own, several in spans for span in several.clip(_ALL_TIME)]
    return (
        [own for own, _ in flat],
        [span.since for _, span in flat],
        [span.until for _, span in flat],
    )


async def _written(connection: asyncpg.Connection, write: Write, row: asyncpg.Record) -> Written:
    verdict = array_values(row["verdicts"], ">i2", np.int64)
    taken = write.bars
    if row["retained_from"] is not None:
        taken = taken.take(taken.time >= row["retained_from"])
    bars = taken.with_columns(
        revision=array_values(row["revisions"], ">i4", np.int64),
        updated=array_times(row["updates"]),
    )
    dropped = verdict == _DROPPED
    if dropped.any():
        times = bars.time[dropped].tolist()
        stored = await connection.fetchrow(statements.STORED_AT, row["id"], times)
        bars = _together(bars.take(~dropped), rows.bars(stored))
    too_old = len(write.bars) - len(taken)
    return Written(rows.existing_state(row), rows.changes(row), bars, too_old)


def _together(some: Bars, others: Bars) -> Bars:
    """Return the bars of both, which share no time."""
    columns = [np.concatenate((getattr(some, c), getattr(others, c))) for c in Bars.COLUMNS]
    return Bars(*columns).take(np.argsort(columns[0], kind="stable"))
