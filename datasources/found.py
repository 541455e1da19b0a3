"""What is asked of a source and what it found: bars, and the time for which they are the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from market.bars import Bars
from market.instrument import Instrument, Listing, Series
from market.timeframe import Timeframe
from market.window import Spans
from market.zones import ERA


class GapReason(StrEnum):
    """Why a stretch of an answer has no bars."""

    NO_TRADES = "no_trades"
    SESSION_CLOSED = "session_closed"
    NOT_FETCHED = "not_fetched"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    BEFORE_FIRST = "before_first"
    AFTER_LAST = "after_last"
    NOT_OFFERED = "not_offered"
    NOT_KEPT = "not_kept"


@dataclass(frozen=True, slots=True)
class Base:
    """One stored series that others are built from: minutes, a native frame, seconds of trades."""

    listing: Listing
    timeframe: Timeframe
    native: bool


@dataclass(frozen=True, slots=True)
class Want:
    """Bars of *series* that open inside *spans*; *now* is the provider's, when the asking began.

    *bases* are what the series is built from, the most trusted first.
    """

    series: Series
    instrument: Instrument
    bases: tuple[Base, ...]
    spans: Spans
    now: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stored base stands: the id of its row, its log position and its generation.

    The generation moves when settled history changed; whatever was cached under another is void.
    *minutes_from* is when minutes begin to decide coarser bars, None while not known. Before
    *retained_from* bars were dropped for their age. *rolled* is the part of that time of which what
    was read tells all the same, because it was read through an aggregate.
    """

    id: int
    position: int
    generation: int
    known: Spans | None = None
    """The settled time of the base; None where only the cache was asked."""
    minutes_from: int | None = None
    retained_from: int | None = None
    rolled: Spans = field(default_factory=Spans)

    @property
    def lost(self) -> Spans:
        """The time whose bars were dropped, and of which nothing that was read tells."""
        if self.retained_from is None:
            return Spans()
        return Spans.of(ERA.since, self.retained_from) - self.rolled

    def merge(self, later: Head) -> Head:
        """Return a head that promises no more than both: the older of what moves on."""
        return Head(
            self.id,
            min(self.position, later.position),
            min(self.generation, later.generation),
            self.known if later.known is None else later.known,
            self.minutes_from if later.minutes_from is None else later.minutes_from,
            self.retained_from if later.retained_from is None else later.retained_from,
            self.rolled | later.rolled,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What one source, or several merged, can say of a want.

    Inside *settled* the bars are the whole truth for good: a bucket without one had no trades.
    Inside *fresh* (which contains settled) they were the whole truth at *as_of*, the provider's
    time; a bucket that closes after it is forming. *unknown* names the reason for stretches that
    nobody could fill. *heads* holds the log position and the generation of each base, read no
    later than the bars.
    """

    bars: Bars
    settled: Spans = field(default_factory=Spans)
    fresh: Spans = field(default_factory=Spans)
    as_of: int = 0
    unknown: tuple[tuple[GapReason, Spans], ...] = ()
    heads: Mapping[Base, Head] = field(default_factory=dict)

    @staticmethod
    def nothing() -> Found:
        return _NOTHING

    def outdates(self, earlier: Found) -> bool:
        """Whether history was revised since what was found *earlier*."""
        return bool(earlier.heads) and any(
            base in earlier.heads and head.generation > earlier.heads[base].generation
            for base, head in self.heads.items()
        )

    @property
    def passing_at(self) -> int | None:
        """When what is not settled was true; None where all is."""
        return self.as_of if self.fresh != self.settled else None

    def merge(self, later: Found) -> Found:
        """Join with what a *later* (dearer, fresher) source found in the time left open."""
        if self is _NOTHING and (later.passing_at or 0) == later.as_of:
            return later
        ats = (self.passing_at, later.passing_at)
        return Found(
            bars=self.bars.merge(later.bars),
            settled=self.settled | later.settled,
            fresh=self.fresh | later.fresh,
            # The whole is as old as its oldest part, else a forming bar would be kept too long.
            as_of=min(at for at in ats if at is not None) if any(ats) else 0,
            unknown=(*self.unknown, *later.unknown),
            heads=merge_heads(self.heads, later.heads),
        )


_NOTHING = Found(Bars.empty())


def merge_heads(earlier: Mapping[Base, Head], later: Mapping[Base, Head]) -> dict[Base, Head]:
    merged = dict(earlier)
    for base, head in later.items():
        merged[base] = merged[base].merge(head) if base in merged else head
    return merged


@dataclass(frozen=True, slots=True)
class Request:
    """Candles as a client asks for them: `since <= time < until`, the *last* newest of these."""

    series: Series
    instrument: Instrument
    since: int | None
    until: int | None
    last: int
    include_forming: bool = True


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of whole buckets, `[since, until)`, in which there are no bars."""

    since: int
    until: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Answer:
    """Bars oldest first, and a reason for every stretch of the window that has none."""

    series: Series
    bars: Bars
    gaps: Sequence[Gap]
    has_earlier: bool
    as_of: int
    heads: Mapping[Base, Head]
