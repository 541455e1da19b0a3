"""While there is no room publishers wait, and what they cannot hold leaves a hole that is known."""

from __future__ import annotations

import logging

import pytest
from redis.asyncio import Redis

from datasources.ingest.counts import IngestCounts
from datasources.ingest.entry import unpacked
from datasources.ingest.outbox import Outbox
from datasources.ingest.stream import TradeStream
from db.raw_trades import Telling
from market.window import MINUTE
from tests.db.minutes import T0, fresh_key
from tests.db.trades import Deal, telling

KEY = fresh_key()


@pytest.fixture
def small(redis: Redis, redis_prefix: str) -> TradeStream:
    return TradeStream(redis, prefix=redis_prefix, most_entries=2)


def nth(n: int, count: int = 3) -> Telling:
    """The trades of the nth minute."""
    since = T0 + n * MINUTE
    deals = [Deal.of(f"{n}-{m}", since + m, 1.0) for m in range(count)]
    return telling(KEY, deals, since, since + MINUTE)


async def sent(stream: TradeStream) -> list[int]:
    """Take out what is in the stream; return which minutes it tells."""
    await stream.join()
    messages = await stream.read("reader", most=100, wait_ms=10)
    await stream.done(messages)
    told = [unpacked(message.payload).told.since // 1000 for message in messages]
    return [(since - T0) // MINUTE for since in told]


async def test_what_finds_no_room_waits_and_goes_in_order(small: TradeStream) -> None:
    counts = IngestCounts()
    outbox = Outbox("it", small, counts)
    for n in range(5):
        assert outbox.put(nth(n))

    assert not await outbox.send()
    assert await sent(small) == [0, 1]
    assert not await outbox.send()
    assert await sent(small) == [2, 3]
    assert await outbox.send()
    assert await sent(small) == [4]

    assert outbox.empty
    assert (counts.published, counts.shed) == (15, 0)


async def test_what_cannot_be_held_is_let_go_counted_and_said_once(
    small: TradeStream, caplog: pytest.LogCaptureFixture
) -> None:
    counts = IngestCounts()
    outbox = Outbox("it", small, counts, held=8)
    caplog.set_level(logging.ERROR)

    kept = [outbox.put(nth(n)) for n in range(5)]
    await outbox.send()
    after = outbox.put(nth(5))

    assert kept == [True, True, False, False, False]
    assert after
    assert counts.shed == 9
    assert [record.getMessage() for record in caplog.records] == [
        "it: too many wait for room, so new ones are let go",
        "it: 9 were let go; history has to fill the hole",
    ]
