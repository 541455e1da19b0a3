"""A server that was told to keep its schema to itself does so, whatever carries the question."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from graphql import get_introspection_query

from tests.abuse.target import Target, codes
from tests.abuse.transports import TRANSPORTS

SHOWN = "Query"
"""The one type whose name everybody knows."""
ASKS = {
    "all of it": get_introspection_query(),
    "types": "{ __schema { types { name } } }",
    "one type": '{ __type(name: "LoginInput") { inputFields { name } } }',
    "under an alias": '{ harmless: __type(name: "LoginInput") { harmless: kind } }',
    "in a fragment": "{ ...F } fragment F on Query { __schema { queryType { name } } }",
    "in a fragment of a fragment": "{ ...F } fragment F on Query { ... on Query { ...G } } "
    "fragment G on Query { __schema { types { name } } }",
    "without a type": '{ ... { __type(name: "LoginInput") { name } } }',
    "by a directive": "{ ... @include(if: true) { __schema { directives { name } } } }",
    "beside what is allowed": "{ __typename markets { name } __schema { types { name } } }",
}


@pytest.mark.parametrize("ask", ASKS)
async def test_the_schema_cannot_be_asked_for(target: Target, ask: str) -> None:
    for over in TRANSPORTS:
        answer = await over(target, {"query": ASKS[ask]}, None)

        assert set(codes(answer)) == {"GRAPHQL_VALIDATION_FAILED"}
        assert answer.keys() == {"errors"}


async def test_the_schema_cannot_be_asked_for_by_a_variable(target: Target) -> None:
    query = "query($name: String!) { __type(name: $name) { fields { name } } }"

    for over in TRANSPORTS:
        answer = await over(target, {"query": query, "variables": {"name": SHOWN}}, None)

        assert answer.keys() == {"errors"}


async def test_the_schema_cannot_be_registered_and_asked_for_by_its_digest(target: Target) -> None:
    text = ASKS["types"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    named = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}}}

    for over in TRANSPORTS:
        registered = await over(target, {"query": text, **named}, None)
        known = await over(target, named, None)

        assert set(codes(registered)) == {"GRAPHQL_VALIDATION_FAILED"}
        assert codes(known) == ["PERSISTED_QUERY_NOT_FOUND"]


async def test_the_name_of_a_type_that_is_answered_is_no_secret(target: Target) -> None:
    for over in TRANSPORTS:
        answer = await over(target, {"query": "{ __typename }"}, None)

        assert answer["data"] == {"__typename": SHOWN}


WHOLE = 'provider: "sim", symbol: "BTC/USDT", timeframe: "1m"'
GIVEN = {"provider": "sim", "symbol": "BTC/USDT", "timeframe": "1m"}
SERIES = "query($of: SeriesInput!) { candles(series: $of) { cursor } }"
NEARLY: list[tuple[str, dict[str, Any], str]] = [
    ("{ market { name } }", {}, "markets"),
    ("{ markets { nam } }", {}, "name"),
    ("{ ... on Quer { __typename } }", {}, "Query"),
    ('{ symbols(provider: "sim", serch: "b") { nodes { id } } }', {}, "search"),
    ('{ symbols(provider: "sim", type: SPO) { nodes { id } } }', {}, "SPOT"),
    (f"{{ candles(series: {{{WHOLE}, sesion: ALL}}) {{ cursor }} }}", {}, "session"),
    ("query($of: SerieInput!) { candles(series: $of) { cursor } }", {}, "SeriesInput"),
    ("{ markets @skipp(if: true) { name } }", {}, "include"),
    ("mutation { logn(input: {}) { __typename } }", {}, "login"),
    ("{ markets { ... on Market { providers { nodes } } } }", {}, "notes"),
    (SERIES, {"of": {**GIVEN, "sesion": "ALL"}}, "session"),
    (SERIES, {"of": {**GIVEN, "session": "REGULA"}}, "REGULAR"),
]


@pytest.mark.parametrize(("query", "variables", "meant"), NEARLY)
async def test_a_wrong_name_is_not_answered_with_the_right_one(
    target: Target, query: str, variables: dict[str, Any], meant: str
) -> None:
    for over in TRANSPORTS:
        answer = await over(target, {"query": query, "variables": variables}, None)

        told = json.dumps(answer)
        assert "errors" in answer
        assert "Did you mean" not in told
        assert meant not in told.replace(query, "")


async def test_graphiql_is_not_there(target: Target) -> None:
    async with target.http() as http:
        answer = await http.get("/graphiql")

    assert answer.status_code == 404
