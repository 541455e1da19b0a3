"""What is told of a series as the bytes of one entry of the stream, many trades at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import orjson

from db.raw_trades import Telling
from db.stored import SeriesFacts, SeriesKey
from market.errors import BargraphError, UnknownName
from market.instrument import Adjustment, Listing
from market.timeframe import MINUTE_FRAME
from market.trades import Trades
from market.window import Window

MOST_TRADES = 1_000
"""Trades in one entry."""

# Bump when the layout changes: entries of another version cannot be read.
_VERSION = 1
_PREFIX = struct.Struct("<BI")
_TIME, _NUMBER = np.dtype("<i8"), np.dtype("<f8")


class Unreadable(BargraphError):
    """An entry that is damaged, or of another version."""

    code = "UNREADABLE_ENTRY"


def parts_of(count: int) -> int:
    """Return how many entries *count* trades take: at least as many microseconds to tell them."""
    return max(1, -(-count // MOST_TRADES))


def chained(telling: Telling) -> Iterator[Telling]:
    """Yield *telling* in parts that fit into an entry each.

    Each completes a piece of the time, so that if one is lost, a hole shows it.
    """
    count = parts_of(len(telling.trades))
    since, until = telling.told.since, telling.told.until
    if since == until:
        ends = [since] * (count + 1)
    else:
        ends = [*range(since, since + count), max(until, since + count)]
    for n, told in enumerate(pairwise(ends)):
        trades = telling.trades[n * MOST_TRADES : (n + 1) * MOST_TRADES]
        yield Telling(telling.key, telling.facts, trades, Window(*told))


def packed(telling: Telling) -> bytes:
    """Return version, length of the header, header, columns."""
    listing, facts, trades = telling.key.listing, telling.facts, telling.trades
    header = orjson.dumps(
        {
            "listing": [
                listing.provider,
                listing.market,
                listing.symbol,
                listing.adjustment,
                listing.feed,
                listing.dataset,
            ],
            "facts": [facts.base, facts.quote, facts.around_the_clock],
            "told": [telling.told.since, telling.told.until],
            "trades": len(trades),
            "id": trades.id.dtype.itemsize,
        }
    )
    columns = (
        trades.time.astype(_TIME, copy=False),
        trades.price.astype(_NUMBER, copy=False),
        trades.amount.astype(_NUMBER, copy=False),
        trades.id,
    )
    parts = [column.tobytes() for column in columns]
    return b"".join((_PREFIX.pack(_VERSION, len(header)), header, *parts))


def unpacked(payload: bytes) -> Telling:
    """Return what was packed. Raises `Unreadable`."""
    try:
        return _unpacked(payload)
    except (ValueError, TypeError, KeyError, struct.error, UnknownName) as error:
        raise Unreadable(f"the entry cannot be read ({type(error).__name__})") from error


def _unpacked(payload: bytes) -> Telling:
    version, length = _PREFIX.unpack_from(payload)
    if version != _VERSION:
        raise Unreadable(f"the entry is of version {version}, not {_VERSION}")
    at = _PREFIX.size + length
    header = orjson.loads(payload[_PREFIX.size : at])
    provider, market, symbol, adjustment, feed, dataset = header["listing"]
    listing = Listing(
        provider,
        market,
        symbol,
        None if adjustment is None else Adjustment(adjustment),
        feed,
        dataset,
    )
    count, width = int(header["trades"]), int(header["id"])
    row = 2 * _NUMBER.itemsize + _TIME.itemsize + width
    if len(payload) != at + count * row:
        raise Unreadable("the entry was cut")
    columns = []
    for dtype in (_TIME, _NUMBER, _NUMBER, np.dtype(f"S{width}")):
        columns.append(np.frombuffer(payload, dtype, count, at))
        at += count * dtype.itemsize
    return Telling(
        SeriesKey(listing, MINUTE_FRAME),
        SeriesFacts(*header["facts"]),
        Trades(*columns),
        Window(*header["told"]),
    )
