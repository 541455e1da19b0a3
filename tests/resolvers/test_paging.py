"""Pages are those of the Relay connection specification, whatever a client asks for."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.errors import BadInput
from resolvers.paging import MOST_PER_PAGE, Key, Page, cursor_of, key_in, paged

WORDS = st.text(max_size=4)
KEYS = st.tuples(WORDS, WORDS)
LISTS = st.lists(KEYS, unique=True, max_size=12).map(sorted)
COUNTS = st.none() | st.integers(0, 14)


def page_of(keys: list[Key], **arguments: object) -> Page[Key]:
    return paged(keys, lambda key: key, **arguments)  # type: ignore[arg-type]


def specified(
    keys: list[Key], first: int | None, after: Key | None, last: int | None, before: Key | None
) -> list[Key]:
    """Return what the specification's EdgesToReturn returns."""
    edges = [key for key in keys if after is None or key > after]
    edges = [key for key in edges if before is None or key < before]
    if first is not None and len(edges) > first:
        edges = edges[:first]
    if last is not None and len(edges) > last:
        edges = edges[len(edges) - last :]
    return edges


@given(LISTS, COUNTS, st.none() | KEYS, COUNTS, st.none() | KEYS)
def test_page_is_the_specifications_whether_or_not_the_cursors_still_have_a_node(
    keys: list[Key], first: int | None, after: Key | None, last: int | None, before: Key | None
) -> None:
    page = page_of(
        keys,
        first=first,
        after=None if after is None else cursor_of(after),
        last=last,
        before=None if before is None else cursor_of(before),
    )

    assert list(page.nodes) == specified(keys, first, after, last, before)
    assert [key_in(cursor, field="after") for cursor in page.cursors] == list(page.nodes)
    assert page.total == len(keys)
    if page.nodes:
        assert page.has_previous == (page.nodes[0] != keys[0])
        assert page.has_next == (page.nodes[-1] != keys[-1])


@given(LISTS, st.integers(0, 14), st.none() | KEYS)
def test_has_next_and_has_previous_are_the_specifications(
    keys: list[Key], count: int, cursor: Key | None
) -> None:
    text = None if cursor is None else cursor_of(cursor)

    forwards = page_of(keys, first=count, after=text)
    backwards = page_of(keys, last=count, before=text)

    later = [key for key in keys if cursor is None or key > cursor]
    earlier = [key for key in keys if cursor is None or key < cursor]
    assert forwards.has_next == (len(later) > count)
    assert backwards.has_previous == (len(earlier) > count)


@given(LISTS, st.integers(1, 5))
def test_walking_in_either_direction_meets_every_node_once(keys: list[Key], size: int) -> None:
    forwards: list[Key] = []
    page = page_of(keys, first=size)
    forwards += page.nodes
    while page.has_next:
        page = page_of(keys, first=size, after=page.cursors[-1])
        forwards += page.nodes
    backwards: list[Key] = []
    page = page_of(keys, last=size)
    backwards = [*page.nodes]
    while page.has_previous:
        page = page_of(keys, last=size, before=page.cursors[0])
        backwards = [*page.nodes, *backwards]

    assert forwards == backwards == keys


@given(LISTS, st.data())
def test_nothing_is_repeated_while_others_come_and_go(
    keys: list[Key], drawn: st.DataObject
) -> None:
    page = page_of(keys, first=drawn.draw(st.integers(1, 5)))
    later = sorted({*drawn.draw(LISTS), *(k for k in keys if drawn.draw(st.booleans()))})

    rest = page_of(later, after=page.cursors[-1]) if page.cursors else page_of(later)

    assert not set(rest.nodes) & set(page.nodes)


@pytest.mark.parametrize("count", [-1, MOST_PER_PAGE + 1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("direction", ["first", "last"])
def test_a_count_out_of_bounds_is_refused_and_the_refusal_states_them(
    direction: str, count: int
) -> None:
    with pytest.raises(BadInput, match=f"{direction} must be from 0 to {MOST_PER_PAGE}") as refusal:
        page_of([("a",)], **{direction: count})

    assert refusal.value.field == direction


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_a_string_that_is_no_cursor_is_refused_by_name(text: str) -> None:
    try:
        key = key_in(text, field="before")
    except BadInput as refusal:
        assert refusal.field == "before"
    else:
        assert all(isinstance(part, str) for part in key)


@pytest.mark.parametrize("value", [1, None, "a", {"a": "b"}, ["a", 1], [["a"]]])
def test_a_cursor_with_another_content_is_refused(value: object) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()

    with pytest.raises(BadInput):
        page_of([("a", "b")], after=cursor)
