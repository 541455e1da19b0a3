"""The one place that reads the machine's clock."""

import time


class SystemClock:
    """The machine's own time."""

    def now(self) -> int:
        """Return milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000
