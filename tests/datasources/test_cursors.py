"""A candle cursor says what it was made of, and nothing else passes for one."""

import base64
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasources.cursors import CandleCursor
from market.errors import BadInput

POSITIONS = st.dictionaries(st.integers(1, 2**53), st.integers(0, 2**53), max_size=4)
INSTANTS = st.integers(-(2**53), 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=10,
)


@given(st.none() | st.uuids(), POSITIONS, INSTANTS)
def test_what_went_in_comes_out(
    store: UUID | None, positions: dict[int, int], told_until: int
) -> None:
    cursor = CandleCursor(store, positions, told_until)

    assert CandleCursor.parse(str(cursor)) == cursor


@given(POSITIONS, INSTANTS)
def test_order_of_the_positions_makes_no_other_cursor(
    positions: dict[int, int], told_until: int
) -> None:
    backwards = dict(reversed(positions.items()))

    assert str(CandleCursor(None, positions, told_until)) == str(
        CandleCursor(None, backwards, told_until)
    )


@given(
    st.text()
    | JSON.map(json.dumps).map(lambda text: base64.urlsafe_b64encode(text.encode()).decode())
    | st.tuples(st.just(1), JSON, JSON, JSON).map(
        lambda parts: base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
    )
)
def test_any_other_string_is_refused_or_read_and_never_an_accident(text: str) -> None:
    try:
        cursor = CandleCursor.parse(text)
    except BadInput as refusal:
        assert refusal.field == "after"
    else:
        assert CandleCursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "value",
    [
        [2, None, [], 0],
        [1, 7, [], 0],
        [1, "00", [], 0],
        [1, None, [[1]], 0],
        [1, None, [[1, "x"]], 0],
        [1, None, [], "NaN"],
        [1, None, [], 0, 0],
        {},
    ],
)
def test_a_cursor_with_another_content_is_refused(value: object) -> None:
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()

    with pytest.raises(BadInput, match="not one that this server gave"):
        CandleCursor.parse(text)
