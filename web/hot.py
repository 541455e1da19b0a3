"""Answer requests that come again and again from what their first answer taught.

A request is known by its document, operation and variables, so whatever was checked of these at
first holds for it still; what depends on the caller is checked before anybody asks here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson
from strawberry.types import ExecutionResult

from datasources.found import Answer
from datasources.meter import Meter
from market.lru import LRU
from schema.context import Context, Shared
from schema.encoding import Unencodable
from schema.prepared import Prepared
from web.documents import Operation
from web.graphql_request import GraphQLRequest

RequestKey = tuple[str, str | None, bytes]
"""A document's text, the operation's name, and the variables as JSON."""

_LIFETIME = 60.0
"""Seconds after which a request is understood anew: what symbols mean may change."""


@dataclass(frozen=True, slots=True)
class Hot:
    """A request that was understood, and when by the event loop's clock."""

    prepared: Prepared
    operation: Operation
    at: float


def key_of(text: str, asked: GraphQLRequest) -> RequestKey | None:
    """Return the key of a request, None for variables that nest too deep to be written again."""
    try:
        return text, asked.operation_name, orjson.dumps(asked.variables)
    except orjson.JSONEncodeError:
        return None


class HotRequests:
    """The requests understood lately, at most *max_count* of *max_length* characters together."""

    def __init__(
        self,
        shared: Shared,
        *,
        meter: Meter,
        max_count: int = 2_000,
        max_length: int = 2_000_000,
    ) -> None:
        self._shared = shared
        self._meter = meter
        self._known: LRU[RequestKey, Hot] = LRU(max_count=max_count, max_weight=max_length)

    async def again(self, key: RequestKey | None) -> tuple[orjson.Fragment, Operation] | None:
        """Return the data that answers *key*; None where only the executor can say."""
        again = await self._again(key)
        self._meter.lookup("request", hit=again is not None)
        return again

    async def _again(self, key: RequestKey | None) -> tuple[orjson.Fragment, Operation] | None:
        hot = self._known.get(key) if key else None
        if hot is None or asyncio.get_running_loop().time() - hot.at > _LIFETIME:
            return None
        answers = await self._shared.answers.answer(hot.prepared.requests)
        good = [answer for answer in answers if isinstance(answer, Answer)]
        if len(good) < len(answers):
            return None
        store = await self._shared.store_id() if hot.prepared.needs_store else None
        try:
            data = hot.prepared.write(good, self._shared.encoder, store)
        except Unencodable:
            return None
        return orjson.Fragment(data), hot.operation

    def learn(
        self,
        key: RequestKey | None,
        operation: Operation,
        context: Context,
        result: ExecutionResult,
    ) -> None:
        """Remember how to answer *key*, if all of its ordinary answer but candles lasts."""
        if key is None or result.errors or result.extensions or not result.data:
            return
        prepared = context.notes.prepared(result.data)
        if prepared is not None:
            at = asyncio.get_running_loop().time()
            weight = len(key[0]) + len(key[2]) + prepared.size
            self._known.put(key, Hot(prepared, operation, at), weight=weight)
