"""Trades as providers tell them become columns, or are refused."""

from __future__ import annotations

import pytest

from datasources.ingest.normalizer import InvalidTrades, Normalizer
from market.clock import FixedClock
from market.window import HOUR
from plugins.base import Trade


def test_trades_become_columns_in_their_order() -> None:
    columns = Normalizer(FixedClock(0)).columns([Trade("b", 2, 1.5, 0.5), Trade("a", 1, 2.5, 0.0)])

    assert columns.time.tolist() == [2, 1]
    assert columns.price.tolist() == [1.5, 2.5]
    assert columns.amount.tolist() == [0.5, 0.0]
    assert columns.id.tolist() == [b"b", b"a"]


def test_trades_without_an_id_that_look_the_same_are_told_apart() -> None:
    twins = [Trade("", 1, 2.0, 3.0), Trade("", 1, 2.0, 3.0)]

    assert len(set(Normalizer(FixedClock(0)).columns(twins).id.tolist())) == 2


def test_trades_without_an_id_get_the_same_names_when_they_are_told_again() -> None:
    trades = [Trade("", 1, 2.0, 3.0), Trade("", 1, 2.0, 3.0), Trade("", 2, 2.0, 3.0)]
    batched = Normalizer(FixedClock(0))

    first = [batched.columns([trade]).id.tolist() for trade in trades]
    again = Normalizer(FixedClock(0)).columns(trades).id.tolist()

    assert [name for (name,) in first] == again


@pytest.mark.parametrize(
    "wrong",
    [
        Trade("1", 1, float("nan"), 1.0),
        Trade("1", 1, float("-inf"), 1.0),
        Trade("1", 1, 1.0, -0.5),
        Trade("1", 1, 1.0, float("nan")),
        Trade("1", 2 * HOUR, 1.0, 1.0),
        Trade("\0", 1, 1.0, 1.0),
        Trade("x" * 101, 1, 1.0, 1.0),
    ],
)
def test_what_cannot_be_true_is_refused(wrong: Trade) -> None:
    with pytest.raises(InvalidTrades):
        Normalizer(FixedClock(0)).columns([Trade("0", 1, 1.0, 1.0), wrong])
