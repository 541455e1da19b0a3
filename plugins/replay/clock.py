"""The one clock of a replayed folder: recorded time that runs on from an anchor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from market.clock import Clock, Watchable


@dataclass(frozen=True, slots=True)
class Anchor:
    """At the real instant *anchored_at* the replay stood at *replay_from* (both ms, UTC).

    *speed* is recorded time per real time; 0 stands still. Raises `ValueError` for one below 0.
    """

    replay_from: int
    anchored_at: int
    speed: Decimal

    def __post_init__(self) -> None:
        if not (self.speed.is_finite() and self.speed >= 0):
            raise ValueError(f"speed must be a number of 0 or more, not {self.speed}")


class ReplayClock:
    """Recorded time by an anchor that all processes share. Never before `Anchor.replay_from`."""

    __slots__ = ("_anchor", "_base")

    def __init__(self, base: Clock, anchor: Anchor) -> None:
        self._base = base
        self._anchor = anchor

    def now(self) -> int:
        # Another process, whose clock is a little ahead, may have set the anchor.
        passed = max(0, self._base.now() - self._anchor.anchored_at)
        return self._anchor.replay_from + int(passed * self._anchor.speed)

    def watch(self, moved: Callable[[], None]) -> None:
        """Call *moved* whenever the clock below is moved; one that runs by itself never tells."""
        if isinstance(self._base, Watchable):
            self._base.watch(moved)


def dataset_id(digest: str, replay_from: int, speed: Decimal) -> str:
    """Return the short name of what a folder of *digest*, so replayed, has stored."""
    # 1, 1.0 and 1E+0 are one speed; `normalize` would round a long one.
    ratio = "/".join(map(str, speed.as_integer_ratio()))
    return hashlib.sha256(f"{digest}:{replay_from}:{ratio}".encode()).hexdigest()[:16]
