"""What the small folder of recordings holds."""

from datetime import datetime
from zoneinfo import ZoneInfo

OPENING = 1_735_689_600_000
"""2025-01-01 00:00 UTC: the first minute of every crypto recording."""
CLOCK = OPENING + 240 * 60_000
"""The close of the newest bar, at which the clock of the folder stands."""
SILENT = range(10, 20)
"""Minutes in which COIN was not traded."""
MANY = [f"MANY{n:02}" for n in range(60)]
HALF_DAY = datetime(2024, 11, 29, tzinfo=ZoneInfo("America/New_York"))
"""The Friday after Thanksgiving: the regular session ends at 13:00."""


def stock_minutes(day: datetime) -> list[tuple[float, ...]]:
    """Return rows from 04:00 to 17:00 of *day*, in New York."""
    first = int(day.replace(hour=4).timestamp()) * 1000
    return [
        (first + n * 60_000, 10.0 + n % 7, 20.0 + n % 11, 9.0 - n % 5, 10.0 + n % 3, 1.0 + n)
        for n in range(13 * 60)
    ]
