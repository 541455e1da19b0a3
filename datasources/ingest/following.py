"""Up to when every trade was told, by what a stream tells. No input or output."""

from __future__ import annotations

from datasources.ingest.sources import Told
from db.told import US


class Following:
    """Follows one stream, time in microseconds.

    A pushed trade proves that all before it were told, since they come in order. No clock proves
    that: a connection may be dead without a word, what came may not have been read yet, and ours
    may not be the provider's. So it begins with the first trade, after its millisecond: others of
    that may have been before.
    """

    def __init__(self) -> None:
        self.reached: int | None = None
        """Everything since the beginning was told up to here; None before it began."""

    def take(self, told: Told, newest: int | None, *, now: int) -> bool:
        """Take in what was *told*, its *newest* trade in ms; return whether it begins with this.

        *now* in ms: no trade proves a time that has not come.
        """
        if told.window is not None:
            begins = self.reached is None
            if begins:
                self.reached = told.window.since * US
            self.reach(told.window.until * US)
            return begins
        if newest is None:
            return False
        if self.reached is None:
            self.reached = (newest + 1) * US
            return True
        self.reach(min(newest, now) * US)
        return False

    def reach(self, until: int) -> None:
        """Note that everything was told up to *until*; it never goes back."""
        assert self.reached is not None
        self.reached = max(self.reached, until)

    def cut(self) -> None:
        """From here on something is missing, until it begins anew."""
        self.reached = None
