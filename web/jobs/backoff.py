"""How long a job that failed waits for its next try."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from *first_ms* up to *most_ms*, each shortened by up to a half.

    The chance keeps jobs that failed together from coming back together.
    """

    first_ms: int = 2_000
    most_ms: int = 900_000

    def after_ms(self, failures: int, failure: Exception) -> int:
        """Return the pause after the try number *failures*.

        It is never shorter than the seconds of `retry_after`, if *failure* knows them.
        """
        pause = min(self.most_ms, self.first_ms * 2 ** min(failures - 1, 30))
        asked = getattr(failure, "retry_after", None)
        least = min(int((asked or 0) * 1000), self.most_ms)
        return max(least, int(pause * random.uniform(0.5, 1)))  # noqa: S311 - no secret hangs on it
