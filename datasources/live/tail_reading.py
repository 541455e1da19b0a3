"""Read buckets of live series from the store; what it cannot say alone, from the chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from datasources.aggregates import Aggregates, Read
from datasources.compose import select
from datasources.found import Answer, Found, GapReason, Head, Request
from datasources.live.series_tail import SeriesTail
from datasources.views import view_grid
from market.bars import VOID, Bars
from market.buckets import Buckets
from market.calendars import calendar
from market.errors import BargraphError, StoreUnavailable
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, Spans, Window

AnswerAll = Callable[[Sequence[Request]], Awaitable[Sequence[Answer | BargraphError]]]


@dataclass(frozen=True, slots=True)
class Told:
    """What the feed told: every base bar that opens in `[since, until)` is stored, or none is.

    *now* is the time up to which buckets count as over.
    """

    since: int
    until: int
    now: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The bars of a series' buckets, oldest first, and a stretch in which some were withdrawn.

    *unread* are closed buckets of which a provider could have told that did not answer, or whose
    answer is from before they closed. *position* is the log position that the bars are of; None if
    not all are of one that is known.
    """

    bars: Bars
    withdrawn: Window | None
    unread: Spans
    position: int | None


class TailReads:
    """Reads for all series of a base in one statement."""

    def __init__(self, aggregates: Aggregates, answer: AnswerAll) -> None:
        self._aggregates = aggregates
        self._answer = answer

    async def read(self, asked: Sequence[tuple[SeriesTail, Buckets]], told: Told) -> list[Reading]:
        """Return what the buckets of each series hold. Raises `StoreUnavailable`."""
        founds = await self._stored(asked, told)
        left = [
            (tail, _left(buckets, found.fresh, told))
            for (tail, buckets), (found, _) in zip(asked, founds, strict=True)
        ]
        bars = [found.bars for found, _ in founds]
        unread = [Spans() for _ in asked]
        positions: list[int | None] = [
            found.heads[tail.base].position if tail.base in found.heads else 0
            for (tail, _), (found, _) in zip(asked, founds, strict=True)
        ]
        turn = [n for n, (_, buckets) in enumerate(left) if len(buckets)]
        if turn:
            for n, (more, missing) in zip(
                turn, await self._fetched([left[n] for n in turn], told), strict=True
            ):
                bars[n], unread[n], positions[n] = bars[n].merge(more), missing, None
        return [
            Reading(some, _withdrawn(rows, buckets, some), missing, position)
            for some, (_, rows), (_, buckets), missing, position in zip(
                bars, founds, asked, unread, positions, strict=True
            )
        ]

    async def _stored(
        self, asked: Sequence[tuple[SeriesTail, Buckets]], told: Told
    ) -> list[tuple[Found, Bars]]:
        if not await self._aggregates.learn_views():
            raise StoreUnavailable("the candle store is away")
        reads: list[Read] = []
        owners: list[int] = []
        kept: list[Buckets] = []
        for n, (tail, buckets) in enumerate(asked):
            want = tail.want(buckets, told.now)
            over, view = self._aggregates.buildable(
                want, tail.base, select(buckets, buckets.closes <= told.now)
            )
            running, _ = self._aggregates.buildable(
                want, tail.base, select(buckets, buckets.closes > told.now)
            )
            mine = [Read(tail.base, view, window) for window in over.spans]
            for bucket in running:
                mine += self._pieces(tail, Window(bucket.since, min(told.now, bucket.until)))
            # One read at least: the head says what the store knows.
            mine = mine or [Read(tail.base, None, Window(told.now, told.now))]
            reads += mine
            owners += [n] * len(mine)
            kept.append(
                Buckets(
                    np.append(over.opens, running.opens), np.append(over.closes, running.closes)
                )
            )
        rows = [Bars.empty() for _ in asked]
        heads: list[Head | None] = [None for _ in asked]
        for n, (head, bars) in zip(owners, await self._aggregates.read(reads), strict=True):
            before = heads[n]
            heads[n] = before.merge(head) if before and head else head
            rows[n] = rows[n].merge(bars)
        if not self._aggregates.available:
            raise StoreUnavailable("the candle store is away")
        return [
            (_composed(tail, buckets, some, head, told), some)
            for (tail, _), buckets, some, head in zip(asked, kept, rows, heads, strict=True)
        ]

    def _pieces(self, tail: SeriesTail, window: Window) -> list[Read]:
        """Read the part of a running bucket that is over: whole view buckets, then single bars."""
        if window.empty:
            return []
        pieces: list[Read] = []
        since = window.since
        for view in self._views_inside(tail):
            fine = view_grid(view)
            starts, running = fine.at(since), fine.at(window.until)
            if starts and running and starts.since == since and running.since > since:
                pieces.append(Read(tail.base, view, Window(since, running.since)))
                since = running.since
        pieces.append(Read(tail.base, None, Window(since, window.until)))
        return pieces

    def _views_inside(self, tail: SeriesTail) -> list[Timeframe]:
        base = tail.base
        around = calendar(tail.series.calendar).around_the_clock
        if base.native or base.timeframe != MINUTE_FRAME or not around:
            return []
        longest = min(DAY, tail.series.timeframe.nominal - 1)
        return [view for view in self._aggregates.views if view.nominal <= longest]

    async def _fetched(
        self, asked: Sequence[tuple[SeriesTail, Buckets]], told: Told
    ) -> list[tuple[Bars, Spans]]:
        """Let the chain fetch what the store lacks, and return what it and the store then say.

        Beside the bars it returns the closed buckets that the provider failed to tell of.
        """
        requests = [
            Request(
                tail.series,
                tail.instrument,
                since=int(buckets.opens[0]),
                until=int(buckets.closes[-1]),
                last=2 * len(buckets) + 10,
            )
            for tail, buckets in asked
        ]
        answers = await self._answer(requests)
        again = await self._stored(asked, told)
        found = []
        for (tail, buckets), answer, (stored, _) in zip(asked, answers, again, strict=True):
            left = _left(buckets, stored.fresh, told)
            running = select(left, left.closes > told.now)
            # The chain's running bar has the newest base bar in it, which is added later again.
            tail.mute(next(iter(running), None))
            bars = Bars.empty()
            unread = select(left, left.closes <= told.now).spans
            if isinstance(answer, Answer):
                bars = answer.bars.closed()
                bars = bars.take(left.spans.contains(bars.time))
                # Others may have begun it before we asked.
                late = (left.closes > answer.as_of) & ~np.isin(left.opens, bars.time)
                unread &= select(left, late).spans | Spans(
                    Window(gap.since, gap.until)
                    for gap in answer.gaps
                    if gap.reason is GapReason.PROVIDER_UNAVAILABLE
                )
            found.append((stored.bars.merge(bars), unread))
        return found


def _composed(
    tail: SeriesTail, buckets: Buckets, rows: Bars, head: Head | None, told: Told
) -> Found:
    if head is None:
        return Found.nothing()
    return tail.compose(buckets, rows, head, Spans.of(told.since, told.until), told.now)


def _left(buckets: Buckets, fresh: Spans, told: Told) -> Buckets:
    """Return those of *buckets* that have begun and of which nothing is known."""
    return select(buckets, ~fresh.contains(buckets.opens) & (buckets.opens < told.now))


def _withdrawn(rows: Bars, buckets: Buckets, bars: Bars) -> Window | None:
    """Return a window around the buckets of which nothing is left but withdrawn bars."""
    void = rows.time[(rows.flags & VOID) != 0]
    if not len(void):
        return None
    has_void = np.searchsorted(void, buckets.closes) > np.searchsorted(void, buckets.opens)
    empty = select(buckets, has_void & ~np.isin(buckets.opens, bars.time))
    return empty.spans.hull if len(empty) else None
