"""Begin a viewer's bars with a snapshot, or with exactly what it missed since its cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from datasources.aggregates import key_of
from datasources.cursors import CandleCursor
from datasources.found import Request
from datasources.live.base_tail import BaseTail, joined
from datasources.live.series_tail import NEWEST, SeriesTail
from datasources.live.tail_events import RangeChanged, ResetReason, Snapshot, Update
from datasources.live.tail_reading import AnswerAll, TailReads
from db.candles import CandleStore
from market.bars import Bars
from market.errors import BargraphError, StoreUnavailable
from market.window import Window

_CHANGES_AT_ONCE = 1_000

FirstEvent = Snapshot | RangeChanged | Update


@dataclass(frozen=True, slots=True)
class Beginning:
    """A viewer's first events, and what it has been told with them: all up to each of *told*."""

    events: Sequence[FirstEvent]
    told: tuple[CandleCursor, ...]


class NotResumable(Exception):
    """A cursor from which nobody can prove what followed."""

    def __init__(self, reason: ResetReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Resumption:
    """What a viewer is given before it joins the tail; to be asked once the tail is followed."""

    def __init__(self, store: CandleStore, reads: TailReads, answer: AnswerAll) -> None:
        self._store = store
        self._reads = reads
        self._answer = answer

    async def begin(
        self, tail: SeriesTail, followed: BaseTail, after: CandleCursor | None
    ) -> Beginning:
        """Return how a viewer begins. Raises `BargraphError` if there are no bars."""
        reset = None
        if after is not None:
            try:
                return _beginning(await self.since(tail, followed, after))
            except NotResumable as broken:
                reset = broken.reason
            except StoreUnavailable:
                reset = ResetReason.NO_STORE
        snapshot = await self._newest(tail, reset)
        # Its bars may be newer than its cursor says: only once the tail has read the log after them
        # have all readers been told of what they hold.
        if await followed.reach() and followed.covers(snapshot.cursor):
            tail.seen(snapshot.bars, followed.told)
        return _beginning(await self._followed(tail, followed, snapshot))

    async def snapshot(
        self, tail: SeriesTail, followed: BaseTail, reset: ResetReason | None
    ) -> list[FirstEvent]:
        """Return the newest bars and what followed them. Raises `BargraphError`."""
        return await self._followed(tail, followed, await self._newest(tail, reset))

    async def _followed(
        self, tail: SeriesTail, followed: BaseTail, snapshot: Snapshot
    ) -> list[FirstEvent]:
        """Return *snapshot* with what followed it, as far as it could be read."""
        try:
            # The snapshot may be a moment older than what the tail has told.
            later = await self.since(tail, followed, snapshot.cursor)
        except (NotResumable, StoreUnavailable):
            return [snapshot]
        bars, cursor = snapshot.bars, snapshot.cursor
        changed: list[FirstEvent] = []
        for event in later:
            if isinstance(event, Update):
                bars, cursor = bars.merge(event.bars), event.cursor
            elif isinstance(event, RangeChanged) and len(bars) and event.until > bars.time[0]:
                changed.append(event)
        return [replace(snapshot, bars=bars, cursor=tail.cursor(cursor)), *changed]

    async def _newest(self, tail: SeriesTail, reset: ResetReason | None) -> Snapshot:
        request = Request(tail.series, tail.instrument, since=None, until=None, last=NEWEST)
        before: dict[int, int] = {}
        store = None
        try:
            # What the answer does not need of its bases is no news for whoever goes on from it.
            states = await self._store.states([key_of(base) for base in tail.bases])
            before = {state.id: state.position for state in states[1:] if state is not None}
            store = await self._store.store_id()
        except StoreUnavailable:
            pass
        (answer,) = await self._answer([request])
        if isinstance(answer, BargraphError):
            raise answer
        cursor = CandleCursor.of(answer, store)
        cursor = CandleCursor(store, before | dict(cursor.positions), cursor.told_until)
        return Snapshot(tail.series, answer.bars, cursor, reset)

    async def since(
        self, tail: SeriesTail, followed: BaseTail, cursor: CandleCursor
    ) -> list[FirstEvent]:
        """Return what was closed or revised since *cursor*, up to what the tail has told.

        Raises `NotResumable`, `StoreUnavailable`.
        """
        if cursor.store is None:
            raise NotResumable(ResetReason.NO_STORE)
        if cursor.store != await self._store.store_id():
            raise NotResumable(ResetReason.STORE_REPLACED)
        told = followed.told_window
        changes, positions = await self._changes(tail, cursor)
        affected = tail.affected(changes, cursor.told_until, told.now, running=False)
        buckets, beyond = affected.buckets, affected.beyond
        if len(buckets) > NEWEST:
            beyond = joined(beyond, Window(int(buckets.opens[0]), int(buckets.closes[-1])))
            closed = Bars.empty()
        else:
            (reading,) = await self._reads.read([(tail, buckets)], told)
            tail.owed |= reading.unread
            closed = reading.bars.closed()
            beyond = joined(beyond, reading.withdrawn)
        # What changed of a bucket that is over for the cursor, and for the tail still runs, is told
        # by the tail when it closes there.
        awaited = (buckets.closes > told.now) & (buckets.closes <= cursor.told_until)
        through = told.now if awaited.any() else max(cursor.told_until, told.now)
        reached = tail.cursor(CandleCursor(cursor.store, positions, through))
        events: list[FirstEvent] = []
        if beyond is not None:
            resume = cursor if len(closed) else reached
            events.append(RangeChanged(beyond.since, beyond.until, resume, reached))
        bars = closed.merge(tail.running(followed.forming, told.now))
        if len(bars):
            events.append(Update(bars, reached, passing=not len(closed)))
        return events

    async def _changes(
        self, tail: SeriesTail, cursor: CandleCursor
    ) -> tuple[list[Window], dict[int, int]]:
        """Return what the logs of all bases have past *cursor*, and the positions they end at."""
        states = await self._store.states([key_of(base) for base in tail.bases])
        found = {state.id: state for state in states if state is not None}
        if cursor.positions.keys() - found.keys():
            raise NotResumable(ResetReason.POSITION_UNKNOWN)
        windows: list[Window] = []
        positions: dict[int, int] = {}
        for series_id, state in found.items():
            # A base that was not stored then has changed from its beginning.
            position = cursor.positions.get(series_id, 0)
            if position > state.position:
                raise NotResumable(ResetReason.POSITION_UNKNOWN)
            while position < state.position:
                log = await self._store.changes(series_id, after=position, limit=_CHANGES_AT_ONCE)
                if log.pruned > position:
                    raise NotResumable(ResetReason.LOG_PRUNED)
                if not log.changes:
                    break
                windows += [Window(change.since, change.until) for change in log.changes]
                position = log.changes[-1].position
            positions[series_id] = position
        for series_id, position in positions.items():
            tail.others.setdefault(series_id, position)
        return windows, positions


def _beginning(events: Sequence[FirstEvent]) -> Beginning:
    """Return the beginning that *events* make.

    Only where they end counts as told: a cursor from before may have been given with a gap in which
    nothing was known, and what is known of it later must not be kept back.
    """
    ends = [e.reached if isinstance(e, RangeChanged) else e.cursor for e in events]
    return Beginning(events, tuple(ends[-1:]))
