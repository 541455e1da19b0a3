"""The document caches: their bounds, and what they may never confuse."""

import pytest
import strawberry
from graphql import GraphQLError, specified_rules
from graphql.validation import NoSchemaIntrospectionCustomRule
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.extensions import AddValidationRules

from market.lru import LRU
from web.documents import Documents


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "hello"


RULES = tuple(specified_rules)


def test_a_document_is_parsed_and_validated_once() -> None:
    documents = Documents()
    schema = strawberry.Schema(Query)._schema

    for _ in range(3):
        assert documents.validate(schema, "{ hello }", RULES) == []

    assert (documents.parses, documents.validations) == (1, 1)


def test_what_is_valid_by_one_schema_or_rules_is_validated_anew_by_others() -> None:
    documents = Documents()
    text = "{ __schema { description } }"
    one, two = strawberry.Schema(Query)._schema, strawberry.Schema(Query)._schema

    assert documents.validate(one, text, RULES) == []
    assert documents.validate(two, text, RULES) == []
    assert documents.validate(one, text, (*RULES, NoSchemaIntrospectionCustomRule))

    assert documents.validations == 3


def test_failures_take_no_room_and_carry_their_code() -> None:
    documents = Documents(max_count=1)
    schema = strawberry.Schema(Query)._schema
    documents.validate(schema, "{ hello }", RULES)

    with pytest.raises(GraphQLError) as failure:
        documents.parse("{")

    assert failure.value.extensions == {"code": "GRAPHQL_PARSE_FAILED"}
    documents.parse("{ hello }")
    assert documents.parses == 2


async def test_rules_that_other_extensions_add_are_kept() -> None:
    documents = Documents()
    schema = strawberry.Schema(
        Query,
        extensions=[
            documents.extension,
            lambda: AddValidationRules([NoSchemaIntrospectionCustomRule]),
        ],
    )

    allowed = await schema.execute("{ hello }")
    refused = await schema.execute("{ __schema { description } }")

    assert allowed.data == {"hello": "hello"}
    assert refused.errors
    assert "introspection" in refused.errors[0].message


async def test_a_syntax_error_ends_one_operation_of_a_stream_and_not_its_socket() -> None:
    documents = Documents(max_tokens=10)
    schema = strawberry.Schema(Query, extensions=[documents.extension])

    for text in ("{", "{" + " hello" * 20 + "}"):
        results = [result async for result in await schema.stream(text)]

        assert len(results) == 1
        assert "Syntax Error" in results[0].errors[0].message


lookups = st.lists(
    st.tuples(st.sampled_from(["get", "put"]), st.integers(0, 6), st.integers(0, 12)), max_size=60
)


@settings(deadline=None)
@given(lookups)
def test_the_cache_holds_the_most_recently_used_within_its_bounds(
    steps: list[tuple[str, int, int]],
) -> None:
    cache: LRU[int, int] = LRU(max_count=3, max_weight=10)
    model: list[tuple[int, int]] = []  # (key, weight), the most recently used last

    for action, key, weight in steps:
        held = dict(model)
        if action == "get":
            assert cache.get(key) == held.get(key)
            weight = held.get(key, 99)
        model = [entry for entry in model if entry[0] != key]
        if action == "put":
            cache.put(key, weight, weight=weight)
        if weight <= 10:
            model.append((key, weight))
        while len(model) > 3 or sum(weight for _, weight in model) > 10:
            model.pop(0)

        assert {key for key in range(7) if key in cache} == {key for key, _ in model}
        assert cache.weight == sum(weight for _, weight in model)
        assert len(cache) == len(model)
