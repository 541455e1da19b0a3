"""The words of the candle store: what is asked of it, what it answers.

Times are milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from market.bars import Bars
from market.buckets import Buckets
from market.instrument import Listing
from market.timeframe import Timeframe
from market.window import Spans, Times, Window

NOTHING = Spans()
_EVER = -(2**62)


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """A stored series: a listing's minutes, a native timeframe, or seconds built from trades."""

    listing: Listing
    timeframe: Timeframe


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What is noted when a series is stored for the first time.

    Only minutes of what trades *around_the_clock* are kept in the aggregates.
    """

    base: str | None = None
    quote: str | None = None
    around_the_clock: bool = False


@dataclass(frozen=True, slots=True)
class SeriesState:
    """What the store knows about a series.

    *minutes_from*: the oldest minute coarser bars are computed from. *position*: of the newest
    logged change. *generation* grows whenever something changes inside *known*, the time in which
    a missing bar is known not to exist.

    Bars before *retained_from* were dropped because of their age, and are not taken in again; None
    where none were. *rolled* is settled time before it of which the view that was read still tells.
    """

    id: int
    minutes_from: int | None
    position: int
    generation: int
    known: Spans
    retained_from: int | None = None
    rolled: Spans = NOTHING

    @property
    def dropped(self) -> Spans:
        """The time whose bars are not kept."""
        return NOTHING if self.retained_from is None else Spans.of(_EVER, self.retained_from)

    @property
    def beyond_asking(self) -> Spans:
        """The time that a provider need not be asked about: it is known, or not kept."""
        return self.known | self.dropped


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bars to read: stored ones that open inside *window*, or those of the aggregate *view*.

    With *buckets* the store makes one bar of all stored ones that open in the same bucket: it opens
    with the bucket, and is void if all of them are. Then *window* and *view* are not looked at.
    """

    key: SeriesKey
    window: Window
    view: Timeframe | None = None
    buckets: Buckets | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The state of a series, None where nothing was ever stored, and its bars, all closed.

    Withdrawn ones are among them, marked VOID, because revisions count them.

    Whether an aggregate's newest bar is closed is for the reader to say: the store has no clock.
    """

    state: SeriesState | None
    bars: Bars


@dataclass(frozen=True, slots=True)
class Write:
    """Closed bars a provider gave, and the time its answer speaks for.

    *observed_at* was taken before the provider was asked. Inside *covered* the answer is whole: a
    stored bar that it lacks was withdrawn. Inside *settled* it is final, as far as can be known.

    *observed* says for each bar when its values were asked for, where that was not at
    *observed_at*. Such bars come from many answers, none of which is whole: *covered* is empty.
    """

    key: SeriesKey
    facts: SeriesFacts
    bars: Bars
    observed_at: int
    covered: Spans = NOTHING
    settled: Spans = NOTHING
    observed: Times | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A logged change: bars that open in `[since, until)` were added, revised or withdrawn."""

    position: int
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class ChangeLog:
    """Changes after a position, oldest first; those up to *pruned* are gone, *head* is newest."""

    changes: tuple[Change, ...]
    pruned: int
    head: int


@dataclass(frozen=True, slots=True)
class Written:
    """What a write led to.

    *bars* are what the store now holds at the times written: dropped ones show the newer values
    that stood against them, and a time that was withdrawn since is left out, as are those before
    `state.retained_from`, *too_old* of them.
    """

    state: SeriesState
    changes: tuple[Change, ...]
    bars: Bars
    too_old: int = 0
