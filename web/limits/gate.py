"""What every operation has to pass, by whatever transport it comes: its rate, its cost, time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode
from starlette.requests import HTTPConnection

from market.lru import LRU
from resolvers.callers import Caller
from web.callers import caller_of
from web.limits.cost import Cost, Costs
from web.limits.deadline import Deadline
from web.limits.groups import hits_of
from web.limits.leases import RateLimits
from web.limits.proxies import Proxies
from web.limits.rates import GROUP_OF_MUTATION, Group

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

    async def enter(self, caller: Caller, text: str, *, opens: bool = False) -> None:
        """Count a request for the document *text* before it is read. Raises `RateLimited`.

        *opens* says that it opens a stream. A document that may try passwords is left to `tries`,
        so that no request is counted twice.
        """
        if caller.local:
            return
        hits = _QUERY
        if "mutation" in text:
            if _may_try(text):
                return
            hits = _MUTATION
        await self._admit({**hits, Group.SOCKETS: 1} if opens else hits, caller)

    async def tries(
        self, caller: Caller, text: str, found: tuple[DocumentNode, OperationDefinitionNode] | None
    ) -> None:
        """Count what `enter` left, now that it was *found* what *text* means, if anything.

        Raises `RateLimited`.
        """
        if _may_try(text):
            hits = hits_of(*found) if found is not None else _MUTATION
            await self._admit(hits, caller)

    async def opened(self, caller: Caller) -> None:
        """Count a socket. Raises `RateLimited`."""
        await self._admit({Group.SOCKETS: 1}, caller)

    async def stranger(self, caller: Caller) -> None:
        """Count a token that has to be found out about, by address. Raises `RateLimited`."""
        await self._admit(_QUERY, replace(caller, principal=None))

    async def guesses(self, group: Group, account: str) -> None:
        """Count a try at the secret of *account*, whoever tries. Raises `RateLimited`."""
        await self._rates.admit({group: 1}, address=None, account=account)

    async def _admit(self, hits: Mapping[Group, int], caller: Caller) -> None:
        # Whoever is at the server itself needs no leave, but for guessing passwords.
        exempt = caller.local and not hits.keys() & {Group.LOGIN, Group.PASSWORD_RESET}
        user = None if caller.principal is None else caller.principal.user_id.hex
        address = None if exempt else caller.address
        await self._rates.admit(hits, address=address, user=None if exempt else user)

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


def refusal_of(cost: Cost) -> GraphQLError | None:
    """Return the error that refuses what costs more than it may, None for what does not."""
    if cost.requested <= cost.available:
        return None
    words = f"The operation costs {cost.requested} points; one may cost {cost.available}."
    return GraphQLError(words, extensions={"code": "COST_EXCEEDED", "cost": cost.shown})


def _may_try(text: str) -> bool:
    """Whether the document *text* may hold tries at a secret. Looks for their names only."""
    return "mutation" in text and any(name in text for name in GROUP_OF_MUTATION)
