"""Alpaca's bars and trades, in JSON and in its streams, as ours.

All raise `KeyError`, `TypeError`, `ValueError` or `InvalidBars` for what is neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from market.bars import CLOSED, Bars
from market.window import MINUTE, Times
from plugins.base import Trade

Row = Mapping[str, Any]

_WITHDRAWN = ("canceled", "incorrect")
"""What the exchange said later of a trade that did not count."""


def times_of(rows: Sequence[Row]) -> Times:
    """Return when each row of a JSON page is of, in whole milliseconds."""
    written = [row["t"] for row in rows]
    if not all(text.endswith("Z") for text in written):
        raise ValueError("a time is not in UTC")
    # numpy warns of a zone, and takes none for UTC.
    return np.array([text[:-1] for text in written], "datetime64[ns]").astype("int64") // 1_000_000


def bars_of(rows: Sequence[Row], time: Times, *, updated: Times) -> Bars:
    """Return rows as bars, not marked closed."""
    volume = np.array([row["v"] for row in rows], np.float64)
    # Crypto minutes without trades are made of quotes, and their average is 0.
    vwap = np.array([row.get("vw") or np.nan for row in rows], np.float64)
    return Bars.of(
        time,
        [row["o"] for row in rows],
        [row["h"] for row in rows],
        [row["l"] for row in rows],
        [row["c"] for row in rows],
        volume,
        vwap=np.where(volume > 0, vwap, np.nan),
        trades=[int(row.get("n", -1)) for row in rows],
        updated=updated,
    ).checked()


def trades_of(rows: Sequence[Row]) -> list[Trade]:
    """Return the trades of a JSON page that were not withdrawn later."""
    return [
        _trade(row, time)
        for row, time in zip(rows, times_of(rows).tolist(), strict=True)
        if row.get("u") not in _WITHDRAWN and row["s"] != 0
    ]


def pushed_trades(messages: Sequence[Row]) -> list[Trade]:
    """Return the trades of a stream. One of less than a share may be reported as of none."""
    return [_trade(message, pushed_time(message)) for message in messages if message["s"] != 0]


def pushed_bar(message: Row, *, now: int) -> Bars:
    """Return a minute that is over; one that Alpaca corrected later is as new as *now*."""
    time = pushed_time(message)
    if time % MINUTE:
        raise ValueError("a minute does not open on its grid")
    close = time + MINUTE
    updated = max(now, close + 1) if message["T"] == "u" else close
    bar = bars_of([message], np.array([time]), updated=np.array([updated]))
    return bar.with_columns(flags=np.full(1, CLOSED, np.uint8))


def pushed_time(message: Row) -> int:
    """Return when a message of a stream is of, in whole milliseconds."""
    return int(message["t"].to_unix_nano() // 1_000_000)


def _trade(row: Row, time: int) -> Trade:
    # Exchanges count their trades each for itself.
    name = f"{row['x']}-{row['i']}" if row.get("x") else str(row["i"])
    price, amount = float(row["p"]), float(row["s"])
    if not (0 < price < float("inf") and 0 < amount < float("inf")):
        raise ValueError("a trade without a price or an amount")
    return Trade(name, time, price, amount)
