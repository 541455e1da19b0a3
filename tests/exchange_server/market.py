"""The candles of the local exchange: a pure function of symbol and time, so tests can recompute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

MINUTE = 60_000
LISTED = 1_693_526_400_000  # 2023-09-01


def every_minute(minutes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.ones(len(minutes), dtype=bool)


@dataclass(slots=True)
class Candles:
    """Columns of candles, oldest first; times in milliseconds, prices in whole cents."""

    time: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Candles:
        return Candles(*(getattr(self, name)[index] for name in self.__slots__))

    def rows(self) -> list[tuple[int, float, float, float, float, float]]:
        return list(zip(*(getattr(self, name).tolist() for name in self.__slots__), strict=True))


@dataclass(slots=True)
class Market:
    """One symbol. *trades_in* says in which minutes (counted from the epoch) anything is traded."""

    base: str
    quote: str
    listed: int = LISTED
    trades_in: Callable[[NDArray[np.int64]], NDArray[np.bool_]] = field(default=every_minute)

    @property
    def symbol(self) -> str:
        return f"{self.base}/{self.quote}"

    def candles(self, since: int, until: int, *, step: int = MINUTE) -> Candles:
        """Return the candles of *step* that open in [since, until), each made of its minutes.

        Those in which nothing was traded are left out.
        """
        since = max(-(-since // step), -(-self.listed // step)) * step
        until = max(since, -(-until // step) * step)
        minutes = np.arange(since // MINUTE, until // MINUTE, dtype=np.int64)
        minutes = minutes[self.trades_in(minutes)]
        if not len(minutes):
            return Candles(minutes, *(np.empty(0),) * 5)
        open_, close = self._price(minutes), self._price(minutes + 1)
        noise, volume = self._random(minutes, 1), self._random(minutes, 2)
        high = np.maximum(open_, close) + np.round(noise, 2)
        low = np.minimum(open_, close) - np.round(1 - noise, 2)
        buckets, first = np.unique(minutes * MINUTE // step, return_index=True)
        last = np.append(first[1:], len(minutes)) - 1
        return Candles(
            time=buckets * step,
            open=open_[first],
            high=np.round(np.maximum.reduceat(high, first), 2),
            low=np.round(np.minimum.reduceat(low, first), 2),
            close=close[last],
            volume=np.round(np.add.reduceat(np.round(volume * 10, 3), first), 3),
        )

    def _price(self, minutes: NDArray[np.int64]) -> NDArray[np.float64]:
        slow = 300 * np.sin(minutes / 9973) + 40 * np.sin(minutes / 331)
        return np.round(1000 + slow + 4 * self._random(minutes, 0), 2)

    def _random(self, minutes: NDArray[np.int64], lane: int) -> NDArray[np.float64]:
        """Return numbers in [0, 1) that depend on the symbol, the minute and *lane* alone."""
        seed = crc32(f"{self.symbol}{lane}".encode()) << 32
        x = minutes.astype(np.uint64) + np.uint64(seed)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray((x >> np.uint64(11)) / np.float64(2**53), dtype=np.float64)
