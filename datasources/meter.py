"""What the chain counts, so that operators see where answers come from."""

from typing import Protocol


class Meter(Protocol):
    """Counters the wiring provides; every call is cheap and never fails."""

    def bars(self, source: str, count: int) -> None:
        """*count* bars were answered from *source*."""
        ...

    def lookup(self, layer: str, *, hit: bool) -> None:
        """A cache *layer* was asked for one chunk."""
        ...

    def call(self, provider: str, call: str, *, seconds: float, failed: bool) -> None:
        """A provider was asked for `history`, or for the `first` bar it has."""
        ...


class NoMeter:
    """Counts nothing."""

    def bars(self, source: str, count: int) -> None: ...

    def lookup(self, layer: str, *, hit: bool) -> None: ...

    def call(self, provider: str, call: str, *, seconds: float, failed: bool) -> None: ...
