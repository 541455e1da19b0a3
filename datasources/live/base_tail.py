"""Follow one base as its feed tells it, missing nothing, for all series of it that are watched.

Every event names the log position it follows on. One that does not follow on what was taken in
shows a hole, which is closed from the broadcaster's log or else from the store's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from datasources.aggregates import key_of
from datasources.cursors import CandleCursor
from datasources.found import Base
from datasources.health import HealthBoard
from datasources.live.broadcaster import Break, Broadcaster
from datasources.live.events import BaseEvent, FeedState, Status
from datasources.live.keys import FeedKey
from datasources.live.pacing import PACING, Pacing
from datasources.live.series_tail import NEWEST, SeriesTail
from datasources.live.tail_events import RangeChanged, ResetReason, TailEvent
from datasources.live.tail_reading import TailReads, Told
from db.candles import CandleStore
from market.bars import Bars
from market.buckets import Buckets
from market.clock import Clock
from market.errors import BargraphError, StoreUnavailable
from market.window import Spans, Window

log = logging.getLogger(__name__)

_CHANGES_AT_ONCE = 1_000
_MOMENT = 5_000
"""Milliseconds that an answer may be old in which a bar is forming, and some more."""


Beginnings = Callable[[SeriesTail, "BaseTail", ResetReason], Awaitable[Sequence[TailEvent]]]


@dataclass(frozen=True, slots=True)
class TailTools:
    """What all tails of a process share."""

    broadcaster: Broadcaster
    store: CandleStore
    reads: TailReads
    health: HealthBoard
    begin_anew: Beginnings
    pacing: Pacing = PACING


@dataclass(frozen=True, slots=True)
class _News:
    """What an event means for a series: bars to show as closed or revised, and what is beyond.

    The store stood at *position* when the bars were read, which may be later than the event's; None
    if that is not known.
    """

    closed: Bars
    beyond: Window | None
    position: int | None = 0


class _Reset(Exception):
    """Continuity cannot be proved."""

    def __init__(self, reason: ResetReason) -> None:
        super().__init__(reason)
        self.reason = reason


class BaseTail:
    """What this process knows of one base, and the series of it that are watched here."""

    def __init__(self, base: Base, clock: Clock, tools: TailTools) -> None:
        self.base = base
        self._clock = clock
        self._tools = tools
        self._channel = FeedKey.of(base).name
        self._tails: set[SeriesTail] = set()
        self._store: UUID | None = None
        self._series: int | None = None
        self._position: int | None = None
        self._told_from = 0
        self._fed_until = 0
        self._heard = False
        self.told = 0
        self._forming = Bars.empty()
        self._ahead = 0
        """Up to where the store changed, as far as is known; it may be past what was told."""
        self._away = False
        self._behind = False
        """Whether something is known to be missing that could not be read yet."""
        self._owed: ResetReason | None = None
        """Why viewers must begin anew, until they were given a new beginning."""
        self._status = Status(FeedState.CATCHING_UP, 0, "Waiting for the feed.")
        self._taking = asyncio.Lock()
        self.ready = asyncio.Event()

    @property
    def position(self) -> int | None:
        """The log position taken in so far; None while the store was never reached."""
        return self._position

    @property
    def told_window(self) -> Told:
        """What the feed told, and up to when buckets count as over."""
        return Told(self._told_from, self._fed_until, self.told)

    @property
    def forming(self) -> Bars:
        """The base's bar that runs, if any, as it was last told."""
        return self._forming

    @property
    def status(self) -> Status:
        return self._status

    def add(self, tail: SeriesTail) -> None:
        self._tails.add(tail)

    def remove(self, tail: SeriesTail) -> None:
        self._tails.discard(tail)

    def cursor(self) -> CandleCursor:
        """Return where whoever has seen everything so far goes on."""
        positions = {}
        if self._series is not None and self._position is not None:
            positions[self._series] = self._position
        return CandleCursor(self._store, positions, self.told)

    def covers(self, cursor: CandleCursor) -> bool:
        """Whether what was taken in includes all that the base had logged at *cursor*."""
        if self._series is None or self._position is None or self._store != cursor.store:
            return False
        return cursor.positions.get(self._series, 0) <= self._position

    async def reach(self) -> bool:
        """Take in at once all that the store has logged; return whether it could be read.

        Whoever has just read it there asks for this, so as not to be told of it again later.
        """
        async with self._taking:
            if self._position is None or self._owed is not None:
                return False
            try:
                await self._read_log()
            except StoreUnavailable:
                self._behind = True
                return False
            except _Reset as reset:
                await self._reset(reset.reason)
            return self._owed is None

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        async with self._tools.broadcaster.listen(self._channel) as inbox:
            # Viewers may begin with answers that are a moment old.
            self.told = self._told_from = self._fed_until = self._clock.now() - _MOMENT
            try:
                await self._begin()
            except StoreUnavailable:
                self._behind = True
            self.ready.set()
            heard = asyncio.get_running_loop().time()
            while True:
                message: bytes | Break | None = None
                try:
                    async with asyncio.timeout(self._tools.pacing.retry):
                        message = await anext(inbox)
                except TimeoutError:
                    pass
                now = asyncio.get_running_loop().time()
                if message is not None:
                    heard = now
                try:
                    async with self._taking:
                        await self._take(message, silent=now - heard > self._tools.pacing.unheard)
                except Exception:
                    # A bug must not end what others watch: they begin anew.
                    log.exception("The tail of %s failed", self.base)
                    await self._reset(ResetReason.OVERFLOW)

    async def _begin(self) -> None:
        """Take the store's position as ours. Raises `StoreUnavailable`."""
        self._store = await self._tools.store.store_id()
        (state,) = await self._tools.store.states([key_of(self.base)])
        self._position = state.position if state else 0
        self._series = state.id if state else None
        # Bars may be stored up to now that close after what was told.
        self._ahead = max(self._ahead, self._clock.now())

    async def _take(self, message: bytes | Break | None, *, silent: bool) -> None:
        if isinstance(message, Break):
            self._away = message is Break.AWAY
            if self._away:
                self._say(FeedState.DISCONNECTED, "Redis is away; what was missed will follow.")
            else:
                self._behind = True
        elif message is not None:
            event = BaseEvent.unpacked(message)
            if event is not None:
                await self._apply(event)
        elif silent and not self._away:
            self._say(FeedState.STALLED, "No process is feeding this series at the moment.")
        if self._owed is not None:
            await self._reset(self._owed)
        elif self._behind:
            await self._catch_up()

    async def _apply(self, event: BaseEvent) -> None:
        try:
            if self._foreign(event):
                raise _Reset(ResetReason.STORE_REPLACED)
            if event.series is not None and self._position is not None:
                self._series = event.series
                if event.previous > self._position and not await self._catch_up(event.previous):
                    self._behind = True
                    return
            await self._advance(event)
        except StoreUnavailable:
            self._behind = True
            self._say(FeedState.STALLED, "The candle store is away.")
            return
        except _Reset as reset:
            await self._reset(reset.reason)
            return
        if event.status is not None:
            self._say(event.status.state, event.status.message)

    def _foreign(self, event: BaseEvent) -> bool:
        return event.store is not None and self._store is not None and event.store != self._store

    async def _catch_up(self, until: int = 0) -> bool:
        """Take in what was announced past our position, and all that was logged up to *until*.

        Return whether it could be read.
        """
        try:
            if self._position is None:
                # Until here viewers saw bars without a position.
                raise _Reset(ResetReason.NO_STORE)
            if not await self._read_announced() or self._position < until:
                await self._read_log()
        except StoreUnavailable:
            self._behind = True
            self._say(FeedState.STALLED, "The candle store is away.")
            return False
        except _Reset as reset:
            await self._reset(reset.reason)
        self._behind = False
        return True

    async def _read_announced(self) -> bool:
        """Take in the broadcaster's log; return whether it has all that was announced."""
        assert self._position is not None
        entries = await self._tools.broadcaster.since(self._channel, self._position)
        for _, message in entries or ():
            event = BaseEvent.unpacked(message)
            if event is None or event.store != self._store:
                # It may hide what the log of our store has at these positions.
                return False
            # An entry may begin earlier than asked for; what is told twice does no harm.
            await self._advance(event)
        return entries is not None

    async def _read_log(self) -> None:
        """Take in what the store's log has past our position. Raises `_Reset`."""
        assert self._position is not None
        (state,) = await self._tools.store.states([key_of(self.base)])
        if state is None and self._series is not None:
            raise _Reset(ResetReason.NO_STORE)
        if state is None:
            return
        if state.position < self._position or self._series not in (None, state.id):
            raise _Reset(ResetReason.POSITION_UNKNOWN)
        self._series = state.id
        while self._position < state.position:
            found = await self._tools.store.changes(
                state.id, after=self._position, limit=_CHANGES_AT_ONCE
            )
            if found.pruned > self._position:
                raise _Reset(ResetReason.LOG_PRUNED)
            if not found.changes:
                break
            await self._advance(
                BaseEvent(
                    store=self._store,
                    series=state.id,
                    position=found.changes[-1].position,
                    previous=self._position,
                    told_from=self._told_from,
                    told=self._fed_until,
                    changes=tuple(Window(c.since, c.until) for c in found.changes),
                    whole=False,
                    forming=self._forming,
                ),
                heard=False,
            )

    async def _advance(self, event: BaseEvent, *, heard: bool = True) -> None:
        """Show every series what *event* means for it, then count it as taken in.

        It is *heard* if it came from the feed, and was not made up of the store's log.

        Raises `StoreUnavailable`; then nothing is counted, and it is read from the log later.
        """
        fresh = self._position is not None and event.position > self._position
        before, now = self.told, max(self.told, event.told)
        if heard and not self._heard:
            # Up to where the feed came there may be closes that nobody was shown.
            before, now = min(before, event.told), event.told
        told = Told(event.told_from, event.told, now)
        # What changed past the time that was told then belongs to buckets that run only now.
        unread = now > before and self._ahead > before
        event = event if fresh else replace(event, changes=(), bars=Bars.empty())
        shown: dict[SeriesTail, _News] = {}
        while added := self._tails - shown.keys():
            # Those that came meanwhile know of this event neither.
            shown |= await self._read(added, event, told, before, unread=unread)
        self._ahead = max(self._ahead, *(window.until for window in event.changes), 0)
        earlier = self.cursor()
        self._told_from, self._fed_until = event.told_from, event.told
        self.told, self._heard = now, self._heard or heard
        if fresh:
            self._position = event.position
        self._forming = event.forming
        cursor = self.cursor()
        for tail, news in shown.items():
            mine = tail.cursor(cursor)
            if news.beyond is not None:
                resume = earlier if len(news.closed) else mine
                tail.tell(RangeChanged(news.beyond.since, news.beyond.until, resume, mine))
            ahead = news.position is None or news.position > (self._position or 0)
            tail.show(news.closed, tail.running(event.forming, now), mine, ahead=ahead)

    async def _read(
        self,
        tails: Iterable[SeriesTail],
        event: BaseEvent,
        told: Told,
        before: int,
        *,
        unread: bool,
    ) -> dict[SeriesTail, _News]:
        """Return what *event* means for each series."""
        shown: dict[SeriesTail, _News] = {}
        reads: list[tuple[SeriesTail, Buckets]] = []
        beyonds: list[Window | None] = []
        # What could not be read is not tried again with every price.
        again = event.status is not None
        for tail in tails:
            affected = tail.affected(
                event.changes,
                before,
                told.now,
                running=unread or tail.stale,
                owed=tail.owed if again else Spans(),
            )
            if tail.is_base and event.whole and not unread and not (again and tail.owed):
                tail.stale = False
                shown[tail] = _News(tail.recent(event.bars, told.now), affected.beyond)
            elif len(affected.buckets) > NEWEST:
                tail.stale, tail.owed = True, Spans()
                hull = Window(int(affected.buckets.opens[0]), int(affected.buckets.closes[-1]))
                shown[tail] = _News(Bars.empty(), joined(hull, affected.beyond))
            elif len(affected.buckets):
                reads.append((tail, affected.buckets))
                beyonds.append(affected.beyond)
            else:
                shown[tail] = _News(Bars.empty(), affected.beyond)
        if reads:
            readings = await self._tools.reads.read(reads, told)
            for (tail, buckets), reading, beyond in zip(reads, readings, beyonds, strict=True):
                closed = tail.read(buckets, reading.bars, told.now)
                tail.owed = (tail.owed - buckets.spans) | reading.unread
                shown[tail] = _News(closed, joined(reading.withdrawn, beyond), reading.position)
        return shown

    async def _reset(self, reason: ResetReason) -> None:
        """Give every viewer a new beginning, from where the store stands now."""
        self._owed = reason
        try:
            await self._begin()
            for tail in list(self._tails):
                tail.stale, tail.owed, tail.others = True, Spans(), {}
                for event in await self._tools.begin_anew(tail, self, reason):
                    tail.tell(event)
        except BargraphError as failure:
            self._say(FeedState.STALLED, str(failure))
        else:
            self._owed = None

    def _say(self, state: FeedState, message: str) -> None:
        if (state, message) == (self._status.state, self._status.message):
            return
        self._status = Status(state, self._clock.now(), message)
        provider = self.base.listing.provider
        if state is FeedState.LIVE:
            self._tools.health.answered(provider)
        elif state in (FeedState.STALLED, FeedState.DISCONNECTED):
            self._tools.health.failed(provider, message)
        for tail in self._tails:
            tail.tell(self._status)


def joined(one: Window | None, other: Window | None) -> Window | None:
    """Return the smallest window around both."""
    if one is None or other is None:
        return one or other
    return Window(min(one.since, other.since), max(one.until, other.until))
