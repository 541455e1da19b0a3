"""Answers go before what is kept of them, and what waits to be sent is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import UnixDomainSocketConnection

from datasources.cache_writer import MOST_SENT, Batch, CacheWriter
from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from market.window import MINUTE
from tests.datasources.chains import opened_chain
from tests.fakes import FakeProvider, Market

NOW = 1_700_000_040_000


class HeldConnection(UnixDomainSocketConnection):
    """A connection on which scripts wait for leave before they are sent."""

    def __init__(self, *, leave: asyncio.Event, scripts: list[int], **options: Any) -> None:
        super().__init__(**options)
        self._leave, self._scripts = leave, scripts

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if any(b"EVALSHA" in bytes(part) for part in command):
            self._scripts.append(1)
            await self._leave.wait()
        await super().send_packed_command(command, check_health)


class Held:
    """A Redis that takes nothing in until it gets `leave`, and the scripts it was sent."""

    def __init__(self, url: str) -> None:
        self.leave = asyncio.Event()
        self.scripts: list[int] = []
        pool = BlockingConnectionPool(
            connection_class=HeldConnection,
            path=url.removeprefix("unix://").partition("?")[0],
            leave=self.leave,
            scripts=self.scripts,
            protocol=3,
        )
        self.redis = Redis.from_pool(pool)


@pytest.fixture
async def held(embedded: EmbeddedServers) -> AsyncIterator[Held]:
    held = Held(embedded.redis_url)
    async with held.redis as redis:
        await redis.script_flush()
        yield held


@asynccontextmanager
async def written_to(held: Held, told: list[Exception | None]) -> AsyncIterator[CacheWriter]:
    writer = CacheWriter(held.redis, ttl=60, told=told.append)
    yield writer
    held.leave.set()
    await writer.all_sent()


def batch_of(key: str, size: int = 1) -> Batch:
    return Batch(chunks={key: (b"x" * size, 60)}, size=size)


async def test_an_answer_does_not_wait_until_redis_has_taken_it_in(
    store: CandleStore, held: Held, redis_prefix: str
) -> None:
    market = Market.of(range(NOW - 60 * MINUTE, NOW, MINUTE))
    provider = FakeProvider(FixedClock(NOW), {"BTC": market}, offered_from=NOW - 60 * MINUTE)
    async with opened_chain(provider, store, held.redis, redis_prefix) as process:
        held.leave.set()
        await process.get("1m", last=5)  # what the provider gave is announced, and waited for
        await process.flush()
        held.leave.clear()

        (answer,) = await process.chain.answer([process.request("1m", last=50, until=NOW)])

        assert len(answer.bars) == 50
        chunks = f"{redis_prefix}chunk:*"
        assert [key async for key in held.redis.scan_iter(chunks)] == []
        held.leave.set()
        await process.cache.sent()
        assert [key async for key in held.redis.scan_iter(chunks)] != []


async def test_a_process_that_ends_has_sent_what_it_was_to_keep(
    store: CandleStore, redis: Redis, redis_prefix: str
) -> None:
    market = Market.of(range(NOW - 60 * MINUTE, NOW, MINUTE))
    provider = FakeProvider(FixedClock(NOW), {"BTC": market}, offered_from=NOW - 60 * MINUTE)

    async with opened_chain(provider, store, redis, redis_prefix) as process:
        await process.chain.answer([process.request("1m", last=5)])

    assert [key async for key in redis.scan_iter(f"{redis_prefix}chunk:*")] != []


async def test_what_comes_while_a_call_is_under_way_goes_with_the_next(
    held: Held, redis_prefix: str
) -> None:
    keys = [f"{redis_prefix}{n}" for n in range(50)]
    async with written_to(held, told := []) as writer:
        held.leave.set()
        await writer.now(batch_of(f"{redis_prefix}first"))  # Redis learns the script
        held.leave.clear()
        held.scripts.clear()

        for key in keys:
            writer.offer(batch_of(key))
            await asyncio.sleep(0)
        held.leave.set()
        await writer.sent(keys[:1])
        await writer.all_sent()

    assert len(held.scripts) == 2
    assert told == [None, None]
    assert await held.redis.mget(keys) == [b"x"] * 50


async def test_of_what_waits_no_more_is_held_than_fits(held: Held, redis_prefix: str) -> None:
    keys = [f"{redis_prefix}{n}" for n in range(40)]
    async with written_to(held, []) as writer:
        for key in keys:
            writer.offer(batch_of(key, MOST_SENT // 4))

        held.leave.set()
        await writer.all_sent()

    taken = [value is not None for value in await held.redis.mget(keys)]
    assert taken == [True] * 16 + [False] * 24


async def test_what_is_waited_for_is_given_up_with_what_failed(held: Held) -> None:
    async with written_to(held, told := []) as writer:
        held.leave.set()
        writer.offer(Batch(heads={"wrong": ("no head", 1)}, chunks={"late": (b"x", -1)}, size=1))

        await writer.sent(["late"])

    assert len(told) == 1
    assert told[0] is not None


HEADS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3)
CHUNKS = st.dictionaries(st.sampled_from("xyz"), st.binary(max_size=2), max_size=3)


@given(parts=st.lists(st.tuples(HEADS, CHUNKS), max_size=6))
def test_batches_together_say_what_they_would_one_after_the_other(parts: Any) -> None:
    together = Batch()
    heads: dict[str, int] = {}
    chunks: dict[str, bytes] = {}
    for positions, values in parts:
        together.add(
            Batch(
                {key: (str(at), at) for key, at in positions.items()},
                {key: (value, 60) for key, value in values.items()},
                sum(map(len, values.values())),
            )
        )
        heads = {**heads, **{k: max(at, heads.get(k, at)) for k, at in positions.items()}}
        chunks |= values

    assert together.heads == {key: (str(at), at) for key, at in heads.items()}
    assert together.chunks == {key: (value, 60) for key, value in chunks.items()}
