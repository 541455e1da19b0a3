"""The stream takes no more than it may hold, and gives nothing away that was not stored."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from datasources.ingest.stream import Lag, StreamFull, TradeStream


@pytest.fixture
def small(redis: Redis, redis_prefix: str) -> TradeStream:
    return TradeStream(redis, prefix=redis_prefix, most_entries=4, most_bytes=10, most_dead=2)


async def test_what_there_is_no_room_for_is_not_taken_and_nothing_is_pushed_out(
    small: TradeStream,
) -> None:
    assert await small.add([b"1", b"2", b"3", b"4", b"5"]) == 4

    assert await small.add([b"6"]) == 0
    await small.join()
    read = await small.read("reader", most=10, wait_ms=10)
    assert [message.payload for message in read] == [b"1", b"2", b"3", b"4"]


async def test_bytes_are_bounded_too(small: TradeStream) -> None:
    assert await small.add([b"12345", b"123456", b"1"]) == 1

    assert await small.add([b"12345", b"1"]) == 1


async def test_room_is_made_by_acknowledging(small: TradeStream) -> None:
    await small.join()
    await small.add([b"12345", b"12345"])
    first, second = await small.read("reader", most=10, wait_ms=10)

    await small.done([first])

    assert await small.add([b"12345", b"1"]) == 1
    await small.done([first, second])
    lag = await small.lag()
    assert (lag.entries, lag.bytes) == (1, 5)


async def test_dead_letters_are_bounded_and_the_oldest_goes(small: TradeStream) -> None:
    await small.join()
    await small.add([b"1", b"2", b"3"])
    for message in await small.read("reader", most=10, wait_ms=10):
        await small.bury(message, "because")

    letters = await small.dead()

    assert [(letter.payload, letter.reason) for letter in letters] == [
        (b"2", "because"),
        (b"3", "because"),
    ]
    assert (await small.lag()).entries == 0


async def test_a_dead_letter_is_not_replayed_into_a_full_stream(small: TradeStream) -> None:
    await small.join()
    await small.add([b"1"])
    (message,) = await small.read("reader", most=10, wait_ms=10)
    await small.bury(message, "because")
    await small.add([b"2", b"3", b"4", b"5"])
    (letter,) = await small.dead()

    with pytest.raises(StreamFull):
        await small.replay(letter.id)

    assert await small.dead() == [letter]


async def test_a_dead_letter_can_be_dropped_once(small: TradeStream) -> None:
    await small.join()
    await small.add([b"1"])
    (message,) = await small.read("reader", most=10, wait_ms=10)
    await small.bury(message, "because")
    (letter,) = await small.dead()

    assert await small.drop(letter.id)
    assert not await small.drop(letter.id)
    assert await small.lag() == Lag()


async def test_a_reader_that_leaves_is_forgotten_unless_it_has_work(
    small: TradeStream, redis: Redis, redis_prefix: str
) -> None:
    await small.join()
    await small.add([b"1"])
    await small.read("busy", most=10, wait_ms=10)
    await small.read("idle", most=10, wait_ms=10)

    for reader in ("busy", "idle"):
        await small.leave(reader)

    known = await redis.xinfo_consumers(f"{redis_prefix}trades", "store")
    assert [row["name"] for row in known] == [b"busy"]
