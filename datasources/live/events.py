"""What a feed of bars says to its listeners, as values and as bytes.

Positions are those of the base's log in the store named *store*. An event whose *previous* is not
the position a listener has reached tells it that it missed one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from datasources.packing import pack, unpack
from market.bars import Bars
from market.window import Window


class FeedState(StrEnum):
    """How a feed is doing."""

    LIVE = "live"
    CATCHING_UP = "catching_up"
    STALLED = "stalled"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Status:
    """*at* in ms of the provider's time; *message* is for people."""

    state: FeedState
    at: int
    message: str


@dataclass(frozen=True, slots=True)
class BaseEvent:
    """Where a base stands, and what is new.

    *changes* are the windows logged between *previous* and *position*. *bars* are closed ones out
    of these windows as the store holds them; *whole* says that they are all that changed there.
    *forming* is the bar that runs, if any. Of every bar that opens at *told_from* or later and
    closes at *told* or before the end was told: it is stored, or there is none. *series* is the id
    of the stored base in *store*; None, with positions of 0, while nothing is stored.
    """

    store: UUID | None
    series: int | None
    position: int
    previous: int
    told_from: int
    told: int
    changes: tuple[Window, ...] = ()
    bars: Bars = field(default_factory=Bars.empty)
    whole: bool = True
    forming: Bars = field(default_factory=Bars.empty)
    status: Status | None = None

    def packed(self) -> bytes:
        status = self.status
        return pack(
            Bars.concat((self.bars, self.forming)) if self._ascends() else self.bars,
            {
                "store": None if self.store is None else self.store.hex,
                "series": self.series,
                "position": self.position,
                "previous": self.previous,
                "told_from": self.told_from,
                "told": self.told,
                "changes": [(window.since, window.until) for window in self.changes],
                "whole": self.whole,
                "forming": len(self.forming) if self._ascends() else 0,
                "status": status and (status.state, status.at, status.message),
            },
        )

    @classmethod
    def unpacked(cls, value: bytes) -> BaseEvent | None:
        """Return the event that was packed; None for what another version packed."""
        try:
            return cls._unpacked(value)
        except (ValueError, TypeError, LookupError, AttributeError):
            return None

    @classmethod
    def _unpacked(cls, value: bytes) -> BaseEvent | None:
        if (unpacked := unpack(value)) is None:
            return None
        bars, facts = unpacked
        closed = len(bars) - facts["forming"]
        status = facts["status"]
        return cls(
            store=None if facts["store"] is None else UUID(hex=facts["store"]),
            position=facts["position"],
            previous=facts["previous"],
            series=facts["series"],
            told_from=facts["told_from"],
            told=facts["told"],
            changes=tuple(Window(since, until) for since, until in facts["changes"]),
            bars=bars.take(slice(0, closed)),
            whole=facts["whole"],
            forming=bars.take(slice(closed, None)),
            status=status and Status(FeedState(status[0]), status[1], status[2]),
        )

    def _ascends(self) -> bool:
        """Whether the forming bar is later than the closed ones; an older one is obsolete."""
        return not (len(self.bars) and len(self.forming)) or bool(
            self.forming.time[0] > self.bars.time[-1]
        )
