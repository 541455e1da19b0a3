"""What it proves that trades were told without a hole: which minutes are whole, which are final.

All of it is arithmetic of time in microseconds since the epoch; `Proof` alone speaks milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from market.window import MINUTE, Spans, Window

US = 1000
"""Microseconds in a millisecond."""
MOST_SPANS = 100
"""Stretches remembered of a series; trades of what is older are kept and revise nothing."""


@dataclass(frozen=True, slots=True)
class Proof:
    """When a minute counts as told, in ms after its end.

    After *late* its bar is written: trades take a moment to come. After *settle* it is final, as
    it would be after a look at history then (promise 6 of the API).
    """

    late: int
    settle: int

    def whole(self, told: Spans) -> Spans:
        """Return the minutes, in ms, whose trades are all told as far as can be known."""
        return _minutes(told, self.late)

    def final(self, told: Spans) -> Spans:
        """Return the minutes, in ms, that nothing more is expected of."""
        return _minutes(told, max(self.late, self.settle))


def newest(told: Spans) -> Spans:
    """Return *told* without what lies too far back to be remembered."""
    return Spans(list(told)[-MOST_SPANS:])


def as_of(told: Spans, minute: int) -> int:
    """Return up to when, in ms, everything since *minute* (ms) was told; it never goes back."""
    for span in told:
        if span.since <= minute * US < span.until:
            return span.until // US
    raise ValueError("nothing was told of that minute")


def _minutes(told: Spans, after: int) -> Spans:
    return Spans(
        Window(
            -(-span.since // (MINUTE * US)) * MINUTE, (span.until // US - after) // MINUTE * MINUTE
        )
        for span in told
    )
