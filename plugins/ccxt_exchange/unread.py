"""What a listener has not read yet, kept within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from market.bars import Bars
from plugins.base import Trade

BARS_KEPT = 1_000
TRADES_KEPT = 20_000
"""How much may wait for a listener until it is cut off."""

T = TypeVar("T")


class Unread(Protocol[T]):
    """Batches on their way to one listener."""

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        ...

    def add(self, batch: T) -> bool:
        """Take *batch* in; False if it does not fit, and something had to be left out."""
        ...

    def take(self) -> T:
        """Return all that waits, as one batch."""
        ...


class Newest(Generic[T]):
    """Of whole states only the newest is worth reading."""

    def __init__(self) -> None:
        self._states: list[T] = []

    def __bool__(self) -> bool:
        return bool(self._states)

    def add(self, batch: T) -> bool:
        self._states[:] = [batch]
        return True

    def take(self) -> T:
        return self._states.pop()


class NewestOfEachBar:
    """Of every bar the newest state, and a closed one rather than one that still grew."""

    def __init__(self) -> None:
        self._bars = Bars.empty()

    def __bool__(self) -> bool:
        return len(self._bars) > 0

    def add(self, batch: Bars) -> bool:
        # Of equal ranks, `merge` keeps the left one's.
        self._bars = batch.merge(self._bars)
        return len(self._bars) <= BARS_KEPT

    def take(self) -> Bars:
        taken, self._bars = self._bars, Bars.empty()
        return taken


class EveryTrade:
    """Trades, none of which may be left out."""

    def __init__(self) -> None:
        self._trades: list[Trade] = []

    def __bool__(self) -> bool:
        return bool(self._trades)

    def add(self, batch: Sequence[Trade]) -> bool:
        if len(self._trades) + len(batch) > TRADES_KEPT:
            return False
        self._trades.extend(batch)
        return True

    def take(self) -> Sequence[Trade]:
        taken, self._trades = self._trades, []
        return taken
