"""What a market shows beside its bars: the order book and the ticker, as whole states."""

from __future__ import annotations

from dataclasses import dataclass

Level = tuple[float, float]
"""A price, and the amount that is bid or offered at it; the amount is above 0."""


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The best levels of both sides at one instant (ms since the epoch, UTC), the best first.

    *sequence* is the provider's own number of this state, where it gives one, and *checksum* its
    own sum over it; states of one connection never go back in sequence.
    """

    time: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    sequence: int | None = None
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Ticker:
    """The newest prices of one symbol; what the provider does not tell is None.

    *time* in ms since the epoch, UTC. *volume* is of the last 24 hours or of the day, as the
    provider has it, in units of the base.
    """

    time: int
    last: float | None = None
    bid: float | None = None
    bid_size: float | None = None
    ask: float | None = None
    ask_size: float | None = None
    volume: float | None = None
