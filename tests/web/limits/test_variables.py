"""Variables: what ordinary ones hold passes, and no more is looked at than is allowed."""

from typing import Any

import pytest

from web.graphql_request import BadRequest
from web.limits.variables import MAX_CHARACTERS, MAX_NAMES, MAX_VALUES, check_variables


def nested(depth: int) -> dict[str, Any]:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return {"of": inner}


@pytest.mark.parametrize(
    "variables",
    [
        None,
        {},
        {"of": {"symbols": ["BTC/USDT"] * 500, "last": 5_000, "nothing": None}},
        {"of": ["x"] * (MAX_VALUES - 1)},
        {"of": "x" * (MAX_CHARACTERS - 2)},
        {str(n): n for n in range(MAX_NAMES)},
        nested(5_000),
    ],
)
def test_variables_within_the_limits_pass(variables: dict[str, Any] | None) -> None:
    check_variables(variables)


@pytest.mark.parametrize(
    ("variables", "limit"),
    [
        ({"of": [0] * 500_000}, MAX_VALUES),
        ({"of": [[0] * 600] * 20}, MAX_VALUES),
        ({"of": [{"a": 1}] * 6_000}, MAX_VALUES),
        ({"of": "x" * MAX_CHARACTERS}, MAX_CHARACTERS),
        ({"of": ["x" * 1_000] * 300}, MAX_CHARACTERS),
        ({"of": {"x" * MAX_CHARACTERS: 1}}, MAX_CHARACTERS),
        ({"of": {str(n): n for n in range(MAX_NAMES + 1)}}, MAX_NAMES),
        (nested(MAX_VALUES + 1), MAX_VALUES),
    ],
)
def test_variables_beyond_a_limit_are_refused_with_the_limit(
    variables: dict[str, Any], limit: int
) -> None:
    with pytest.raises(BadRequest, match=str(limit)):
        check_variables(variables)
