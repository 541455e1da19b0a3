"""`Window` and `Spans` against sets of whole numbers."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from market.window import Spans, Window

windows = st.builds(Window, st.integers(-30, 30), st.integers(-30, 30))
lists = st.lists(windows, max_size=8)


def instants(windows):
    return {t for w in windows for t in range(w.since, w.until)}


@given(windows, windows)
@settings(deadline=None)
def test_clipping_keeps_the_shared_instants(one, other):
    shared = one.clip(other)

    assert instants([shared]) == instants([one]) & instants([other])
    assert shared.length == len(instants([shared]))


@given(windows, windows)
@settings(deadline=None)
def test_a_window_contains_another_when_no_instant_of_it_lies_outside(one, other):
    assert one.contains(other) == (instants([other]) <= instants([one]))


@given(windows.filter(lambda w: not w.empty), st.integers(1, 9))
@settings(deadline=None)
def test_aligning_takes_the_smallest_window_of_whole_steps(window, step):
    whole = window.aligned(step)

    assert whole.contains(window)
    assert whole.since % step == whole.until % step == 0
    assert window.since - whole.since < step
    assert whole.until - window.until < step


@given(lists, lists)
@settings(deadline=None)
def test_spans_are_sets_of_instants(some, others):
    one, other = Spans(some), Spans(others)

    assert instants(one | other) == instants(some) | instants(others)
    assert instants(one & other) == instants(some) & instants(others)
    assert instants(one - other) == instants(some) - instants(others)


@given(lists, windows)
@settings(deadline=None)
def test_spans_hold_a_window_when_no_instant_of_it_lies_outside(some, window):
    assert Spans(some).holds(window) == (instants([window]) <= instants(some))


@given(lists, windows)
@settings(deadline=None)
def test_clipping_spans_keeps_what_lies_in_the_window(some, window):
    assert instants(Spans(some).clip(window)) == instants(some) & instants([window])


@given(lists)
@settings(deadline=None)
def test_spans_are_kept_apart_in_order_and_without_touching(some):
    kept = list(Spans(some))

    assert all(earlier.until < later.since for earlier, later in pairwise(kept))
    assert not any(window.empty for window in kept)


@given(lists, lists)
@settings(deadline=None)
def test_spans_of_the_same_instants_are_equal_however_they_were_made(some, others):
    assert Spans(some) | Spans(others) == Spans([*others, *some])
    assert hash(Spans(some)) == hash(Spans(reversed(some)))
    assert (Spans(some) == Spans(others)) == (instants(some) == instants(others))


@given(lists)
@settings(deadline=None)
def test_total_and_hull_measure_the_instants(some):
    spans, inside = Spans(some), instants(some)

    assert spans.total == len(inside)
    assert bool(spans) == bool(inside)
    assert spans.hull == (Window(min(inside), max(inside) + 1) if inside else Window(0, 0))


@given(lists, st.lists(windows, max_size=8))
@settings(deadline=None)
def test_covers_says_which_windows_lie_wholly_inside(some, asked):
    opens = np.array([w.since for w in asked], np.int64)
    closes = np.array([w.until for w in asked], np.int64)

    covered = Spans(some).covers(opens, closes)

    assert covered.tolist() == [instants([w]) <= instants(some) for w in asked]


@given(lists)
@settings(deadline=None)
def test_contains_says_which_instants_lie_inside(some):
    times = np.arange(-31, 32)

    inside = Spans(some).contains(times)

    assert set(times[inside].tolist()) == instants(some)


@given(st.lists(st.integers(0, 40), max_size=16).map(sorted))
@settings(deadline=None)
def test_edges_of_ascending_buckets_become_their_union(edges):
    edges = edges[: len(edges) // 2 * 2]
    opens, closes = np.array(edges[0::2], np.int64), np.array(edges[1::2], np.int64)

    spans = Spans.from_edges(opens, closes)

    assert spans == Spans(map(Window, edges[0::2], edges[1::2]))


def test_spans_of_two_instants_are_one_window():
    assert list(Spans.of(3, 9)) == [Window(3, 9)]
    assert not Spans.of(9, 3)


@given(lists, windows.filter(lambda w: not w.empty))
@settings(deadline=None)
def test_touches_says_which_windows_share_an_instant(some, asked):
    touched = Spans(some).touches(np.array([asked.since]), np.array([asked.until]))

    assert bool(touched[0]) == bool(instants(some) & instants([asked]))
