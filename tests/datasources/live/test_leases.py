"""Of several processes one holds a lease, and whoever comes later has a higher token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from datasources.live.leases import Lease, Leases
from datasources.live.redis_away import RedisAway
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from web.bootstrap import open_redis

on_embedded = pytest.mark.parametrize("redis_url", ["embedded"], indirect=True, scope="session")

SHORT = 30
"""Milliseconds until a lease ends that a test waits out."""


@pytest.fixture
async def other_redis(redis_url: str) -> AsyncIterator[Redis]:
    """The connections of a second process."""
    async with open_redis(redis_url, 5) as other:
        yield other


def leases_of(owner: str, redis: Redis, prefix: str, *, ttl_ms: int = 60_000) -> Leases:
    return Leases(redis, prefix=prefix, owner=owner, ttl_ms=ttl_ms)


async def acquired(leases: Leases, name: str) -> Lease:
    """The lease, as soon as nobody else has it."""
    async with asyncio.timeout(10):
        while (lease := await leases.acquire(name)) is None:
            await asyncio.sleep(0.005)
    return lease


async def ended(leases: Leases, name: str) -> None:
    async with asyncio.timeout(10):
        while await leases.holder(name) is not None:
            await asyncio.sleep(0.005)


async def test_of_many_who_ask_at_once_one_gets_the_lease(
    redis: Redis, other_redis: Redis, redis_prefix: str
) -> None:
    askers = [
        leases_of(f"owner {i}", redis if i % 2 else other_redis, redis_prefix) for i in range(20)
    ]

    granted = await asyncio.gather(*(asker.acquire("feed") for asker in askers))

    (winner,) = [i for i, lease in enumerate(granted) if lease is not None]
    assert await askers[0].holder("feed") == f"owner {winner}"


async def test_leases_of_different_names_do_not_meet(redis: Redis, redis_prefix: str) -> None:
    leases = leases_of("a", redis, redis_prefix)

    one, two = await leases.acquire("one"), await leases.acquire("two")

    assert one is not None
    assert two is not None
    assert two.token > one.token


async def test_an_owner_does_not_get_what_it_holds_a_second_time(
    redis: Redis, redis_prefix: str
) -> None:
    leases = leases_of("a", redis, redis_prefix)
    await leases.acquire("feed")

    assert await leases.acquire("feed") is None


async def test_a_released_lease_goes_to_the_next_with_a_higher_token(
    redis: Redis, other_redis: Redis, redis_prefix: str
) -> None:
    a, b = leases_of("a", redis, redis_prefix), leases_of("b", other_redis, redis_prefix)
    first = await acquired(a, "feed")

    await a.release(first)
    second = await b.acquire("feed")

    assert second is not None
    assert second.token > first.token
    assert await a.holder("feed") == "b"


async def test_a_lease_that_ended_is_taken_over_and_its_holder_told(
    redis: Redis, other_redis: Redis, redis_prefix: str
) -> None:
    a = leases_of("a", redis, redis_prefix, ttl_ms=SHORT)
    b = leases_of("b", other_redis, redis_prefix)
    first = await acquired(a, "feed")

    second = await acquired(b, "feed")

    assert second.token > first.token
    assert await a.renew([first]) == set()
    assert await b.renew([second]) == {second}


async def test_who_lost_a_lease_cannot_release_its_successors(
    redis: Redis, other_redis: Redis, redis_prefix: str
) -> None:
    a = leases_of("a", redis, redis_prefix, ttl_ms=SHORT)
    b = leases_of("b", other_redis, redis_prefix)
    first = await acquired(a, "feed")
    second = await acquired(b, "feed")

    await a.release(first)

    assert await b.renew([second]) == {second}


async def test_a_lease_that_ended_and_nobody_took_is_not_renewed(
    redis: Redis, redis_prefix: str
) -> None:
    leases = leases_of("a", redis, redis_prefix, ttl_ms=SHORT)
    first = await acquired(leases, "feed")
    await ended(leases, "feed")

    assert await leases.renew([first]) == set()
    assert (await acquired(leases, "feed")).token > first.token


async def test_renewing_keeps_a_lease_from_ending(redis: Redis, redis_prefix: str) -> None:
    brief = leases_of("a", redis, redis_prefix, ttl_ms=5_000)
    lasting = leases_of("a", redis, redis_prefix, ttl_ms=60_000)
    lease = await acquired(brief, "feed")

    assert await lasting.renew([lease]) == {lease}

    (key,) = [key async for key in redis.scan_iter(f"{redis_prefix}*feed")]
    assert await redis.pttl(key) > 5_000


@on_embedded
async def test_of_many_leases_those_still_held_are_renewed_in_one_round_trip(
    redis: Redis, redis_prefix: str
) -> None:
    leases = leases_of("a", redis, redis_prefix)
    mine = [await acquired(leases, f"feed {i}") for i in range(300)]
    await leases.renew(mine[:1])  # from now on the server knows the script
    for lost in mine[::3]:
        await leases.release(lost)
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]

    held = await leases.renew(mine)

    after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert held == set(mine) - set(mine[::3])
    assert after == before + 1


async def test_tokens_go_on_growing_after_redis_lost_everything(
    redis: Redis, redis_prefix: str
) -> None:
    leases = leases_of("a", redis, redis_prefix)
    first = await acquired(leases, "feed")

    async for key in redis.scan_iter(f"{redis_prefix}*"):
        await redis.delete(key)
    second = await acquired(leases, "feed")

    assert second.token > first.token
    assert await leases.renew([first]) == set()


async def test_tokens_go_on_growing_though_the_clock_of_redis_goes_back(
    redis: Redis, redis_prefix: str
) -> None:
    leases = leases_of("a", redis, redis_prefix)
    first = await acquired(leases, "one")
    (key,) = [key async for key in redis.scan_iter(f"{redis_prefix}newest-token")]
    await redis.set(key, first.token + 3_600_000_000)

    second, third = await acquired(leases, "two"), await acquired(leases, "three")

    assert second.token == first.token + 3_600_000_001
    assert third.token == second.token + 1


@pytest.fixture
async def proxy(redis_url: str, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(redis_url, tmp_path / "redis.sock") as proxy:
        yield proxy


@on_embedded
async def test_that_redis_is_away_is_not_taken_for_a_lost_lease(
    proxy: CuttingProxy, redis_prefix: str
) -> None:
    async with open_redis(proxy.url, 5) as redis:
        leases = leases_of("a", redis, redis_prefix)
        lease = await acquired(leases, "feed")
        await proxy.shut()

        with pytest.raises(RedisAway):
            await leases.renew([lease])
        with pytest.raises(RedisAway):
            await leases.acquire("another")
        with pytest.raises(RedisAway):
            await leases.holder("feed")
        await leases.release(lease)

        await proxy.open()
        assert await leases.renew([lease]) == {lease}
