"""Which variables keep subscriptions from sharing one execution."""

from __future__ import annotations

import pytest
from graphql import get_operation_ast, parse

from web.live.resume import shared_variables


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("subscription S($a: String) { bars(after: $a) { x } }", set()),
        ("subscription S($a: String, $s: String) { bars(series: $s, after: $a) { x } }", {"s"}),
        ("subscription S($a: String) { bars(after: $a, series: $a) { x } }", {"a"}),
        ("subscription S($a: String) { bars(after: $a) { x(after: $a) } }", {"a"}),
        ("subscription S($a: String) { bars { x(after: $a) } }", {"a"}),
        ("subscription S($a: String) { bars(series: {after: $a}) { x } }", {"a"}),
        ("subscription S($a: Boolean!) { bars(after: $a) { x @include(if: $a) } }", {"a"}),
        ("subscription S($a: String) { ... { b: bars(after: $a) { x } } }", set()),
        ("subscription S($a: String) { ...F } fragment F on S { bars(after: $a) { x } }", set()),
        (
            """subscription S($a: String) { ...F ...F }
            fragment F on S { bars(after: $a) { ...G } } fragment G on B { x(y: $a) }""",
            {"a"},
        ),
        ("subscription S($a: String) { bars { x } }", {"a"}),
        (
            """subscription S($a: String) { bars(after: $a) { x } }
            query Q($a: String) { other(a: $a) }""",
            set(),
        ),
    ],
)
def test_a_variable_that_only_says_where_to_resume_does_not(text, shared):
    document = parse(text)

    assert shared_variables(document, get_operation_ast(document, "S")) == shared
