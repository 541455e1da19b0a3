"""The shape of documents: measured right, in one pass, and refused by name."""

import pytest
from graphql import DocumentNode, Node, Visitor, parse, visit
from hypothesis import given
from hypothesis import strategies as st

from web.limits.shape import ShapeLimits, excess_of, shape_of


def nodes_in(document: DocumentNode) -> int:
    class Counter(Visitor):
        count = 0

        def enter(self, _node: Node, *_: object) -> None:
            self.count += 1

    counter = Counter()
    visit(document, counter)
    return counter.count


def bomb(length: int) -> DocumentNode:
    """Each fragment spreads the next twice: 2 ** length fields."""
    spreads = " ".join(
        f"fragment F{n} on Query {{ a: again {{ ...F{n + 1} }} b: again {{ ...F{n + 1} }} }}"
        for n in range(length)
    )
    return parse(f"{{ ...F0 }} {spreads} fragment F{length} on Query {{ hello }}")


@pytest.mark.parametrize("length", [1, 10, 200])
def test_a_bomb_of_fragments_is_looked_at_no_more_often_than_it_is_long(length: int) -> None:
    document = bomb(length)

    shape = shape_of(document)

    assert shape.visited <= nodes_in(document)
    assert shape.depth == length + 1
    assert shape.aliases == min(2 ** (length + 1) - 2, 1_000_000_000)


def test_twice_as_many_fragments_that_all_spread_each_other_take_twice_as_long_for_each() -> None:
    def visited(count: int) -> int:
        every = " ".join(f"...F{n}" for n in range(count))
        return shape_of(
            parse(" ".join(f"fragment F{n} on Query {{ {every} }}" for n in range(count)) + "{a}")
        ).visited

    assert (visited(10), visited(20)) == (10 * 10 + 1, 20 * 20 + 1)


@pytest.mark.parametrize(
    ("document", "depth", "aliases", "directives", "values"),
    [
        ("{ a }", 1, 0, 0, 0),
        ("{ a { b { c } } }", 3, 0, 0, 0),
        ("{ a { ...F } } fragment F on Query { b { c } }", 3, 0, 0, 0),
        ("{ ... { ... on Query { a { b } } } }", 2, 0, 0, 0),
        ("{ x: a y: a { z: b } }", 2, 3, 0, 0),
        ("{ ...F a { ...F } } fragment F on Query { x: a @skip(if: true) }", 2, 2, 2, 1),
        ("query A { x: a } query B { x: a y: a }", 1, 2, 0, 0),
        ("query A($v: Int = 1 @one) @two { a @three @three ...F @four }", 1, 0, 5, 1),
        ("{ a(of: [1, [2, {three: 3, four: [4]}]]) b(of: 1) }", 1, 0, 0, 8),
        ("query A($v: [Int] = [1, 2, 3]) { a }", 1, 0, 0, 4),
        ("fragment F on Query { a { b } ...F } { a }", 2, 0, 0, 0),
        ("fragment F on A { x: a } fragment F on B { x: a y: a { b } } { a }", 2, 2, 0, 0),
        ("{ ...Nowhere }", 1, 0, 0, 0),
    ],
)
def test_a_shape_counts_what_an_operation_has_through_its_fragments(
    document: str, depth: int, aliases: int, directives: int, values: int
) -> None:
    shape = shape_of(parse(document))

    assert (shape.depth, shape.aliases, shape.directives, shape.values) == (
        depth,
        aliases,
        directives,
        values,
    )


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("depth", "{ a { b { c } } }"),
        ("aliases", "{ x: a y: a z: a }"),
        ("directives", "{ a @one @two @three }"),
        ("values", "{ a(of: [1, 2]) }"),
    ],
)
def test_a_document_beyond_a_limit_is_refused_with_the_limit(name: str, document: str) -> None:
    limits = ShapeLimits(depth=2, aliases=2, directives=2, values=2)

    refusal = excess_of(parse(document), limits)

    assert refusal is not None
    assert refusal.extensions == {"limit": {"name": name, "most": 2}}
    assert " 2 " in refusal.message
    assert excess_of(parse(document), ShapeLimits()) is None


trees = st.recursive(
    st.just("leaf"), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=20
)


@given(trees, st.integers(0, 5))
def test_depth_is_that_of_the_tree_wherever_it_is_cut_into_fragments(
    tree: object, every: int
) -> None:
    fragments: list[str] = []

    def depth(of: object) -> int:
        return 1 if of == "leaf" else 1 + max(map(depth, of))

    def written(of: object, n: int = 0) -> str:
        if of == "leaf":
            return "leaf"
        inner = " ".join(written(each, n + 1) for each in of)
        if every and n % every == 0:
            fragments.append(f"fragment F{len(fragments)} on Query {{ {inner} }}")
            inner = f"...F{len(fragments) - 1}"
        return f"node {{ {inner} }}"

    operation = f"{{ {written(tree)} }}"

    assert shape_of(parse(" ".join([operation, *fragments]))).depth == depth(tree)
