"""What somebody wants is seen by all, and forgotten when nobody says so any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from datasources.live.broadcaster import Broadcaster
from datasources.live.interest import Interest
from datasources.live.redis_away import RedisAway
from tests.cutting_proxy import cutting_proxy
from web.bootstrap import open_redis

on_embedded = pytest.mark.parametrize("redis_url", ["embedded"], indirect=True, scope="session")

LONG, SHORT = 60_000, 30


async def until_wanted(interest: Interest, members: set[bytes]) -> None:
    async with asyncio.timeout(10):
        while await interest.wanted() != members:
            await asyncio.sleep(0.005)


async def test_what_any_process_wants_is_wanted(redis: Redis, redis_prefix: str) -> None:
    one, two, feeds = (Interest(redis, prefix=redis_prefix, grace_ms=LONG) for _ in range(3))

    await one.want(["a", b"\xff\x00"])
    await two.want([b"a", "c"])

    assert await feeds.wanted() == {b"a", b"\xff\x00", b"c"}


async def test_what_nobody_wants_any_more_is_forgotten(redis: Redis, redis_prefix: str) -> None:
    lasting = Interest(redis, prefix=redis_prefix, grace_ms=LONG)
    brief = Interest(redis, prefix=redis_prefix, grace_ms=SHORT)
    await lasting.want(["kept"])
    await brief.want(["left"])

    await until_wanted(brief, {b"kept"})


async def test_a_short_grace_does_not_cut_a_longer_one(redis: Redis, redis_prefix: str) -> None:
    lasting = Interest(redis, prefix=redis_prefix, grace_ms=LONG)
    brief = Interest(redis, prefix=redis_prefix, grace_ms=SHORT)
    await lasting.want(["kept"])

    await brief.want(["kept", "left"])

    await until_wanted(brief, {b"kept"})


async def test_only_something_new_pokes(redis: Redis, redis_prefix: str) -> None:
    interest = Interest(redis, prefix=redis_prefix, grace_ms=LONG)
    async with (
        Broadcaster(redis, prefix=redis_prefix) as broadcaster,
        broadcaster.listen(Interest.POKED) as poked,
        asyncio.timeout(10),
    ):
        await interest.want(["a", "b"])
        await interest.want(["a", "b"])
        await broadcaster.publish(Interest.POKED, b"not from interest")

        assert [await anext(poked), await anext(poked)] == [b"", b"not from interest"]


async def test_what_was_forgotten_pokes_again(redis: Redis, redis_prefix: str) -> None:
    interest = Interest(redis, prefix=redis_prefix, grace_ms=SHORT)
    async with (
        Broadcaster(redis, prefix=redis_prefix) as broadcaster,
        broadcaster.listen(Interest.POKED) as poked,
        asyncio.timeout(10),
    ):
        await interest.want(["a"])
        await until_wanted(interest, set())
        await interest.want(["a"])

        assert [await anext(poked), await anext(poked)] == [b"", b""]


async def test_past_the_bound_new_members_are_refused_and_old_ones_kept(
    redis: Redis, redis_prefix: str
) -> None:
    interest = Interest(redis, prefix=redis_prefix, grace_ms=LONG, most=3)
    await interest.want(["a", "b"])

    refused = await interest.want(["c", "a", "d", b"e"])

    assert refused == {b"d", b"e"}
    assert await interest.wanted() == {b"a", b"b", b"c"}
    assert await interest.want(["a", "b", "c"]) == set()


async def test_what_was_forgotten_makes_room(redis: Redis, redis_prefix: str) -> None:
    brief = Interest(redis, prefix=redis_prefix, grace_ms=SHORT, most=1)
    assert await brief.want(["a"]) == set()

    async with asyncio.timeout(10):
        while await brief.want(["b"]):
            await asyncio.sleep(0.005)

    assert b"a" not in await brief.wanted()


async def test_to_want_nothing_is_no_call(redis_prefix: str, tmp_path: Path) -> None:
    async with open_redis(f"unix://{tmp_path}/no.sock", 1) as redis:
        assert await Interest(redis, prefix=redis_prefix, grace_ms=LONG).want([]) == set()


@on_embedded
async def test_that_redis_is_away_is_not_taken_for_no_interest(
    redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    async with (
        cutting_proxy(redis_url, tmp_path / "redis.sock") as proxy,
        open_redis(proxy.url, 2) as redis,
    ):
        interest = Interest(redis, prefix=redis_prefix, grace_ms=LONG)
        await interest.want(["a"])
        await proxy.shut()

        with pytest.raises(RedisAway):
            await interest.wanted()
        with pytest.raises(RedisAway):
            await interest.want(["b"])

        await proxy.open()
        assert await interest.wanted() == {b"a"}
