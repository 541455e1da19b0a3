"""GraphQL over HTTP: from a request to an operation's result, encoded once.

Requests that are malformed are refused before anything is parsed; documents are parsed and
validated once each; the schema executes, so its extensions, its executor and its own error
processing all take part. Every answer, refusals included, is a GraphQL response.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from time import perf_counter
from typing import Any

import orjson
import strawberry
from graphql import GraphQLError, OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from market.errors import BargraphError
from schema.context import Context
from web.documents import Documents, Operation, as_mistake, find_operation, was_aborted
from web.graphql_request import (
    METHODS,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestRefused,
    read_request,
)
from web.graphql_response import LEGACY, MODERN, graphql_response, negotiate
from web.hot import Failures, HotRequests
from web.live.endpoint import Live, StreamedResponse
from web.live.framing import Framing, framing_of
from web.metrics import Metrics
from web.persisted import PersistedQueries, PersistedQueryNotFound

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


class GraphQLEndpoint:
    """An ASGI application for one path, answering GET, HEAD, POST and OPTIONS.

    *schema* must have `documents.extension` among its extensions. *context* makes the value that
    resolvers see, from each request whose document parsed. *format_error* writes one error as the
    client may see it. *hot* answers what it has seen before. *live* streams subscriptions, and
    whatever is accepted as a stream only.
    Bodies have at most *max_body* bytes and arrive in *body_timeout* seconds.
    """

    def __init__(
        self,
        *,
        schema: strawberry.Schema,
        documents: Documents,
        context: Callable[[Request], Awaitable[object] | object],
        format_error: FormatError,
        persisted: PersistedQueries,
        metrics: Metrics,
        hot: HotRequests | None = None,
        live: Live | None = None,
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
            shown = {"message": str(refusal), "extensions": {"code": refusal.code}}
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
        accept = ", ".join(request.headers.getlist("accept"))
        framing = framing_of(accept) if self._live is not None else None
        streams_all = False
        try:
            exchange.media_type = negotiate(accept)
        except NotAcceptable:
            if framing is None:
                raise
            streams_all, exchange.media_type = True, MODERN
        asked = await read_request(
            request, max_body=self._max_body, body_timeout=self._body_timeout
        )
        text, digest = await self._persisted.resolve(asked)
        again: tuple[orjson.Fragment, Operation] | Failures = {}
        if self._hot is not None and not streams_all:
            again = await self._hot.again(text, asked)
        if isinstance(again, tuple):
            data, operation = again
            exchange.operation = self._metrics.operation(operation.name)
            exchange.type, exchange.outcome = operation.type.value, "ok"
            if digest is not None:
                await self._persisted.register(digest, text)
            return {"data": data}
        try:
            document = self._documents.parse(text)
        except GraphQLError as error:
            return self._request_errors(exchange, [error])
        operation = find_operation(document, asked.operation_name)
        _refuse_type(operation, request.method, framing)
        streams = streams_all or operation.type is OperationType.SUBSCRIPTION
        if streams and self._live is not None and framing is not None:
            response = self._live.stream(request, replace(asked, query=text), framing)
            exchange.type, exchange.outcome = operation.type.value, "ok"
            return response

        made = self._context(request)
        context = await made if isawaitable(made) else made
        if isinstance(context, Context):
            context.failed.update(again)
        result = await self._schema.execute(
            text,
            variable_values=asked.variables,
            context_value=context,
            operation_name=operation.name,
            operation_extensions=asked.extensions,
        )
        if not isinstance(result, PreExecutionError):
            # Only names out of valid documents become labels.
            exchange.operation = self._metrics.operation(operation.name)
            exchange.type = operation.type.value
            if digest is not None:
                await self._persisted.register(digest, text)
            if self._hot is not None and isinstance(context, Context):
                self._hot.learn(text, asked, operation, context, result)
        return self._payload(exchange, result)

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
        if result.extensions:
            payload["extensions"] = result.extensions
        return payload

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
