"""Run one operation for one client, from what was asked to its last message."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from resolvers.callers import Caller
from resolvers.live import LiveEvents
from web.graphql_request import GraphQLRequest
from web.live.counts import LiveCounts
from web.live.execution import Executions, Operation
from web.live.groups import Groups, Membership
from web.live.receiver import Receiver
from web.live.watch import Watch


class Operations:
    """Runs operations, those over the same tail together."""

    def __init__(
        self, executions: Executions, groups: Groups, counts: LiveCounts, watch: Watch
    ) -> None:
        self._executions = executions
        self._groups = groups
        self._counts = counts
        self._watch = watch

    async def run(
        self, asked: GraphQLRequest, receiver: Receiver, caller: Caller
    ) -> Membership | None:
        """Send *receiver* all that *asked* gives to *caller*, and finish it: then return None.

        Where a group takes over, return the membership at once; whoever gets it leaves in the end.
        Never raises an `Exception`.
        """
        try:
            operation = await self._executions.understand(asked, caller)
            if not operation.is_subscription:
                body = await operation.answer()
                await receiver.ready()
                receiver.next(body)
            else:
                events = await operation.events()
                if operation.guarded:
                    self._watch.over(operation, receiver)
                if isinstance(events, LiveEvents):
                    key = operation.sharing_key(events.key)
                    if key is not None:
                        membership = self._groups.join(key, operation, events, receiver)
                        return await self._catch_up(operation, events, receiver, membership)
                await self._follow(operation, events, receiver)
        except Exception as failure:
            receiver.finish(self._executions.shown(failure))
            return None
        receiver.finish()
        return None

    async def _catch_up(
        self,
        operation: Operation,
        live: LiveEvents[object],
        receiver: Receiver,
        membership: Membership,
    ) -> Membership | None:
        settled = False
        try:
            if await membership.joined():
                await self._follow(operation, live.catch_up(), receiver)
            settled = await membership.settle()
        finally:
            if not settled:
                membership.leave()
        return membership if settled else None

    async def _follow(
        self, operation: Operation, events: AsyncIterable[object], receiver: Receiver
    ) -> None:
        """Execute each of *events* for this receiver alone, no faster than it reads."""
        iterator = aiter(events)
        try:
            while True:
                try:
                    event = await anext(iterator)
                except StopAsyncIteration:
                    return
                except Exception as failure:
                    raise operation.located(failure) from failure
                body = await operation.execute(event)
                self._counts.own_executions += 1
                await receiver.ready()
                receiver.next(body)
        finally:
            await _close(iterator)


async def _close(iterator: AsyncIterator[object]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
