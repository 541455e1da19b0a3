"""What time it is, asked of whoever is asked about: a provider's now is not the machine's."""

from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> int:
        """Return milliseconds since the epoch, UTC."""
        ...


class FixedClock:
    """A clock that stands at *at* until it is set."""

    def __init__(self, at: int) -> None:
        self.at = at

    def now(self) -> int:
        return self.at
