"""Understand what an operation asks, and execute it: once, or once for each event.

Documents are parsed and validated as over HTTP, from the same caches. Of the schema's extensions
only that one takes part in a subscription. Each event gets an executor and a context of its own:
one that went on would keep what every event left in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Hashable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    located_error,
    specified_rules,
)
from graphql.execution import Executor, create_source_event_stream

from market.errors import BargraphError
from market.lru import LRU
from resolvers.callers import ANYBODY, Caller
from schema.build import BargraphSchema
from schema.context import Context
from schema.permissions import Access, Rule
from web.auth import Door
from web.documents import Documents, as_mistake, find_operation
from web.graphql_request import GraphQLRequest
from web.limits.cost import Cost
from web.limits.gate import Gate, refusal_of
from web.limits.variables import check_variables
from web.live.receiver import Errors
from web.live.resume import shared_variables
from web.persisted import KnownDocuments

FormatError = Callable[[GraphQLError], dict[str, Any]]

MARKET = "market"
"""Whose eyes a tail is for: market data looks the same to all who may see it."""


class Unanswerable(Exception):
    """An operation that ends with *errors* in place of any response."""

    def __init__(self, errors: Iterable[GraphQLError]) -> None:
        super().__init__()
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class Executions:
    """What every operation is executed with.

    *context* makes what the resolvers of one see, from who asked for it. *gate* limits how often,
    at what cost and for how long callers are answered. *door* tells who they are by now.
    """

    schema: BargraphSchema
    documents: Documents
    context: Callable[[Caller], object]
    format_error: FormatError
    persisted: KnownDocuments
    gate: Gate | None = None
    door: Door | None = None
    shared: LRU[tuple[str, str | None], frozenset[str]] = field(
        default_factory=lambda: LRU(max_count=1_000, max_weight=1_000_000), init=False
    )
    """The variables by which operations that were asked for lately differ."""

    async def understand(self, asked: GraphQLRequest, caller: Caller) -> Operation:
        """Return the operation that *asked* means, as *caller* asked it.

        Raises `Unanswerable`, `BargraphError`.
        """
        if self.door is not None:
            caller = await self.door.again(caller)
        gate = None if asked.counted else self.gate
        if gate is not None:
            await gate.enter(caller, asked.query)
        check_variables(asked.variables)
        text, digest = await self.persisted.resolve(asked)
        try:
            document = self.documents.parse(text)
        except GraphQLError as mistake:
            raise Unanswerable([mistake]) from mistake
        name = find_operation(document, asked.operation_name).name
        node = get_operation_ast(document, name)
        assert node is not None
        if gate is not None:
            await gate.changes(caller, document, node, named=asked.query is None)
        if wrong := self.documents.validate(self.schema.core, text, tuple(specified_rules)):
            raise Unanswerable(wrong)
        cost = None
        if self.gate is not None:
            cost = self.gate.cost(text, document, node, asked.variables)
            if (refusal := refusal_of(cost)) is not None:
                raise Unanswerable([refusal])
        if digest is not None:
            await self.persisted.register(digest, text, caller)
        asked = replace(asked, query=text, operation_name=name)
        return Operation(self, asked, caller, document, node, cost)

    def shown(self, failure: Exception) -> Errors:
        """Return *failure* as the client may see it; what is a bug is logged."""
        if isinstance(failure, Unanswerable):
            return [self.format_error(error) for error in failure.errors]
        if isinstance(failure, GraphQLError):
            return [self.format_error(failure)]
        words = str(failure) if isinstance(failure, BargraphError) else "Internal server error."
        return [self.format_error(GraphQLError(words, original_error=failure))]


@dataclass(frozen=True, slots=True)
class Operation:
    """One valid operation of *document*, as it was asked for."""

    executions: Executions
    asked: GraphQLRequest
    caller: Caller
    document: DocumentNode
    node: OperationDefinitionNode
    cost: Cost | None = None
    guarded: list[Rule] = field(default_factory=list, init=False)
    """The rules that a subscription obeys and not everybody does, once it has begun."""

    @property
    def is_subscription(self) -> bool:
        return self.node.operation is OperationType.SUBSCRIPTION

    async def answer(self) -> bytes:
        """Return the response to a query or a mutation.

        Raises `Unanswerable`, `ExecutionTimedOut`.
        """
        gate = self.executions.gate
        with gate.timed() if gate is not None else nullcontext():
            result = await self.executions.schema.execute(
                self.asked.query,
                variable_values=self.asked.variables,
                context_value=self.executions.context(self.caller),
                operation_name=self.asked.operation_name,
                operation_extensions=self.asked.extensions,
            )
        errors = result.errors or []
        if result.data is None and all(error.path is None for error in errors):
            raise Unanswerable(as_mistake(error, "BAD_USER_INPUT") for error in errors)
        extensions = result.extensions
        if self.cost is not None:
            extensions = {**(extensions or {}), "cost": self.cost.shown}
        return self._encoded(result.data, errors, extensions)

    async def events(self) -> AsyncIterable[object]:
        """Return what the resolver of a subscription gives. Raises `Unanswerable`."""
        context = self.executions.context(self.caller)
        executor = self._executor(None, context)
        found = create_source_event_stream(executor)
        if executor.is_awaitable(found):
            found = await found
        if isinstance(found, ExecutionResult):
            raise Unanswerable(found.errors or [])
        assert isinstance(found, AsyncIterable)
        if isinstance(context, Context):
            self.guarded.extend(context.guarded)
        return found

    async def check_again(self) -> None:
        """Return if whoever asked may still have what was let through.

        Raises `Unauthenticated`, `Forbidden`, `AccountsUnavailable`.
        """
        executions = self.executions
        caller = (
            self.caller if executions.door is None else await executions.door.again(self.caller)
        )
        context = executions.context(caller)
        assert isinstance(context, Context)
        for rule in self.guarded:
            context.shared.permissions.check(rule, caller)

    async def execute(self, event: object) -> bytes:
        """Return the response that *event* gives to a subscription, whoever asked for it."""
        executor = self._executor(event, self.executions.context(ANYBODY))
        result = executor.execute_operation(serially=False)
        if executor.is_awaitable(result):
            result = await result
        assert isinstance(result, ExecutionResult)
        return self._encoded(result.data, result.errors or [], None)

    def located(self, failure: Exception) -> GraphQLError:
        """Return what iterating a subscription's events raised, with its place."""
        root = self.node.selection_set.selections[0]
        if not isinstance(root, FieldNode):
            return located_error(failure, [root])
        return located_error(failure, [root], [(root.alias or root.name).value])

    def sharing_key(self, tail: Hashable) -> Hashable | None:
        """Return what those have in common to whom one execution of each event of *tail* will do.

        It is None if the variables cannot be compared, and for what is one viewer's own.
        """
        if any(rule is not Access.MARKET_DATA for rule in self.guarded):
            return None
        assert self.asked.query is not None
        known = (self.asked.query, self.asked.operation_name)
        shared = self.executions.shared.get(known)
        if shared is None:
            shared = shared_variables(self.document, self.node)
            self.executions.shared.put(known, shared, weight=len(known[0]))
        given = self.asked.variables or {}
        try:
            variables = orjson.dumps(
                {name: given[name] for name in shared if name in given},
                option=orjson.OPT_SORT_KEYS,
            )
        except orjson.JSONEncodeError:  # nested too deep
            return None
        return (*known, variables, MARKET, tail)

    def _executor(self, event: object, context: object) -> Executor[Any]:
        executions = self.executions
        built = executions.schema.execution_context_class.build(
            executions.schema.core,
            self.document,
            event,
            context,
            self.asked.variables,
            self.asked.operation_name,
            operation_extensions=self.asked.extensions,
        )
        if isinstance(built, list):
            raise Unanswerable(as_mistake(error, "BAD_USER_INPUT") for error in built)
        return built

    def _encoded(
        self,
        answered: dict[str, Any] | None,
        errors: Iterable[GraphQLError],
        extensions: dict[str, Any] | None,
    ) -> bytes:
        payload: dict[str, Any] = {}
        if shown := [self.executions.format_error(error) for error in errors]:
            payload["errors"] = shown
        payload["data"] = answered
        if extensions:
            payload["extensions"] = extensions
        return orjson.dumps(payload)
