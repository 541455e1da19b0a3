"""Answer requests that come again and again from what their first answer taught.

A request is known by its document and operation, and by its variables unless these only say which
bars are asked for, so whatever was checked of a document at first holds for it still. Only market
data is answered so; whether the caller may read it is checked each time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from graphql import GraphQLSchema, OperationType, get_operation_ast
from strawberry.types import ExecutionResult

from datasources.found import Answer, Request
from datasources.meter import Meter
from market.errors import BargraphError
from market.lru import LRU
from resolvers.callers import ANYBODY, Caller
from resolvers.candles import request_for
from schema.context import Context, Shared
from schema.encoding import Unencodable
from schema.prepared import ByVariables, Prepared, steers_by_variables
from web.documents import Documents, Operation
from web.graphql_request import GraphQLRequest
from web.limits.cost import Cost
from web.limits.gate import Gate, refusal_of

Failures = dict[Request, BargraphError]
Key = tuple[str, str | None, bytes | None]
"""A document's text, the operation's name, and the variables as JSON: None where any will do."""

_LIFETIME = 60.0
"""Seconds after which a request is understood anew: what symbols mean may change."""


class Again(NamedTuple):
    """The data that answers a request that came again, its operation and what that cost."""

    data: orjson.Fragment
    operation: Operation
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Hot:
    """A request that was understood, and when by the event loop's clock.

    *follows* is the operation where its windows follow from its variables, whatever these are;
    else *cost* is what it always costs.
    """

    prepared: Prepared
    operation: Operation
    follows: ByVariables | None
    at: float
    cost: Cost | None


class HotRequests:
    """The requests understood lately, at most *max_count* of *max_length* characters together.

    *gate* weighs those whose cost depends on their variables.
    """

    def __init__(
        self,
        shared: Shared,
        documents: Documents,
        schema: GraphQLSchema,
        *,
        meter: Meter,
        gate: Gate | None = None,
        max_count: int = 2_000,
        max_length: int = 2_000_000,
    ) -> None:
        self._shared = shared
        self._documents = documents
        self._schema = schema
        self._meter = meter
        self._gate = gate
        self._known: LRU[Key, Hot] = LRU(max_count=max_count, max_weight=max_length)
        # What an operation that follows its variables meant by some of them.
        self._meant: LRU[Key, tuple[Hot, list[Request], Cost | None]] = LRU(
            max_count=max_count, max_weight=max_length
        )

    async def again(
        self, text: str, asked: GraphQLRequest, caller: Caller = ANYBODY
    ) -> Again | Failures:
        """Return the data that answers what *caller* *asked*.

        Where only the executor can say, return what of it could not be had just now.
        """
        if not self._shared.permissions.reads_market(caller):
            return {}
        again = await self._again(text, asked)
        self._meter.lookup("request", hit=isinstance(again, tuple))
        return again

    async def _again(self, text: str, asked: GraphQLRequest) -> Again | Failures:
        hot = self._known.get((text, asked.operation_name, None))
        if hot is None and (variables := _written(asked)) is not None:
            hot = self._known.get((text, asked.operation_name, variables))
        if hot is None or asyncio.get_running_loop().time() - hot.at > _LIFETIME:
            return {}
        meant = await self._requests(hot, text, asked)
        if meant is None:
            return {}
        requests, cost = meant
        answers = await self._shared.answers.answer(requests)
        good = [answer for answer in answers if isinstance(answer, Answer)]
        if len(good) < len(answers):
            pairs = zip(requests, answers, strict=True)
            return {request: bad for request, bad in pairs if not isinstance(bad, Answer)}
        store = await self._shared.store_id() if hot.prepared.needs_store else None
        try:
            data = hot.prepared.write(good, self._shared.encoder, store)
        except Unencodable:
            return {}
        return Again(orjson.Fragment(data), hot.operation, cost)

    async def _requests(
        self, hot: Hot, text: str, asked: GraphQLRequest
    ) -> tuple[list[Request], Cost | None] | None:
        if hot.follows is None:
            return hot.prepared.requests, hot.cost
        variables = _written(asked)
        if variables is None:
            return None
        key = (text, asked.operation_name, variables)
        meant = self._meant.get(key)
        if meant is not None and meant[0] is hot:
            return meant[1:]
        wanted = hot.follows.asked(hot.prepared, asked.variables)
        if wanted is None:
            return None
        cost = None
        if self._gate is not None:
            document = self._documents.parse(text)
            cost = self._gate.cost(text, document, hot.follows.node, asked.variables)
            if refusal_of(cost) is not None:
                return None
        directory, max_bars = self._shared.directory, self._shared.max_bars
        try:
            requests = [
                await request_for(directory, series, cut, max_bars=max_bars)
                for series, cut in wanted
            ]
        except BargraphError:
            return None
        self._meant.put(key, (hot, requests, cost), weight=len(text) + len(variables))
        return requests, cost

    def learn(
        self,
        text: str,
        asked: GraphQLRequest,
        operation: Operation,
        context: Context,
        result: ExecutionResult,
        cost: Cost | None = None,
    ) -> None:
        """Remember how to answer *asked*, which has *cost*, if its answer but for candles lasts.

        What a mutation answered is never said again: it must be done again, or refused.
        """
        if operation.type is not OperationType.QUERY:
            return
        if result.errors or result.extensions or not result.data:
            return
        learnt = context.notes.prepared(result.data)
        if learnt is None:
            return
        document = self._documents.parse(text)
        follows = None
        variables = None
        if learnt.follows_variables and not steers_by_variables(document):
            node = get_operation_ast(document, operation.name)
            assert node is not None
            follows = ByVariables(self._schema, node)
        elif (variables := _written(asked)) is None:
            return
        hot = Hot(learnt, operation, follows, asyncio.get_running_loop().time(), cost)
        weight = len(text) + len(variables or b"") + learnt.size
        self._known.put((text, asked.operation_name, variables), hot, weight=weight)


def _written(asked: GraphQLRequest) -> bytes | None:
    """Return the variables as JSON, None for those that nest too deep to be written again."""
    try:
        return orjson.dumps(asked.variables)
    except orjson.JSONEncodeError:
        return None
