"""The schema is the reference manual: everything in it is described, and the export is current."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    is_introspection_type,
    is_specified_scalar_type,
)

from schema import build

EXPORTED = Path(__file__).parents[2] / "schema.graphql"


@pytest.fixture(scope="module")
def exported() -> GraphQLSchema:
    return build_schema(EXPORTED.read_text(encoding="utf-8"))


def own_types(schema: GraphQLSchema) -> list[GraphQLNamedType]:
    return [
        named
        for named in schema.type_map.values()
        if not is_introspection_type(named) and not is_specified_scalar_type(named)
    ]


def inputs(schema: GraphQLSchema) -> Iterator[tuple[str, GraphQLArgument | GraphQLInputField]]:
    for named in own_types(schema):
        if isinstance(named, GraphQLInputObjectType):
            yield from ((f"{named.name}.{name}", field) for name, field in named.fields.items())
        if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in named.fields.items():
                for argument, definition in field.args.items():
                    yield f"{named.name}.{name}({argument})", definition


def described(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    for named in own_types(schema):
        yield named.name, named.description
        if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
            yield from ((f"{named.name}.{n}", f.description) for n, f in named.fields.items())
        if isinstance(named, GraphQLEnumType):
            yield from ((f"{named.name}.{n}", v.description) for n, v in named.values.items())
    yield from ((place, definition.description) for place, definition in inputs(schema))


def test_everything_has_a_description(exported: GraphQLSchema) -> None:
    places = dict(described(exported))

    assert [place for place, text in places.items() if not (text and text.strip())] == []
    assert len(places) > 150


def test_descriptions_are_sentences(exported: GraphQLSchema) -> None:
    wrong = [
        (place, text)
        for place, text in described(exported)
        if text and not (text[0].isupper() and text.rstrip().endswith((".", "`")))
    ]

    assert wrong == []


def test_optional_inputs_are_nullable(exported: GraphQLSchema) -> None:
    # `first: Int! = 50` is optional in GraphQL, but some client generators call it required.
    wrong = [
        place
        for place, definition in inputs(exported)
        if isinstance(definition.type, GraphQLNonNull) and definition.default is not None
    ]

    assert wrong == []


def test_lists_hold_no_nulls_they_do_not_mean(exported: GraphQLSchema) -> None:
    assert str(exported.query_type.fields["markets"].type) == "[Market!]!"  # type: ignore[union-attr]
    assert str(exported.type_map["CandleColumns"].fields["vwap"].type) == "[Float]!"  # type: ignore[attr-defined]


def test_export_is_the_schema_of_the_code() -> None:
    assert EXPORTED.read_text(encoding="utf-8") == f"{build.build_schema()}\n"
