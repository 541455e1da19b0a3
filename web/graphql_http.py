"""GraphQL over HTTP: from a request to an operation's result, encoded once.

Requests that are malformed are refused before anything is parsed; documents are parsed and
validated once each; the schema executes, so its extensions, its executor and its own error
processing all take part. Every answer, refusals included, is a GraphQL response.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from time import perf_counter
from typing import Any

import strawberry
from graphql import (
    DocumentNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    specified_rules,
)
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from market.errors import BargraphError
from resolvers.callers import Caller
from schema.context import Context, RefreshCookie
from web.auth import Door
from web.callers import caller_of
from web.documents import (
    Documents,
    Operation,
    as_mistake,
    find_operation,
    was_aborted,
)
from web.graphql_request import (
    METHODS,
    BadRequest,
    GraphQLRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestRefused,
    read_request,
)
from web.graphql_response import LEGACY, MODERN, graphql_response, negotiate
from web.hot import Again, Failures, HotRequests
from web.limits.cost import Cost
from web.limits.gate import Gate, refusal_of
from web.limits.variables import check_variables
from web.live.admission import ForeignOrigin
from web.live.endpoint import Live, StreamedResponse
from web.live.framing import Framing, framing_of
from web.live.origin import Origins
from web.metrics import Metrics
from web.persisted import KnownDocuments, PersistedQueryNotFound

FormatError = Callable[[GraphQLError], dict[str, Any]]


@dataclass(slots=True)
class _Exchange:
    """What becomes known of one request on its way."""

    media_type: str = LEGACY
    operation: str = "none"
    type: str = "none"
    outcome: str = "failed"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    """What one request asks for, who asks, and how it may be answered."""

    asked: GraphQLRequest
    text: str
    digest: str | None
    caller: Caller
    framing: Framing | None
    streams_all: bool
    cookie: RefreshCookie = field(default_factory=RefreshCookie)


@dataclass(slots=True)
class _Found:
    """The operation that a request means."""

    document: DocumentNode
    operation: Operation
    node: OperationDefinitionNode


class GraphQLEndpoint:
    """An ASGI application for one path, answering GET, HEAD, POST and OPTIONS.

    *schema* must have `documents.extension` among its extensions. *context* makes the value that
    resolvers see, from each request whose document parsed. *format_error* writes one error as the
    client may see it. *hot* answers what it has seen before. *live* streams subscriptions, and
    whatever is accepted as a stream only. Mutations are taken from programs and from pages of
    *origins*. *gate* limits how often, at what cost and for how long callers are answered; *door*
    tells who they are.
    Bodies have at most *max_body* bytes and arrive in *body_timeout* seconds.
    """

    def __init__(
        self,
        *,
        schema: strawberry.Schema,
        documents: Documents,
        context: Callable[[Request], Awaitable[object] | object],
        format_error: FormatError,
        persisted: KnownDocuments,
        metrics: Metrics,
        hot: HotRequests | None = None,
        live: Live | None = None,
        gate: Gate | None = None,
        door: Door | None = None,
        origins: Origins | None = None,
        max_body: int = 1_000_000,
        body_timeout: float = 30.0,
    ) -> None:
        if documents.extension not in schema.extensions:
            raise ValueError("The schema does not have `documents.extension`.")
        self._schema = schema
        self._documents = documents
        self._context = context
        self._format_error = format_error
        self._persisted = persisted
        self._metrics = metrics
        self._hot = hot
        self._live = live
        self._gate = gate
        self._door = door
        self._origins = origins or Origins()
        self._max_body = max_body
        self._body_timeout = body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response: Response | StreamedResponse
        if request.method == "OPTIONS":
            response = Response(status_code=204, headers={"allow": METHODS})
        else:
            try:
                response = await self._respond(request)
            except ClientDisconnect:
                return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response | StreamedResponse:
        started = perf_counter()
        exchange = _Exchange()
        response: Response | StreamedResponse
        try:
            answer = await self._answer(request, exchange)
            if isinstance(answer, StreamedResponse):
                response = answer
            else:
                response = self._encode(request, exchange, answer)
        except RequestRefused as refusal:
            unregistered = isinstance(refusal, PersistedQueryNotFound)
            exchange.outcome = "unregistered" if unregistered else "refused"
            exchange.status, exchange.headers = refusal.status, refusal.headers
            extensions = {"code": refusal.code, **refusal.facts}
            shown = {"message": str(refusal), "extensions": extensions}
            response = self._encode(request, exchange, {"errors": [shown]})
        except ClientDisconnect:
            raise
        except BargraphError as expected:
            error = GraphQLError(str(expected), original_error=expected)
            response = self._encode(request, exchange, self._request_errors(exchange, [error]))
        except Exception as failure:
            error = GraphQLError("Internal server error.", original_error=failure)
            exchange.outcome, exchange.status = "failed", 500
            response = self._encode(request, exchange, {"errors": [self._format_error(error)]})
        self._metrics.observe_request(
            exchange.operation,
            exchange.type,
            outcome=exchange.outcome,
            seconds=perf_counter() - started,
        )
        return response

    def _encode(self, request: Request, exchange: _Exchange, payload: dict[str, Any]) -> Response:
        return graphql_response(
            payload,
            exchange.media_type,
            status=exchange.status,
            headers=exchange.headers,
            head=request.method == "HEAD",
        )

    async def _answer(
        self, request: Request, exchange: _Exchange
    ) -> dict[str, Any] | StreamedResponse:
        call = await self._read(request, exchange)
        again = await self._again(call)
        if isinstance(again, Again):
            operation = again.operation
            exchange.operation = self._metrics.operation(operation.name)
            exchange.type, exchange.outcome = operation.type.value, "ok"
            if call.digest is not None:
                await self._persisted.register(call.digest, call.text, call.caller)
            return _with_cost({"data": again.data}, again.cost)
        if self._door is not None:
            call.caller, call.cookie = self._door.along(request, call.caller)
        try:
            found = await self._find(call)
        except GraphQLError as error:
            return self._request_errors(exchange, [error])
        operation = found.operation
        _refuse_type(operation, request.method, call.framing)
        if operation.type is OperationType.MUTATION:
            self._refuse_foreign(request)
        streams = call.streams_all or operation.type is OperationType.SUBSCRIPTION
        if streams and self._live is not None and call.framing is not None:
            if self._gate is not None:
                await self._gate.opened(call.caller)
            counted = replace(call.asked, query=call.text, counted=True)
            response = self._live.stream(request, counted, call.framing, call.caller)
            exchange.type, exchange.outcome = operation.type.value, "ok"
            return response
        core = self._schema._schema  # noqa: SLF001 - Strawberry has no public way to it
        # What is wrong is not remembered: execution would find it once more.
        if wrong := self._documents.validate(core, call.text, tuple(specified_rules)):
            return self._request_errors(exchange, wrong)
        cost = None
        if self._gate is not None:
            cost = self._gate.cost(call.text, found.document, found.node, call.asked.variables)
            if (refusal := refusal_of(cost)) is not None:
                return self._request_errors(exchange, [refusal])
        return await self._execute(request, exchange, call, operation, cost, again)

    async def _read(self, request: Request, exchange: _Exchange) -> _Call:
        """Return what *request* asks for, once its caller may ask. Raises `RequestRefused`."""
        accept = ", ".join(request.headers.getlist("accept"))
        framing = framing_of(accept) if self._live is not None else None
        streams_all = False
        try:
            exchange.media_type = negotiate(accept)
        except NotAcceptable:
            if framing is None:
                raise
            streams_all, exchange.media_type = True, MODERN
        caller = self._gate.caller(request) if self._gate is not None else caller_of(request)
        try:
            asked = await read_request(
                request, max_body=self._max_body, body_timeout=self._body_timeout
            )
        except RequestRefused:
            if self._gate is not None:
                await self._gate.stranger(caller)
            raise
        if self._door is not None:
            caller = await self._door.of_request(request, caller)
        if self._gate is not None:
            await self._gate.enter(caller, asked.query)
        check_variables(asked.variables)
        text, digest = await self._persisted.resolve(asked)
        return _Call(asked, text, digest, caller, framing, streams_all)

    async def _again(self, call: _Call) -> Again | Failures:
        if self._hot is None or call.streams_all:
            return {}
        with self._timed():
            return await self._hot.again(call.text, call.asked, call.caller)

    async def _find(self, call: _Call) -> _Found:
        """Return the operation that is asked for. Raises `GraphQLError`, `RequestRefused`."""
        document = self._documents.parse(call.text)
        operation = find_operation(document, call.asked.operation_name)
        node = get_operation_ast(document, operation.name)
        assert node is not None
        if self._gate is not None:
            named = call.asked.query is None
            await self._gate.changes(call.caller, document, node, named=named)
        return _Found(document, operation, node)

    async def _execute(
        self,
        request: Request,
        exchange: _Exchange,
        call: _Call,
        operation: Operation,
        cost: Cost | None,
        failed: Failures,
    ) -> dict[str, Any]:
        made = self._context(request)
        context = await made if isawaitable(made) else made
        if isinstance(context, Context):
            context.failed.update(failed)
            context.caller, context.cookie = call.caller, call.cookie
        with self._timed():
            result = await self._schema.execute(
                call.text,
                variable_values=call.asked.variables,
                context_value=context,
                operation_name=operation.name,
                operation_extensions=call.asked.extensions,
            )
        if self._door is not None and (kept := self._door.cookie_header(call.cookie)):
            exchange.headers = {"set-cookie": kept}
        if not isinstance(result, PreExecutionError):
            # Only names out of valid documents become labels.
            exchange.operation = self._metrics.operation(operation.name)
            exchange.type = operation.type.value
            if call.digest is not None:
                await self._persisted.register(call.digest, call.text, call.caller)
            if self._hot is not None and isinstance(context, Context):
                self._hot.learn(call.text, call.asked, operation, context, result, cost)
        return _with_cost(self._payload(exchange, result), cost)

    def _timed(self) -> AbstractContextManager[None]:
        return self._gate.timed() if self._gate is not None else nullcontext()

    def _refuse_foreign(self, request: Request) -> None:
        # A browser lets other sites' pages send what they may not read the answer to.
        if not self._origins.allows(request.headers.get("origin"), request.headers.get("host")):
            raise ForeignOrigin("Pages of this origin may not change anything here.")

    def _payload(self, exchange: _Exchange, result: ExecutionResult) -> dict[str, Any]:
        errors = result.errors or []
        # A field's error has a path. Without one, and without data, nothing was executed.
        if result.data is None and all(error.path is None for error in errors):
            if not isinstance(result, PreExecutionError):
                errors = [as_mistake(error, "BAD_USER_INPUT") for error in errors]
            payload = self._request_errors(exchange, errors)
        else:
            exchange.outcome = "errors" if errors else "ok"
            payload = {"errors": [self._format_error(error) for error in errors]} if errors else {}
            payload["data"] = result.data
            if result.data is None:
                self._note_refusal(exchange, errors)
        if result.extensions:
            payload["extensions"] = result.extensions
        return payload

    def _note_refusal(self, exchange: _Exchange, errors: list[GraphQLError]) -> None:
        """Give an answer without data the status of what refused it whole, if anything did."""
        for error in errors:
            if isinstance(error.original_error, RequestRefused):
                exchange.status = error.original_error.status
                exchange.headers = {**exchange.headers, **error.original_error.headers}

    def _request_errors(self, exchange: _Exchange, errors: list[GraphQLError]) -> dict[str, Any]:
        """Return the answer to an operation that was not executed."""
        if any(_is_fault(error) for error in errors):
            exchange.outcome, exchange.status = "failed", 500
        else:
            exchange.outcome = "refused"
            # `application/json` gives 200 to a mistake in an operation, but not to a bomb.
            mistake = exchange.media_type == LEGACY and not any(map(was_aborted, errors))
            exchange.status = 200 if mistake else 400
        return {"errors": [self._format_error(error) for error in errors]}


def _with_cost(payload: dict[str, Any], cost: Cost | None) -> dict[str, Any]:
    if cost is not None:
        payload["extensions"] = {**payload.get("extensions", {}), "cost": cost.shown}
    return payload


def _is_fault(error: GraphQLError) -> bool:
    """Return whether *error* is ours, and neither the caller's nor an expected failure."""
    cause = error.original_error
    return cause is not None and not isinstance(cause, BargraphError | GraphQLError)


def _refuse_type(operation: Operation, method: str, framing: Framing | None) -> None:
    if operation.type is OperationType.SUBSCRIPTION and (framing is None or method == "HEAD"):
        raise BadRequest(
            "Subscriptions are not served over plain HTTP: use a WebSocket, or accept "
            "`text/event-stream` or `multipart/mixed;subscriptionSpec=1.0`."
        )
    if operation.type is OperationType.MUTATION and method != "POST":
        raise MethodNotAllowed("Mutations need POST.", allow="POST")
