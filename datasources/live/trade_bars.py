"""Make growing bars of pushed trades, for providers that push trades and no bars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from market.bars import Bars
from market.buckets import Buckets, Grid
from market.errors import ProviderUnavailable
from market.resample import trades_to_bars
from market.window import Window
from plugins.base import Stream, Trade

_BUCKETS_HELD = 2
"""The running bucket and the one before it, into which late trades still fall."""
_MOST_TRADES = 200_000
"""Trades of one bucket; beyond, the past is asked instead."""


@dataclass(slots=True)
class _Bucket:
    window: Window
    trades: list[Trade] = field(default_factory=list)

    def bar(self) -> Bars:
        """Return the bar of the trades so far, not marked closed: another trade may come late."""
        trades = sorted(self.trades, key=lambda trade: trade.time)
        return trades_to_bars(
            np.array([trade.time for trade in trades], dtype=np.int64),
            np.array([trade.price for trade in trades], dtype=np.float64),
            np.array([trade.amount for trade in trades], dtype=np.float64),
            buckets=Buckets(np.array([self.window.since]), np.array([self.window.until])),
            now=self.window.since,
        )


class TradeBars:
    """A stream of bars on *grid* over a stream of trades.

    A bar grows with its trades; the first one lacks those from before the stream. Raises
    `ProviderUnavailable` where a bar has more trades than can be held.
    """

    def __init__(self, provider: str, trades: Stream[Sequence[Trade]], grid: Grid) -> None:
        self._provider = provider
        self._trades = trades
        self._grid = grid

    async def __aiter__(self) -> AsyncIterator[Bars]:
        held: list[_Bucket] = []
        async for batch in self._trades:
            touched = [bucket for trade in batch if (bucket := self._put(held, trade))]
            times = {bucket.window.since: bucket for bucket in touched}
            yield Bars.concat([times[time].bar() for time in sorted(times)])

    async def aclose(self) -> None:
        await self._trades.aclose()

    def _put(self, held: list[_Bucket], trade: Trade) -> _Bucket | None:
        """Add *trade* to its bucket; None if that is over for too long, or was never open."""
        for bucket in held:
            if bucket.window.since <= trade.time < bucket.window.until:
                break
        else:
            window = self._grid.at(trade.time)
            if window is None or (held and window.since < held[-1].window.since):
                return None
            bucket = _Bucket(window)
            held.append(bucket)
            del held[:-_BUCKETS_HELD]
        bucket.trades.append(trade)
        if len(bucket.trades) > _MOST_TRADES:
            raise ProviderUnavailable(self._provider, "one bar has too many trades to hold")
        return bucket
