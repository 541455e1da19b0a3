"""A database of its own, filled with as many minutes as a scale says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import numpy as np

from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, Write
from market.bars import CLOSED, Bars
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import DAY, MINUTE, Spans

PROVIDER = "made"
DENSE = 346
"""The newest days of a long series, in which every minute was traded."""
SPARSE = 700
"""The days before, in which one minute a day was: so that there are a thousand days."""
LONG = DENSE * DAY // MINUTE + SPARSE
SHORT = 7 * DAY // MINUTE
SHORTS = 50
"""Short series: the watchlist, and half a million rows."""
END = 1_700_006_400_000
"""Where every series ends: a midnight, so that no bucket is cut."""
START = END - (DENSE + SPARSE) * DAY
"""Where long series begin."""
FACTS = SeriesFacts("BTC", "USDT", around_the_clock=True)


@dataclass(frozen=True, slots=True)
class Scale:
    """How many rows the table of bars holds, as so many long series beside the short ones."""

    count: int

    @property
    def rows(self) -> int:
        return self.count * LONG + SHORTS * SHORT

    @property
    def longs(self) -> Sequence[str]:
        return [f"LONG{n}" for n in range(self.count)]

    @property
    def shorts(self) -> Sequence[str]:
        return [f"SHORT{n}" for n in range(SHORTS)]

    def __str__(self) -> str:
        return f"{self.rows / 1e6:.3g} million rows"


@asynccontextmanager
async def scratch(server: str) -> AsyncIterator[str]:
    """Yield the URL of a new database on *server*, which is dropped at the end."""
    admin = await asyncpg.connect(server)
    name = f"bargraph_bench_{uuid4().hex}"
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


def key(symbol: str) -> SeriesKey:
    return SeriesKey(Listing(PROVIDER, "crypto", symbol), MINUTE_FRAME)


def minutes(count: int, *, sparse_days: int = 0, seed: int = 1) -> Bars:
    """Return *count* minutes of a random walk up to `END`, the first ones a day apart."""
    rng = np.random.default_rng(seed)
    close = 20_000 + rng.normal(size=count).cumsum()
    opened = np.concatenate((close[:1], close[:-1]))
    dense = END - np.arange(count - sparse_days, 0, -1) * MINUTE
    times = np.concatenate((dense[0] - np.arange(sparse_days, 0, -1) * DAY, dense))
    return Bars.of(
        times,
        opened,
        np.maximum(opened, close) + 0.5,
        np.minimum(opened, close) - 0.5,
        close,
        rng.random(count) * 10,
        vwap=(opened + close) / 2,
        trades=rng.integers(1, 100, count),
        updated=times + MINUTE,
        flags=CLOSED,
    )


async def fill(
    store: CandleStore, symbols: Sequence[str], count: int, *, sparse_days: int = 0
) -> None:
    """Store *count* settled minutes of each of *symbols*, as a backfill does."""
    bars = minutes(count, sparse_days=sparse_days)
    since = int(bars.time[0])
    whole = Spans.of(since, END)
    for symbol in symbols:
        write = Write(key(symbol), FACTS, bars, END, whole, whole)
        (written,) = await store.write([write])
        await store.set_minutes_from(written.state.id, since)
