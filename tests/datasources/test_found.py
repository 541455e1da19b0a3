"""What sources found, joined: the whole promises no more than its parts."""

from __future__ import annotations

import pytest

from datasources.found import Found
from market.bars import Bars
from market.window import Spans

OLD, NEW = Spans.of(0, 100), Spans.of(100, 200)


def found(settled: Spans, fresh: Spans, as_of: int) -> Found:
    return Found(Bars.empty(), settled, fresh, as_of)


def test_a_forming_bar_gets_no_younger_by_history_fetched_after_it() -> None:
    forming = found(Spans(), NEW, as_of=100)
    history = found(OLD, OLD, as_of=950)

    assert forming.merge(history).as_of == 100
    assert history.merge(forming).as_of == 100


@pytest.mark.parametrize(("one", "other"), [(100, 950), (950, 100)])
def test_two_parts_that_pass_are_as_old_as_the_older(one: int, other: int) -> None:
    joined = found(Spans(), OLD, as_of=one).merge(found(Spans(), NEW, as_of=other))

    assert joined.as_of == 100


@pytest.mark.parametrize("settled", [Spans(), OLD])
@pytest.mark.parametrize("as_of", [0, 950])
def test_what_is_joined_with_nothing_stays_what_it_is(settled: Spans, as_of: int) -> None:
    something = found(settled, OLD, as_of)

    joined = Found.nothing().merge(something)

    assert joined == found(Spans(), Spans(), 0).merge(something)
    assert joined.passing_at == something.passing_at


def test_what_is_settled_has_no_age() -> None:
    joined = found(OLD, OLD, as_of=7).merge(found(NEW, NEW, as_of=9))

    assert joined.passing_at is None
    assert joined.as_of == 0
