"""What operations count as: changes and tries one by one, however they are dressed."""

import pytest
from graphql import get_operation_ast, parse

from web.limits.groups import hits_of
from web.limits.rates import Group

LOGIN, RESET, MUTATIONS = Group.LOGIN, Group.PASSWORD_RESET, Group.MUTATIONS


@pytest.mark.parametrize(
    ("document", "hits"),
    [
        ("mutation { startBackfill }", {MUTATIONS: 1}),
        ("mutation { a: startBackfill b: startBackfill __typename }", {MUTATIONS: 2}),
        ("mutation { login }", {MUTATIONS: 1, LOGIN: 1}),
        ("mutation { a: login b: login register }", {MUTATIONS: 3, LOGIN: 3}),
        ("mutation { requestPasswordReset login }", {MUTATIONS: 2, LOGIN: 1, RESET: 1}),
        ("mutation { ... { ... on Mutation { a: login } } }", {MUTATIONS: 1, LOGIN: 1}),
        (
            "mutation{...A ...B} fragment A on Mutation{...B login} fragment B on Mutation{login}",
            {MUTATIONS: 3, LOGIN: 3},
        ),
        ("mutation { ...A } fragment A on Mutation { login ...A }", {MUTATIONS: 1, LOGIN: 1}),
    ],
)
def test_each_change_counts_wherever_it_stands(document: str, hits: dict[Group, int]) -> None:
    parsed = parse(document)
    operation = get_operation_ast(parsed)
    assert operation is not None

    assert hits_of(parsed, operation) == hits


def test_a_bomb_of_tries_counts_in_linear_time() -> None:
    fragments = " ".join(
        f"fragment F{n} on Mutation {{ ...F{n + 1} ...F{n + 1} }}" for n in range(300)
    )
    parsed = parse(f"mutation {{ ...F0 }} {fragments} fragment F300 on Mutation {{ login }}")
    operation = get_operation_ast(parsed)
    assert operation is not None

    assert hits_of(parsed, operation) == {MUTATIONS: 1_000_000, LOGIN: 1_000_000}
