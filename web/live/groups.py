"""Run each tail once, and each distinct operation over it once, for however many want it.

A group belongs to one operation over one tail. One task enters the tail, executes each event,
encodes the response, and hands the same bytes to all members. Members catch up by themselves;
meanwhile the tail's responses are kept for them. When the last member leaves, the task is
cancelled and the tail is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass

from resolvers.live import LiveEvents, Shown
from web.live.counts import LiveCounts
from web.live.execution import Operation
from web.live.limits import LiveLimits
from web.live.outbox import Letter, Outbox, OutboxFull
from web.live.receiver import Errors, Receiver

_AT_ONCE = 256
"""Members that get a response before others have a turn on the event loop."""


class Groups:
    """The groups of one process, by what their members have in common."""

    def __init__(self, limits: LiveLimits, counts: LiveCounts) -> None:
        self.counts = counts
        self._limits = limits
        self._groups: dict[Hashable, _Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(
        self, key: Hashable, operation: Operation, live: LiveEvents[object], receiver: Receiver
    ) -> Membership:
        """Make *receiver* a member of the group of *key*, which begins if there is none.

        A new group executes *operation* over the tail of *live*.
        """
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self, key, operation)
            task = asyncio.create_task(group.run(live), name="live group")
            group.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self.counts.groups += 1
        limits = self._limits
        kept: Outbox[_Kept] = Outbox(max_count=limits.outbox_count, max_bytes=limits.outbox_bytes)
        return Membership(group, live, receiver, kept)

    def drop(self, group: _Group) -> None:
        """Let nobody join *group* any more."""
        if self._groups.get(group.key) is group:
            del self._groups[group.key]
            self.counts.groups -= 1

    async def aclose(self) -> None:
        """End all groups."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Kept(Letter):
    """A response that waits for the end of a catch-up."""

    place: object


class Membership:
    """One operation's place in a group. It gets nothing before `settle`."""

    __slots__ = ("_group", "_kept", "_left", "_live", "_receiver")

    def __init__(
        self, group: _Group, live: LiveEvents[object], receiver: Receiver, kept: Outbox[_Kept]
    ) -> None:
        self._group = group
        self._live: LiveEvents[object] | None = live
        """Asked what its catch-up told, until something comes that it did not."""
        self._receiver = receiver
        self._kept: Outbox[_Kept] | None = kept
        self._left = False
        group.members[self] = None

    async def joined(self) -> bool:
        """Wait until the tail is joined, and return whether that succeeded."""
        await self._group.joined.wait()
        return self._group.errors is None

    async def settle(self) -> bool:
        """Give the receiver what was kept for it and is news, then all that follows.

        Return whether anything can follow: if the tail has ended, the receiver is finished.
        """
        live = self._live
        assert live is not None
        while self._kept:
            await self._receiver.ready()
            if self._kept and not live.told((kept := self._kept.take()).place):
                self._receiver.next(kept.body)
        self._kept = None
        if self._group.over:
            self.finish()
        return not self._left

    def deliver(self, body: bytes, passing: Hashable | None, place: object) -> None:
        """Pass a response of the tail on, or keep it."""
        if self._left:
            return
        if self._kept is None:
            if self._live is not None and place is not None:
                if self._live.told(place):
                    return
                # What follows on news is news.
                self._live = None
            self._receiver.next(body, passing)
            return
        try:
            self._kept.put(_Kept(self, b"", body, b"", place), passing)
        except OutboxFull:
            self._receiver.fall_behind()

    def finish(self) -> None:
        """Tell a settled receiver that the tail is over, and how it ended."""
        if not self._left and self._kept is None:
            errors = self._group.errors
            self.leave()
            self._receiver.finish(errors)

    def leave(self) -> None:
        """Get nothing more. The last to leave ends the group."""
        self._left = True
        self._group.leave(self)


class _Group:
    def __init__(self, groups: Groups, key: Hashable, operation: Operation) -> None:
        self.key = key
        self.members: dict[Membership, None] = {}
        self.joined = asyncio.Event()
        self.over = False
        self.errors: Errors | None = None
        self.task: asyncio.Task[None] | None = None
        self._groups = groups
        self._operation = operation

    async def run(self, live: LiveEvents[object]) -> None:
        try:
            async with live.tail() as tail:
                self.joined.set()
                async for shown in tail:
                    body = await self._operation.execute(shown.event)
                    self._groups.counts.shared_executions += 1
                    await self._publish(body, shown)
        except Exception as failure:
            self.errors = self._operation.executions.shown(self._operation.located(failure))
        finally:
            self._groups.drop(self)
            self.over = True
            self.joined.set()
        for member in list(self.members):
            member.finish()

    async def _publish(self, body: bytes, shown: Shown[object]) -> None:
        members = list(self.members)
        for at in range(0, len(members), _AT_ONCE):
            if at:
                await asyncio.sleep(0)
            for member in members[at : at + _AT_ONCE]:
                member.deliver(body, shown.passing, shown.place)

    def leave(self, member: Membership) -> None:
        self.members.pop(member, None)
        if not self.members and not self.over:
            self._groups.drop(self)
            assert self.task is not None
            self.task.cancel()
