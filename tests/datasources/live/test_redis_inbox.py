"""An inbox is bounded, and whatever is missing in it is told."""

from __future__ import annotations

import asyncio

from datasources.live.redis_inbox import Break, Inbox


async def taken(inbox: Inbox, number: int) -> list[bytes | Break]:
    async with asyncio.timeout(10):
        return [await anext(inbox) for _ in range(number)]


async def test_past_the_count_all_is_dropped_and_what_follows_is_kept() -> None:
    inbox = Inbox(most=3, most_bytes=1000)

    for message in (b"1", b"2", b"3", b"4", b"5"):
        inbox.put(message)

    assert await taken(inbox, 3) == [Break.OVERFLOW, b"4", b"5"]


async def test_past_the_bytes_all_is_dropped_and_what_follows_is_kept() -> None:
    inbox = Inbox(most=100, most_bytes=10)

    for message in (b"1234", b"567890", b"a", b"b"):
        inbox.put(message)

    assert await taken(inbox, 3) == [Break.OVERFLOW, b"a", b"b"]


async def test_what_was_read_no_longer_counts() -> None:
    inbox = Inbox(most=2, most_bytes=10)

    for _ in range(20):
        inbox.put(b"12345")
        inbox.put(b"67890")
        assert await taken(inbox, 2) == [b"12345", b"67890"]


async def test_a_message_larger_than_the_inbox_is_told_as_an_overflow() -> None:
    inbox = Inbox(most=10, most_bytes=10)

    inbox.put(b"12345678901")
    inbox.put(b"1")

    assert await taken(inbox, 2) == [Break.OVERFLOW, b"1"]


async def test_breaks_keep_their_place_among_messages() -> None:
    inbox = Inbox(most=10, most_bytes=100)

    inbox.put(b"1")
    inbox.away()
    inbox.away()
    inbox.back()
    inbox.back()
    inbox.put(b"2")
    inbox.away()

    assert await taken(inbox, 5) == [b"1", Break.AWAY, Break.BACK, b"2", Break.AWAY]


async def test_a_connection_that_comes_and_goes_does_not_fill_it() -> None:
    inbox = Inbox(most=2, most_bytes=100)

    inbox.put(b"1")
    inbox.put(b"2")
    for _ in range(1000):
        inbox.away()
        inbox.back()
    inbox.away()
    inbox.back()

    assert await taken(inbox, 4) == [b"1", b"2", Break.AWAY, Break.BACK]


async def test_what_was_not_read_is_gone_once_it_is_closed() -> None:
    inbox = Inbox(most=10, most_bytes=100)

    inbox.put(b"1")
    inbox.close()

    assert [item async for item in inbox] == []


async def test_who_waits_is_let_go_when_it_is_closed() -> None:
    inbox = Inbox(most=10, most_bytes=100)
    waiting = asyncio.ensure_future(anext(inbox, None))
    await asyncio.sleep(0)

    inbox.close()

    assert await asyncio.wait_for(waiting, 10) is None
