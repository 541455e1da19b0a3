"""Readers find all events in order, the newest of those that pass, or that they lost some."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from datasources.live.fanout import Fanout, Overflowed, Reader

MOST = 256

events = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.none() | st.sampled_from("ab")),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("flood"), st.none()),
    ),
    max_size=40,
)


async def read(reader: Reader[int]) -> list[int | None]:
    """Return what there is to read now; None stands for a loss."""
    found: list[int | None] = []
    while True:
        try:
            # A reader that has something gives it without waiting.
            async with asyncio.timeout(0):
                found.append(await anext(reader))
        except Overflowed:
            found.append(None)
        except TimeoutError:
            return found


@given(script=events)
async def test_a_reader_finds_what_a_simple_list_would_hold(
    script: list[tuple[str, str | None]],
) -> None:
    fanout: Fanout[int] = Fanout()
    expected: list[tuple[int, str | None]] = []
    lost = False
    number = 0
    with fanout.reading() as reader:
        for step, passing in [*script, ("read", None)]:
            for _ in range({"put": 1, "flood": 100, "read": 0}[step]):
                number += 1
                fanout.put(number, passing)
                if passing is not None:
                    expected = [held for held in expected if held[1] != passing]
                if len(expected) >= MOST:
                    expected, lost = [], True
                expected.append((number, passing))
            if step == "read":
                assert await read(reader) == [None] * lost + [event for event, _ in expected]
                expected, lost = [], False


async def test_of_states_that_pass_a_slow_reader_finds_the_newest() -> None:
    fanout: Fanout[int] = Fanout()
    with fanout.reading() as slow, fanout.reading() as quick:
        for n in range(1_000):
            fanout.put(n, "state")
            assert await read(quick) == [n]

        assert await read(slow) == [999]


async def test_a_reader_ends_after_what_it_has_not_read() -> None:
    fanout: Fanout[int] = Fanout()
    with fanout.reading() as reader:
        fanout.put(1)
        fanout.put(2)
        fanout.end()

        assert [event async for event in reader] == [1, 2]
        assert [event async for event in reader] == []


async def test_a_reader_that_left_gets_nothing_more() -> None:
    fanout: Fanout[int] = Fanout()
    with fanout.reading() as reader:
        fanout.put(1)
        assert len(fanout) == 1
    fanout.put(2)

    assert len(fanout) == 0
    assert await read(reader) == [1]
