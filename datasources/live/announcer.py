"""Tell the listeners of one base what is new: each logged change once, in order, never skipped.

What is announced is the store's log and not the writes of this process, because others write to
the same base. What could not be sent is read from the log again and sent later, so that neither a
crash between commit and announcement nor an absent Redis loses anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from datasources.live.broadcaster import Appended, Broadcaster
from datasources.live.events import BaseEvent, FeedState, Status
from datasources.live.keys import FeedKey
from datasources.live.leases import Lease
from db.candles import CandleStore
from db.stored import SeriesState, Written
from market.bars import Bars
from market.window import Spans, Window

_CHANGES_AT_ONCE = 500


class LeaseLost(Exception):
    """Another process holds the feed now."""


class Announcer:
    """Speaks for one base under one lease. *told_from* and *told* as in `BaseEvent`."""

    def __init__(
        self, key: FeedKey, store: CandleStore, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        self._channel = key.name
        self._store = store
        self._broadcaster = broadcaster
        self._lease = lease
        self._store_id: UUID | None = None
        self._series: int | None = None
        self._announced = 0
        self.told_from = 0
        self.told = 0
        self.forming = Bars.empty()
        self._status = Status(FeedState.CATCHING_UP, 0, "The feed is starting.")

    @property
    def state(self) -> FeedState:
        return self._status.state

    def behind(self, state: SeriesState | None) -> bool:
        """Whether the log holds changes that were not announced."""
        if state is None:
            return False
        # A log that goes back is another store's.
        return self._series != state.id or state.position != self._announced

    async def sync(self, state: SeriesState | None, written: Written | None = None) -> bool:
        """Announce what was logged up to *state*; return whether all of it went out.

        *written* is the write that led there, whose bars go along if nobody else wrote between.
        Raises `LeaseLost`, `StoreUnavailable`.
        """
        if state is None:
            return True
        if self._series != state.id or self._store_id != await self._store.store_id():
            await self._begin(state)
        if written is not None and _only(written, after=self._announced):
            windows = tuple(Window(change.since, change.until) for change in written.changes)
            changed = Spans(windows).contains(written.bars.time)
            bars = written.bars.take(changed & (written.bars.revision > 0))
            # Others may have written since: what they changed is in the log alone.
            if not await self._append(written.state.position, windows, bars, whole=True):
                return False
        while self._announced < state.position:
            log = await self._store.changes(state.id, after=self._announced, limit=_CHANGES_AT_ONCE)
            # Past what was pruned, listeners see that they cannot go on from where they are.
            self._announced = max(self._announced, log.pruned)
            if not log.changes:
                break
            windows = tuple(Window(change.since, change.until) for change in log.changes)
            last = log.changes[-1].position
            if not await self._append(last, windows, Bars.empty(), whole=False):
                return False
        return True

    def head(self) -> tuple[str, bytes]:
        """Return the channel, and what a listener needs to know that it missed nothing."""
        return self._channel, self._event(status=self._status).packed()

    async def tell(self) -> None:
        """Send where the base stands and the bar that runs. It may be lost: another one follows."""
        await self._broadcaster.publish(self._channel, self._event().packed())

    async def say(self, state: FeedState, message: str, *, at: int) -> None:
        """Send how the feed is doing, if that changed."""
        if (state, message) != (self._status.state, self._status.message):
            self._status = Status(state, at, message)
            await self._broadcaster.say(*self.head())

    async def _begin(self, state: SeriesState) -> None:
        self._store_id = await self._store.store_id()
        self._series = state.id
        # What the holder before us committed and did not announce comes after what it announced.
        newest = await self._broadcaster.newest(self._channel)
        known = newest is not None and newest <= state.position
        self._announced = newest if newest is not None and known else state.position

    async def _append(
        self, position: int, changes: Sequence[Window], bars: Bars, *, whole: bool
    ) -> bool:
        event = BaseEvent(
            store=self._store_id,
            series=self._series,
            position=position,
            previous=self._announced,
            told_from=self.told_from,
            told=self.told,
            changes=tuple(changes),
            bars=bars,
            whole=whole,
            forming=self.forming,
        )
        appended = await self._broadcaster.append(
            self._channel,
            event.packed(),
            position=position,
            previous=self._announced,
            lease=self._lease,
        )
        if appended is Appended.FENCED:
            raise LeaseLost(self._channel)
        if appended is Appended.AWAY:
            return False
        self._announced = position
        return True

    def _event(self, status: Status | None = None) -> BaseEvent:
        return BaseEvent(
            store=self._store_id,
            series=self._series,
            position=self._announced,
            previous=self._announced,
            told_from=self.told_from,
            told=self.told,
            forming=self.forming,
            status=status,
        )


def _only(written: Written, *, after: int) -> bool:
    """Whether *written* logged all that came after a position, and nothing was logged later."""
    positions = [change.position for change in written.changes]
    return bool(positions) and bool(
        np.array_equal(positions, range(after + 1, written.state.position + 1))
    )
