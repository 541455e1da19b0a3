"""Read a GraphQL request off HTTP, or refuse it with the status and words that name its mistake.

The rules are those of the GraphQL over HTTP specification: parameters of a wrong type make a
request malformed (400) in every media type; empty strings in a URL count as absent.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import orjson
from starlette.requests import Request

from market.errors import BargraphError

METHODS = "GET, HEAD, POST, OPTIONS"


class RequestRefused(BargraphError):
    """A request that never becomes an operation. *status* holds for every media type."""

    code = "BAD_REQUEST"
    status: ClassVar[int] = 400

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that the answer must carry."""
        return {}


class BadRequest(RequestRefused):
    """A body or a URL that is no GraphQL request."""


class MethodNotAllowed(RequestRefused):
    """An HTTP method that cannot carry the operation; *allow* names those that can."""

    status = 405

    def __init__(self, message: str, *, allow: str = METHODS) -> None:
        super().__init__(message)
        self.allow = allow

    @property
    def headers(self) -> Mapping[str, str]:
        return {"allow": self.allow}


class NotAcceptable(RequestRefused):
    """An Accept header that leaves no media type to answer in."""

    status = 406


class RequestTimedOut(RequestRefused):
    """A body that did not arrive in time."""

    status = 408


class BodyTooLarge(RequestRefused):
    """A body of more than *limit* bytes."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes.")
        self.limit = limit


class UnsupportedMediaType(RequestRefused):
    """A body in another form than JSON in UTF-8."""

    status = 415


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """The four parameters that a GraphQL request can have, each of the type it must have."""

    query: str | None
    operation_name: str | None
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None
    counted: bool = False
    """Whether its rate was taken into account already."""


async def read_request(request: Request, *, max_body: int, body_timeout: float) -> GraphQLRequest:
    """Return the GraphQL request that *request* carries.

    Reads at most *max_body* bytes and waits at most *body_timeout* seconds for them. Raises
    `RequestRefused`.
    """
    if request.method in {"GET", "HEAD"}:
        return _from_url(request.query_params)
    if request.method == "POST":
        _check_content_type(request.headers)
        return _from_json(await _read_body(request, max_body=max_body, patience=body_timeout))
    raise MethodNotAllowed(f"{request.method} is not supported here: use GET or POST.")


def _from_url(parameters: Mapping[str, str]) -> GraphQLRequest:
    return _checked(
        {
            "query": parameters.get("query") or None,
            "operationName": parameters.get("operationName") or None,
            "variables": _json_parameter(parameters, "variables"),
            "extensions": _json_parameter(parameters, "extensions"),
        }
    )


def _json_parameter(parameters: Mapping[str, str], name: str) -> object:
    text = parameters.get(name)
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The parameter `{name}` is not valid JSON: {error}.") from None


def _check_content_type(headers: Mapping[str, str]) -> None:
    media_type, *parameters = headers.get("content-type", "").split(";")
    if media_type.strip().lower() != "application/json":
        raise UnsupportedMediaType("Send the request as `content-type: application/json`.")
    for parameter in parameters:
        name, _, charset = parameter.partition("=")
        if name.strip().lower() == "charset" and charset.strip(' "').lower() != "utf-8":
            raise UnsupportedMediaType("Send the request in UTF-8.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Send the request without a content encoding.")


async def _read_body(request: Request, *, max_body: int, patience: float) -> bytearray:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_body:
        raise BodyTooLarge(max_body)
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_body:
                    raise BodyTooLarge(max_body)
    except TimeoutError:
        raise RequestTimedOut("The request body did not arrive in time.") from None
    return body


def _from_json(body: bytearray) -> GraphQLRequest:
    try:
        parameters = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from None
    if isinstance(parameters, list):
        raise BadRequest("Batches are not supported: send one operation a request.")
    if not isinstance(parameters, dict):
        raise BadRequest("The request body must be a JSON object with a `query`.")
    return _checked(parameters)


def _checked(parameters: Mapping[str, object]) -> GraphQLRequest:
    for name in ("query", "operationName"):
        if not isinstance(parameters.get(name), str | None):
            raise BadRequest(f"The parameter `{name}` must be a string.")
    for name in ("variables", "extensions"):
        if not isinstance(parameters.get(name), dict | None):
            raise BadRequest(f"The parameter `{name}` must be a JSON object.")
    return GraphQLRequest(
        query=cast("str | None", parameters.get("query")),
        operation_name=cast("str | None", parameters.get("operationName")),
        variables=cast("dict[str, Any] | None", parameters.get("variables")),
        extensions=cast("dict[str, Any] | None", parameters.get("extensions")),
    )
