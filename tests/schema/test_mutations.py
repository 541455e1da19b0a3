"""What all mutations have in common, so that clients need to learn it once."""

from __future__ import annotations

import pytest
from graphql import GraphQLNonNull, GraphQLObjectType, GraphQLUnionType, get_named_type

from schema.build import build_schema

SCHEMA = build_schema().core
assert SCHEMA.mutation_type is not None
MUTATIONS = SCHEMA.mutation_type.fields


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_takes_one_input(name: str) -> None:
    (argument,) = MUTATIONS[name].args.items()

    assert argument[0] == "input"
    assert isinstance(argument[1].type, GraphQLNonNull)
    assert str(argument[1].type) == f"{name[0].upper()}{name[1:]}Input!"


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_answers_with_one_success_or_with_failures_that_say_why(name: str) -> None:
    result = MUTATIONS[name].type
    union = get_named_type(result)

    assert str(result) == f"{name[0].upper()}{name[1:]}Result!"
    assert isinstance(union, GraphQLUnionType)
    successes = [member for member in union.types if not is_failure(member)]
    assert len(successes) == 1
    assert len(union.types) > 1


def is_failure(member: GraphQLObjectType) -> bool:
    return "Failure" in {interface.name for interface in member.interfaces}


def test_what_must_not_happen_twice_needs_a_key() -> None:
    for name in ("startBackfill",):
        given = get_named_type(MUTATIONS[name].args["input"].type)

        assert str(given.fields["idempotencyKey"].type) == "String!"  # type: ignore[union-attr]
