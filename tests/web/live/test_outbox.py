"""What waits for a reader: order, obsolescence and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.live.outbox import Letter, Outbox, OutboxFull

PASSING = st.one_of(st.none(), st.integers(0, 3))


def letter(number: int, sender: object = "a", size: int = 0) -> Letter:
    return Letter(sender, b"%d" % number, b"x" * size, b"")


def waiting(outbox: Outbox) -> list[int]:
    return [int(outbox.take().head) for _ in range(len(outbox))]


@given(st.lists(st.tuples(PASSING, st.sampled_from("ab"))))
def test_what_is_left_is_all_that_must_arrive_and_the_newest_of_what_passes(puts):
    outbox = Outbox(max_count=1000, max_bytes=10**9)
    for number, (passing, sender) in enumerate(puts):
        outbox.put(letter(number, sender), passing)

    # Independently: nothing later has the same sender and key.
    expected = [
        number
        for number, (passing, sender) in enumerate(puts)
        if passing is None or (passing, sender) not in puts[number + 1 :]
    ]
    assert outbox.bytes == sum(len(str(number)) for number in expected)
    assert waiting(outbox) == expected
    assert outbox.bytes == 0


def test_it_is_full_by_count():
    outbox = Outbox(max_count=2, max_bytes=100)
    outbox.put(letter(1))
    outbox.put(letter(2), "bar")

    outbox.put(letter(3), "bar")
    with pytest.raises(OutboxFull):
        outbox.put(letter(4))

    assert waiting(outbox) == [1, 3]


def test_it_is_full_by_bytes_but_takes_one_letter_of_any_size():
    outbox = Outbox(max_count=10, max_bytes=100)

    outbox.put(letter(1, size=1000))
    with pytest.raises(OutboxFull):
        outbox.put(letter(2))

    assert waiting(outbox) == [1]


def test_what_is_forgotten_gives_its_room_back():
    outbox = Outbox(max_count=10, max_bytes=100)
    outbox.put(letter(1, "a"))
    outbox.put(letter(2, "b"))
    outbox.put(letter(3, "a"), "bar")

    outbox.forget("a")

    assert outbox.bytes == 1
    assert waiting(outbox) == [2]
