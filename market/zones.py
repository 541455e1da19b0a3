"""The dates of a time zone as instants: where each local day begins, and which day holds a time.

A date begins at the first instant whose local date is that date or a later one. So a midnight that
daylight saving skips or repeats has one answer, and a date that a zone skipped (Apia, 2011-12-30)
begins where the next one does: it is empty.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from market.bars import Ints
from market.errors import UnknownName
from market.window import DAY, Times, Window

ERA = Window(-98_615 * DAY, 84_006 * DAY)
"""1700 to 2200, UTC: no bucket or session is told of outside it, so that no window is endless."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock's epoch, the same in every zone
_BLOCK = 512
_MACHINE_ZONES = {"Factory", "localtime"}


def check_zone(name: str, *, field: str = "timezone") -> str:
    """Return *name* if it is an IANA time zone, spelt as IANA does.

    Raises `UnknownName` with the nearest three. The file system is never asked about *name*.
    """
    if name not in _zones():
        raise UnknownName("time zone", name, sorted(_zones()), field=field)
    return name


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - _MACHINE_ZONES)


def day_starts(zone: str, days: Ints) -> Times:
    """Return the first instant (ms) of each local date, given as days since 1970-01-01."""
    if not len(days):
        return np.empty(0, np.int64)
    blocks, within = np.divmod(days, _BLOCK)
    first, last = int(blocks.min()), int(blocks.max())
    if first == last:
        return _block_starts(zone, first)[within]
    wanted = np.unique(blocks)
    starts = np.concatenate([_block_starts(zone, int(block)) for block in wanted])
    return starts[np.searchsorted(wanted, blocks) * _BLOCK + within]


def local_day(zone: str, time: int) -> int:
    """Return the date that holds the instant *time* (ms), as days since 1970-01-01."""
    day = time // DAY + 1
    while _block_starts(zone, day // _BLOCK)[day % _BLOCK] > time:
        day -= 1
    return day


@lru_cache(maxsize=1024)  # 4 KB each
def _block_starts(zone: str, block: int) -> Times:
    tz = ZoneInfo(zone)
    first = block * _BLOCK
    starts = np.array([_day_start(tz, day) for day in range(first, first + _BLOCK)], dtype=np.int64)
    starts.flags.writeable = False
    return starts


def _day_start(tz: ZoneInfo, day: int) -> int:
    midnight = (_EPOCH + timedelta(days=day)).replace(tzinfo=tz)
    # Where a midnight comes twice, fold 0 is the first of them.
    first, second = _offset(midnight), _offset(midnight.replace(fold=1))
    if second <= first:
        return day * DAY - first
    # A gap holds it, and the date begins with the gap's end: later than with the offset after it,
    # no later than with the one before. Zones change at whole seconds.
    before, after = (day * DAY - second) // 1000 - 1, (day * DAY - first) // 1000
    while after - before > 1:
        middle = (before + after) // 2
        local = datetime.fromtimestamp(middle, tz)
        if middle * 1000 + _offset(local) < day * DAY:
            before = middle
        else:
            after = middle
    return after * 1000


def _offset(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None, "a moment in a zone has an offset"
    return (offset.days * 86_400 + offset.seconds) * 1000
