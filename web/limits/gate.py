"""What every operation has to pass, by whatever transport it comes: its rate, its cost, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Any

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, OperationType
from starlette.requests import HTTPConnection

from market.lru import LRU
from resolvers.callers import Caller
from web.callers import caller_of
from web.limits.cost import Cost, Costs
from web.limits.deadline import Deadline
from web.limits.groups import hits_of
from web.limits.leases import RateLimits
from web.limits.proxies import Proxies
from web.limits.rates import COUNTED_ANYWHERE, Group

_QUERY: Mapping[Group, int] = {Group.QUERIES: 1}
_MUTATION: Mapping[Group, int] = {Group.MUTATIONS: 1}


class Gate:
    """Counts callers by *rates*, weighs operations by *costs*, gives up after *seconds*.

    *proxies* are believed when they tell who calls.

    `timed()` is the context to execute in; it raises `ExecutionTimedOut`.
    """

    def __init__(
        self, rates: RateLimits, costs: Costs, *, proxies: Proxies, seconds: float
    ) -> None:
        self._rates = rates
        self._costs = costs
        self._proxies = proxies
        self.timed = Deadline(seconds)
        # What costs the same whatever its variables are, weighed once.
        self._fixed: LRU[tuple[str, str | None], Cost] = LRU(max_count=1_000, max_weight=1_000_000)

    def caller(self, asked: HTTPConnection) -> Caller:
        """Return who asks over a connection."""
        return caller_of(asked, self._proxies)

    async def enter(self, caller: Caller, text: str | None) -> None:
        """Count a request for the document *text* before it is read. Raises `RateLimited`.

        None is a document that is only named: what it says has to be asked for, so it counts first,
        as a query.
        """
        if caller.local:
            return
        hits = _MUTATION if text and "mutation" in text else _QUERY
        if hits is _QUERY and self._rates.spend(
            Group.QUERIES, address=caller.address, user=_user_of(caller)
        ):
            return
        await self._admit(hits, caller)

    async def changes(
        self,
        caller: Caller,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        *,
        named: bool,
    ) -> None:
        """Count what `enter` could not know: how many changes *operation* asks for, and which.

        *named* says that the document was, so that none of them is counted yet. Raises
        `RateLimited`.
        """
        if operation.operation is not OperationType.MUTATION:
            return
        hits = Counter(hits_of(document, operation))
        if not named:
            hits[Group.MUTATIONS] -= 1
        await self._admit(+hits, caller)

    async def opened(self, caller: Caller) -> None:
        """Count a socket. Raises `RateLimited`."""
        await self._admit({Group.SOCKETS: 1}, caller)

    async def stranger(self, caller: Caller) -> None:
        """Count by address a token that has to be found out about, or what could not be read.

        Raises `RateLimited`.
        """
        await self._admit(_QUERY, caller._replace(principal=None))

    async def guesses(self, group: Group, account: str) -> None:
        """Count a try at the secret of *account*, whoever tries. Raises `RateLimited`."""
        await self._rates.admit({group: 1}, address=None, account=account)

    async def registers(self, caller: Caller, size: int) -> None:
        """Count a document of *size* bytes that is to be kept. Raises `RateLimited`."""
        await self._admit({Group.DOCUMENTS: 1 + size // 1024}, caller)

    def _admit(self, hits: Mapping[Group, int], caller: Caller) -> Awaitable[None]:
        if caller.local:
            # Whoever is at the server itself needs no leave, but for guessing passwords.
            hits = {group: count for group, count in hits.items() if group in COUNTED_ANYWHERE}
        return self._rates.admit(hits, address=caller.address, user=_user_of(caller))

    def cost(
        self,
        text: str,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: dict[str, Any] | None,
    ) -> Cost:
        """Return what *operation* of the valid *document*, written *text*, costs."""
        key = (text, operation.name.value if operation.name else None)
        cost = self._fixed.get(key)
        if cost is None:
            cost, fixed = self._costs.of(document, operation, variables)
            if fixed:
                self._fixed.put(key, cost, weight=len(text))
        return cost


def _user_of(caller: Caller) -> str | None:
    return None if caller.principal is None else caller.principal.user_id.hex


def refusal_of(cost: Cost) -> GraphQLError | None:
    """Return the error that refuses what costs more than it may, None for what does not."""
    if cost.requested <= cost.available:
        return None
    words = f"The operation costs {cost.requested} points; one may cost {cost.available}."
    return GraphQLError(words, extensions={"code": "COST_EXCEEDED", "cost": cost.shown})
