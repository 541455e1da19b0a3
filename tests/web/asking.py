"""Requests made from the schema, and the ways by which they reach a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_leaf_type,
)

from schema.build import build_schema
from schema.permissions import roots_of
from tests.web.doors import EVENTS, Door, payload_of, sent

CORE = build_schema().core
FIELDS = roots_of(CORE)


def some(type: GraphQLInputType) -> Any:
    """Return some value of *type*: names that nobody has, and no more than is required."""
    if isinstance(type, GraphQLNonNull):
        return some(type.of_type)
    if isinstance(type, GraphQLList):
        return [some(type.of_type)]
    if isinstance(type, GraphQLEnumType):
        return next(iter(type.values))
    if isinstance(type, GraphQLInputObjectType):
        return {name: some(field.type) for name, field in type.fields.items() if is_needed(field)}
    assert isinstance(type, GraphQLScalarType)
    return {"Int": 1, "Float": 1.0, "Boolean": True, "Timestamp": 0}.get(type.name, "x")


def is_needed(of: Any) -> bool:
    return isinstance(of.type, GraphQLNonNull) and of.default is None


def field_of(root: str) -> GraphQLField:
    """Return the field *root*, such as `Query.me`."""
    kind, name = root.split(".")
    owner = CORE.get_type(kind)
    assert isinstance(owner, GraphQLObjectType)
    return owner.fields[name]


def operation(
    root: str, given: Mapping[str, Any] = {}, *, selected: str = "{ __typename }"
) -> dict[str, Any]:
    """Return a request for the field *root* with *given* arguments and what else it needs.

    All values are variables.
    """
    kind, name = root.split(".")
    field = field_of(root)
    types = {n: of.type for n, of in field.args.items() if n in given or is_needed(of)}
    declared = ", ".join(f"${n}: {of}" for n, of in types.items())
    passed = ", ".join(f"{n}: ${n}" for n in types)
    call = f"{name}({passed})" if passed else name
    if not is_leaf_type(get_named_type(field.type)):
        call = f"{call} {selected}"
    text = f"{kind.lower()}{f'({declared})' if declared else ''} {{ {call} }}"
    return {"query": text, "variables": {n: given.get(n, some(of)) for n, of in types.items()}}


def paths_to_ids(type: Any, within: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield where in a value of *type* an id can be given, by the names of fields."""
    named = get_named_type(type)
    if named.name == "ID":
        yield ()
    elif isinstance(named, GraphQLInputObjectType) and named.name not in within:
        for name, field in named.fields.items():
            for path in paths_to_ids(field.type, (*within, named.name)):
                yield (name, *path)


def with_id(type: Any, path: list[str], id: str) -> Any:
    """Return a value of *type* with *id* at *path*, of the first version where it takes one."""
    nullable = get_nullable_type(type)
    if isinstance(nullable, GraphQLList):
        return [with_id(nullable.of_type, path, id)]
    if not path:
        return id
    value = some(nullable)
    if "version" in nullable.fields:
        value["version"] = 1
    return {**value, path[0]: with_id(nullable.fields[path[0]].type, path[1:], id)}


def everything(type: Any, *, depth: int = 1) -> str:
    """Return a selection of all that can be told of *type* without arguments, so deep."""
    named = get_named_type(type)
    if is_abstract_type(named):
        kinds = CORE.get_possible_types(named)
        parts = [f"... on {kind} {everything(kind, depth=depth)}" for kind in kinds]
    else:
        assert isinstance(named, GraphQLObjectType)
        parts = []
        for name, field in named.fields.items():
            if any(is_needed(argument) for argument in field.args.values()):
                continue
            if is_leaf_type(get_named_type(field.type)):
                # Fields of several kinds in one union may have one name and several types.
                parts.append(f"{named}_{name}: {name}")
            elif depth:
                parts.append(f"{named}_{name}: {name} {everything(field.type, depth=depth - 1)}")
    return f"{{ __typename {' '.join(parts)} }}"


Requests = dict[str, dict[str, Any]]
"""What is asked, each under a name of its own."""


async def over_http(door: Door, token: str | None, requests: Requests) -> Requests:
    """Return the answer to each of *requests*."""
    async with door.serving.http() as http:
        return {
            name: (await http.post("/graphql", json=asked, headers=_bearer(token))).json()
            for name, asked in requests.items()
        }


async def over_events(door: Door, token: str | None, requests: Requests) -> Requests:
    async with door.serving.http() as http:
        return {name: await _first_event(http, token, asked) for name, asked in requests.items()}


async def _first_event(
    http: httpx.AsyncClient, token: str | None, asked: dict[str, Any]
) -> dict[str, Any]:
    headers = {**_bearer(token), **EVENTS}
    async with http.stream("POST", "/graphql", json=asked, headers=headers) as stream:
        read = ""
        async for piece in stream.aiter_text():
            read += piece
            if events := sent(read.rpartition("\n\n")[0]):
                return events[0]
    raise AssertionError(read)


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


async def over_a_socket(door: Door, token: str | None, requests: Requests) -> Requests:
    found = {}
    async with door.serving.socket() as socket:
        await socket.init(payload_of(token))
        for name, asked in requests.items():
            await socket.subscribe(name, **asked)
            message = await socket.of(name)
            payload = message["payload"]
            found[name] = {"errors": payload} if message["type"] == "error" else payload
    return found


TRANSPORTS = pytest.mark.parametrize("asked", [over_http, over_events, over_a_socket])


def asked_over(transport: Callable[..., Any]) -> list[str]:
    """Return the fields that *transport* carries; the one that ends a session comes last."""
    plain = transport is over_http
    roots = [root for root in FIELDS if not (plain and root.startswith("Subscription."))]
    return sorted(roots, key=lambda root: root == "Mutation.logout")
