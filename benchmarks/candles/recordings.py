"""The bars of a run: made up from a fixed seed, written as the recordings that the server replays.

Fifty short series for the watchlist and one long one. All end at the same midnight; the replay
starts hours before it, so that the newest bar forms and closes during a run as in a live market.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

MINUTE = 60_000
END = int(datetime(2025, 3, 1, tzinfo=UTC).timestamp()) * 1000
NOW = END - 6 * 60 * MINUTE
"""The instant the replay starts at, in ms."""
SETTLED = NOW - 60 * MINUTE
"""Whatever opened before this is closed and will not be looked at again."""

WINDOWS = range(SETTLED, SETTLED - 5_000 * MINUTE, -MINUTE)
"""Ends of windows. More of them than are asked for in the second for which an answer is kept."""

LONG = "long"
LONG_BARS = 50_000
WATCHED = tuple(f"coin{n:02}" for n in range(50))
WATCHED_BARS = 6_000

NAMES = ("time", "open", "high", "low", "close", "volume")
Row = tuple[int, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Recordings:
    """Rows by symbol, oldest first, one a minute without a hole."""

    rows: dict[str, list[Row]]

    def at(self, symbol: str, instant: int) -> Row:
        rows = self.rows[symbol]
        return rows[(instant - rows[0][0]) // MINUTE]

    def before(self, symbol: str, instant: int, count: int) -> list[Row]:
        """Return the newest *count* rows that opened before *instant*."""
        rows = self.rows[symbol]
        end = (instant - rows[0][0]) // MINUTE
        return rows[end - count : end]


def make_up() -> Recordings:
    rng = np.random.default_rng(1)
    counts = dict.fromkeys(WATCHED, WATCHED_BARS) | {LONG: LONG_BARS}
    return Recordings({symbol: _walk(rng, count) for symbol, count in counts.items()})


def write(recordings: Recordings, folder: Path) -> None:
    """Write a CSV file for each symbol into the new *folder*."""
    folder.mkdir()
    header = ",".join(("timestamp_ms", *NAMES[1:]))
    for symbol, rows in recordings.rows.items():
        lines = (",".join(map(repr, row)) for row in rows)
        (folder / f"{symbol}_1m.csv").write_text("\n".join((header, *lines)) + "\n")


def _walk(rng: np.random.Generator, count: int) -> list[Row]:
    close = np.round(20_000 + rng.normal(scale=5, size=count).cumsum(), 2)
    opened = np.concatenate((close[:1], close[:-1]))
    high = np.round(np.maximum(opened, close) + rng.random(count) * 5, 2)
    low = np.round(np.minimum(opened, close) - rng.random(count) * 5, 2)
    volume = np.round(rng.random(count) * 10, 5)
    times = END - count * MINUTE + np.arange(count) * MINUTE
    columns = (column.tolist() for column in (times, opened, high, low, close, volume))
    return list(zip(*columns, strict=True))
