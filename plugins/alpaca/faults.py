"""What goes wrong between us and Alpaca, in words that quote neither an answer nor a key."""

from __future__ import annotations

import random


class Fault(Exception):
    """A call that failed. *passing* faults are worth another try.

    *retry_after* and *resets_at* (seconds, and seconds since the epoch) are what Alpaca said of
    its limit. *recent* means that the account may not see the newest minutes of a feed.
    """

    def __init__(
        self,
        reason: str,
        *,
        passing: bool = False,
        rate_limited: bool = False,
        keys_refused: bool = False,
        recent: bool = False,
        retry_after: float | None = None,
        resets_at: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.rate_limited = rate_limited
        self.keys_refused = keys_refused
        self.recent = recent
        self.retry_after = retry_after
        self.resets_at = resets_at


class LineLost(Exception):
    """A connection to a stream that cannot be used any further; *retry_after* in seconds."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def backoff(attempt: int) -> float:
    """Return the seconds to wait after the failed *attempt*, the first being 1."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads retries, keeps no secret
    return float(0.5 * 2 ** (attempt - 1) * jitter)
