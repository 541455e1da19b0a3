"""An exchange's own now: this machine's, corrected by what the exchange said its time was."""

from __future__ import annotations

from market.clock import Clock

_SECOND = 1000
_TRUSTED_ROUND_TRIP = 2 * _SECOND


class VenueClock:
    """Milliseconds since the epoch as the exchange counts them; *base*'s own until measured."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._offset = 0

    @property
    def offset(self) -> int:
        """Milliseconds that the exchange is ahead of *base*."""
        return self._offset

    def now(self) -> int:
        return self._base.now() + self._offset

    def measure(self, told: int, *, answered: int, round_trip: int) -> None:
        """Take the time *told* in an answer that arrived at *answered* by *base*.

        The answer took *round_trip*. A difference that the measurement cannot tell from none counts
        as none, and a slow answer leaves the offset as it was.
        """
        if not 0 <= round_trip <= _TRUSTED_ROUND_TRIP:
            return
        # Some exchanges tell whole seconds only; theirs may be up to one second later.
        vague = _SECOND if told % _SECOND == 0 else 0
        offset = told - (answered - round_trip // 2)
        self._offset = offset if abs(offset) > round_trip // 2 + vague else 0
