"""Who listens to which channel, and what Redis has to be told of it. No input or output.

Only one task tells Redis, batch by batch, and never unsubscribes before a subscription was
confirmed. So a channel has at most one unanswered SUBSCRIBE, an answer is never taken for that to
another, and whoever joins and leaves in between changes nothing but the next batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from datasources.live.redis_inbox import Inbox


class _Stage(Enum):
    WANTED = "wanted"
    ASKED = "asked"
    CONFIRMED = "confirmed"


@dataclass(slots=True)
class _Subscription:
    """One channel, for all who listen to it in this process.

    *settled* is set while it is confirmed, or known that Redis is away.
    """

    stage: _Stage = _Stage.WANTED
    inboxes: set[Inbox] = field(default_factory=set)
    settled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Batch:
    """What to tell Redis next."""

    subscribe: Sequence[bytes]
    unsubscribe: Sequence[bytes]


class Subscriptions:
    """All subscriptions of a process. Begins without a connection."""

    def __init__(self) -> None:
        self._by_channel: dict[bytes, _Subscription] = {}
        self._touched: set[bytes] = set()
        self._away = True
        self._closed = False
        self.changed = asyncio.Event()
        """Set when there may be a next batch."""

    async def join(self, channel: bytes, inbox: Inbox) -> None:
        """Add *inbox*, and return once what is sent reaches it or it was told that nothing can.

        Whoever joins leaves, also after a failure to join.
        """
        if self._closed:
            inbox.close()
            return
        subscription = self._by_channel.setdefault(channel, _Subscription())
        subscription.inboxes.add(inbox)
        if self._away:
            inbox.away()
            return
        self._touch(channel)
        await subscription.settled.wait()

    def leave(self, channel: bytes, inbox: Inbox) -> None:
        inbox.close()
        subscription = self._by_channel.get(channel)
        if subscription is not None:
            subscription.inboxes.discard(inbox)
            self._touch(channel)

    def next_batch(self) -> Batch:
        """Return what changed since the last one; it counts as told."""
        self.changed.clear()
        touched, self._touched = self._touched, set()
        subscribe, unsubscribe = [], []
        for channel in touched:
            subscription = self._by_channel.get(channel)
            if subscription is None:
                continue
            if subscription.inboxes and subscription.stage is _Stage.WANTED:
                subscription.stage = _Stage.ASKED
                subscribe.append(channel)
            elif not subscription.inboxes and subscription.stage is not _Stage.ASKED:
                del self._by_channel[channel]
                if subscription.stage is _Stage.CONFIRMED:
                    unsubscribe.append(channel)
        return Batch(subscribe, unsubscribe)

    def confirm(self, channel: bytes) -> None:
        """Take in that Redis sends what is published on *channel* from here on."""
        subscription = self._by_channel.get(channel)
        if subscription is None:
            return
        subscription.stage = _Stage.CONFIRMED
        subscription.settled.set()
        for inbox in subscription.inboxes:
            inbox.back()
        if not subscription.inboxes:
            self._touch(channel)

    def deliver(self, channel: bytes, message: bytes) -> None:
        """Put *message* into all inboxes of *channel*.

        What still comes from before an unsubscription reaches nobody who joined after it: of what
        follows until the new subscription is confirmed nothing would.
        """
        subscription = self._by_channel.get(channel)
        if subscription is not None and subscription.stage is _Stage.CONFIRMED:
            for inbox in subscription.inboxes:
                inbox.put(message)

    def connected(self) -> None:
        """Begin on a new connection, which has no subscriptions yet. Also after `lost`."""
        self._away = False
        for channel, subscription in self._by_channel.items():
            subscription.settled.clear()
            self._touch(channel)

    def lost(self) -> None:
        """Tell everybody that the connection is gone."""
        self._away = True
        for channel, subscription in list(self._by_channel.items()):
            if not subscription.inboxes:
                del self._by_channel[channel]
            subscription.stage = _Stage.WANTED
            subscription.settled.set()
            for inbox in subscription.inboxes:
                inbox.away()

    def close(self) -> None:
        """End all inboxes, and those of whoever joins later."""
        self._closed = True
        for subscription in self._by_channel.values():
            subscription.settled.set()
            for inbox in subscription.inboxes:
                inbox.close()
        self._by_channel.clear()

    def _touch(self, channel: bytes) -> None:
        self._touched.add(channel)
        self.changed.set()
