"""What viewers of a series are told, each with the cursor from which they can go on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from datasources.cursors import CandleCursor
from datasources.live.events import Status
from market.bars import Bars
from market.instrument import Series


class ResetReason(StrEnum):
    """Why continuity could not be proved."""

    LOG_PRUNED = "log_pruned"
    STORE_REPLACED = "store_replaced"
    POSITION_UNKNOWN = "position_unknown"
    NO_STORE = "no_store"
    OVERFLOW = "overflow"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest bars, the running one included; *reset* is None at the start."""

    series: Series
    bars: Bars
    cursor: CandleCursor
    reset: ResetReason | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Bars that closed, were revised or go on running.

    *passing*: only the running one is here. *ahead*: the closed ones may be newer than *cursor*
    says, so that whoever has been told all up to there may lack them.
    """

    bars: Bars
    cursor: CandleCursor
    passing: bool = False
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class RangeChanged:
    """Bars that open in `[since, until)` changed; too many or too old ones to be sent.

    *reached* is where all stand who were told this, and what belongs to it: if bars follow, whoever
    goes on from *cursor* is told of them again.
    """

    since: int
    until: int
    cursor: CandleCursor
    reached: CandleCursor


TailEvent = Snapshot | Update | RangeChanged | Status


def passing_key(event: TailEvent) -> str | None:
    """Return what of its kind a later event makes *event* obsolete; None: it must be seen."""
    if isinstance(event, Update):
        return "forming" if event.passing else None
    return "status" if isinstance(event, Status) else None
