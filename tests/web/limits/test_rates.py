"""Rates: what is admitted, what it costs Redis, and what holds while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from db.embedded.servers import EmbeddedServers
from tests.cutting_proxy import cutting_proxy
from web.bootstrap import open_redis
from web.limits.leases import LEASED_FOR, RateLimits
from web.limits.rates import Group, Rate, RateLimited, Rates, rates_of
from web.limits.windows import Grant, LocalWindows, RedisWindows, Want

ADDRESS = "203.0.113.7"


class Hand:
    """A clock that only a test moves, in seconds."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


class Counted:
    """Windows that count how often they are asked."""

    def __init__(self, inner: LocalWindows | RedisWindows) -> None:
        self._inner = inner
        self.calls = 0
        self.largest = 0

    async def take(self, wants: Sequence[Want]) -> list[Grant]:
        self.calls += 1
        self.largest = max(self.largest, *(want.hits + want.more for want in wants))
        return await self._inner.take(wants)


def only(group: Group, amount: int, seconds: int = 60, *, account: int = 0) -> Rates:
    rates = {group: Rate(amount, seconds)}
    return Rates(address=rates, user=rates, account={group: Rate(account, seconds)})


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
async def redis(embedded: EmbeddedServers) -> AsyncIterator[Redis]:
    async with open_redis(embedded.redis_url, 10) as client:
        yield client


def shared(redis: Redis) -> Counted:
    """Windows under keys of their own."""
    return Counted(RedisWindows(redis, prefix=f"bargraph-test-{uuid4().hex}:rates"))


async def admitted(limits: RateLimits, times: int, **who: str | None) -> int:
    """Return how many of so many queries are admitted."""
    count = 0
    for _ in range(times):
        try:
            await limits.admit({Group.QUERIES: 1}, **({"address": ADDRESS} | who))
        except RateLimited:
            continue
        count += 1
    return count


async def spent(limits: RateLimits, group: Group) -> int:
    """Return how often *group* is admitted until it is refused."""
    for count in range(1_000):
        try:
            await limits.admit({group: 1}, address=ADDRESS)
        except RateLimited:
            return count
    raise AssertionError("It never was.")


@pytest.mark.parametrize("amount", [1, 7, 100])
async def test_exactly_as_many_are_admitted_as_the_rate_says(redis: Redis, amount: int) -> None:
    limits = RateLimits(only(Group.QUERIES, amount), shared(redis))

    assert await admitted(limits, amount + 50) == amount


async def test_a_refusal_says_when_to_come_again(redis: Redis) -> None:
    limits = RateLimits(only(Group.QUERIES, 2), shared(redis))
    await admitted(limits, 2)

    with pytest.raises(RateLimited) as refused:
        await limits.admit({Group.QUERIES: 1}, address=ADDRESS)

    failure = refused.value
    assert (failure.code, failure.status) == ("RATE_LIMITED", 429)
    assert 60 <= failure.retry_after <= 91  # two hits fade evenly over the minute after this one
    assert failure.headers == {"retry-after": str(failure.retry_after)}
    assert failure.facts == {"retryAfter": failure.retry_after}
    assert "2" in str(failure)


async def test_whoever_waits_as_long_as_told_is_admitted(redis: Redis) -> None:
    windows = RedisWindows(redis, prefix=f"bargraph-test-{uuid4().hex}:rates")
    want = Want("someone", Rate(3, 1), hits=1)
    for _ in range(3):
        await windows.take([want])
    (refused,) = await windows.take([want])

    # Redis counts by its own clock, which no test can move.
    await asyncio.sleep(refused.wait + 0.01)
    (again,) = await windows.take([want])

    assert refused.hits == 0
    assert again.hits == 1


async def test_a_lease_spares_redis(redis: Redis) -> None:
    windows = shared(redis)
    limits = RateLimits(only(Group.QUERIES, 600), windows)

    assert await admitted(limits, 400) == 400

    # 1, 2, 4, 8, 16, then 30 at a time: a twentieth of the rate.
    assert windows.largest == 30
    assert windows.calls == 5 + 13


async def test_no_request_asks_redis_twice(redis: Redis) -> None:
    windows = shared(redis)
    limits = RateLimits(only(Group.LOGIN, 60, account=60), windows)

    for calls in range(1, 10):
        before = windows.calls
        await limits.admit({Group.LOGIN: 1}, address=ADDRESS, account=f"ann-{calls}")
        assert windows.calls - before <= 1


async def test_one_call_to_redis_is_one_batch_of_scripts(redis: Redis) -> None:
    windows = RedisWindows(redis, prefix=f"bargraph-test-{uuid4().hex}:rates")
    wants = [Want(name, Rate(10), hits=1, more=1) for name in ("a", "b")]
    await windows.take(wants)
    before = await redis.info("commandstats")

    await windows.take(wants)

    after = await redis.info("commandstats")
    calls = {
        name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
        for name in after
        if name in {"cmdstat_evalsha", "cmdstat_eval"} or "script" in name
    }
    assert {name: count for name, count in calls.items() if count} == {"cmdstat_evalsha": 6}


async def test_a_burst_shares_what_one_of_it_asked_for(redis: Redis, hand: Hand) -> None:
    windows = shared(redis)
    limits = RateLimits(only(Group.QUERIES, 2_000), windows, now=hand)

    await asyncio.gather(*(limits.admit({Group.QUERIES: 1}, address=ADDRESS) for _ in range(500)))

    assert windows.calls <= 12


async def test_who_is_refused_costs_redis_nothing_until_there_is_room(hand: Hand) -> None:
    windows = Counted(LocalWindows(now=hand))
    limits = RateLimits(only(Group.QUERIES, 3), windows, now=hand)
    await admitted(limits, 4)
    calls = windows.calls

    assert await admitted(limits, 1_000) == 0
    assert windows.calls == calls

    hand.at += 120
    assert await admitted(limits, 1) == 1


async def test_processes_share_a_rate_but_for_a_lease_each(redis: Redis) -> None:
    prefix = f"bargraph-test-{uuid4().hex}:rates"
    rates = only(Group.QUERIES, 200)
    processes = [RateLimits(rates, RedisWindows(redis, prefix=prefix)) for _ in range(4)]

    counts = [0] * 4
    for _ in range(100):
        for n, process in enumerate(processes):
            counts[n] += await admitted(process, 1)

    assert sum(counts) == 200
    assert min(counts) > 0


async def test_a_lease_that_is_not_spent_in_time_is_void_and_the_next_one_smaller(
    hand: Hand,
) -> None:
    windows = Counted(LocalWindows(now=hand))
    limits = RateLimits(only(Group.QUERIES, 600), windows, now=hand)
    await admitted(limits, 20)
    calls = windows.calls

    hand.at += LEASED_FOR + 1
    windows.largest = 0
    await admitted(limits, 1)

    assert windows.calls == calls + 1
    assert windows.largest == 8


async def test_a_rare_caller_is_not_charged_for_more_than_it_asks(hand: Hand) -> None:
    limits = RateLimits(only(Group.QUERIES, 60), LocalWindows(now=hand), now=hand)

    for _ in range(180):
        assert await admitted(limits, 1) == 1
        hand.at += 1.1


async def test_each_address_group_user_and_account_has_its_own_window(hand: Hand) -> None:
    rates = Rates(
        address={group: Rate(2) for group in Group},
        user={Group.QUERIES: Rate(5)},
        account={Group.LOGIN: Rate(3)},
    )
    limits = RateLimits(rates, LocalWindows(now=hand), now=hand)

    assert await admitted(limits, 9) == 2
    assert await admitted(limits, 9, address="203.0.113.8") == 2
    assert await admitted(limits, 9, user="ann") == 5
    assert await admitted(limits, 9, user="bob") == 5
    await limits.admit({Group.MUTATIONS: 1}, address=ADDRESS)
    for n in range(3):
        await limits.admit({Group.LOGIN: 1}, address=f"203.0.113.{n}", account="Ann")
    with pytest.raises(RateLimited):
        await limits.admit({Group.LOGIN: 1}, address="203.0.113.99", account=" ann ")
    await limits.admit({Group.LOGIN: 1}, address="203.0.113.99", account="bob")


async def test_several_at_once_count_as_several(redis: Redis) -> None:
    windows = shared(redis)
    limits = RateLimits(only(Group.LOGIN, 10), windows)

    await limits.admit({Group.LOGIN: 8}, address=ADDRESS)
    with pytest.raises(RateLimited):
        await limits.admit({Group.LOGIN: 3}, address=ADDRESS)
    with pytest.raises(RateLimited):
        await limits.admit({Group.LOGIN: 11}, address="203.0.113.8")

    assert windows.calls == 3


@pytest.mark.parametrize(("before", "at_once"), [(93, 4), (98, 3)])
async def test_what_is_refused_at_once_takes_nothing_from_what_follows(
    redis: Redis, before: int, at_once: int
) -> None:
    limits = RateLimits(only(Group.QUERIES, 100), shared(redis))
    await admitted(limits, before)
    several = 0

    for _ in range(3):
        with suppress(RateLimited):
            await limits.admit({Group.QUERIES: at_once}, address=ADDRESS)
            several += at_once

    assert before + several + await admitted(limits, 50) == 100


async def test_several_groups_of_one_request_take_one_call_and_stand_or_fall_together(
    redis: Redis,
) -> None:
    windows = shared(redis)
    rates = {Group.MUTATIONS: Rate(10), Group.LOGIN: Rate(2)}
    limits = RateLimits(Rates(address=rates, user={}, account={}), windows)

    await limits.admit({Group.MUTATIONS: 1, Group.LOGIN: 2}, address=ADDRESS)
    assert windows.calls == 1
    with pytest.raises(RateLimited) as refused:
        await limits.admit({Group.MUTATIONS: 1, Group.LOGIN: 1}, address=ADDRESS)

    assert refused.value.group is Group.LOGIN
    assert await spent(limits, Group.MUTATIONS) == 9


async def test_no_address_and_a_rate_of_nothing_are_no_limit(hand: Hand) -> None:
    windows = Counted(LocalWindows(now=hand))

    assert await admitted(RateLimits(only(Group.QUERIES, 1), windows), 50, address=None) == 50
    assert await admitted(RateLimits(only(Group.QUERIES, 0), windows), 50) == 50
    assert windows.calls == 0


async def test_without_redis_each_process_goes_on_within_the_rate(
    embedded: EmbeddedServers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="web.limits.leases")
    hand = Hand()
    async with (
        cutting_proxy(embedded.redis_url, tmp_path / "redis.sock") as proxy,
        open_redis(proxy.url, 4) as redis,
    ):
        windows = shared(redis)
        limits = RateLimits(only(Group.QUERIES, 40), windows, now=hand)
        assert await admitted(limits, 10) == 10

        await proxy.shut()
        hand.at += 60
        before = windows.calls
        away = await admitted(limits, 100)
        tries = windows.calls - before

        await proxy.open()
        hand.at += 120
        back = await admitted(limits, 1)

    assert away == 40
    assert tries == 1  # and not again for a second
    assert back == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_redis_that_answers_nothing_is_not_waited_for_long(
    embedded: EmbeddedServers, tmp_path: Path
) -> None:
    async with (
        cutting_proxy(embedded.redis_url, tmp_path / "redis.sock") as proxy,
        open_redis(proxy.url, 4) as redis,
    ):
        limits = RateLimits(only(Group.QUERIES, 40), shared(redis), patience=0.05)
        proxy.stall()

        async with asyncio.timeout(1.5):  # a call to Redis alone may take two seconds
            assert await admitted(limits, 100) == 40


async def test_scripts_that_redis_forgot_are_given_again(redis: Redis) -> None:
    limits = RateLimits(only(Group.QUERIES, 5), shared(redis))
    await admitted(limits, 2)
    await redis.script_flush()

    assert await admitted(limits, 50) == 3


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 8)), max_size=60))
def test_a_local_window_never_admits_more_than_twice_its_rate_in_any_period(
    steps: list[tuple[float, int]],
) -> None:
    hand = Hand()
    windows = LocalWindows(now=hand)
    rate = Rate(10, 60)
    taken: list[tuple[float, int]] = []

    async def run() -> None:
        for later, hits in steps:
            hand.at += later
            (grant,) = await windows.take([Want("someone", rate, hits)])
            if grant.hits:
                taken.append((hand.at, grant.hits))
            else:
                hand.at += grant.wait + 1e-6
                (again,) = await windows.take([Want("someone", rate, hits)])
                assert again.hits == hits
                taken.append((hand.at, hits))

    asyncio.run(run())

    for at, _ in taken:
        # Of the period before, a window remembers how many, not when.
        assert sum(hits for when, hits in taken if at <= when < at + 60) <= 2 * rate.amount


def test_defaults_admit_a_hundred_a_minute_of_everything_open_to_all() -> None:
    rates = rates_of(queries=1_200, mutations=300, sockets=1_200, logins=100)

    for group in (Group.QUERIES, Group.MUTATIONS, Group.SOCKETS, Group.LOGIN):
        assert rates.address[group].amount >= 100
        assert rates.address[group].seconds == 60
    assert rates.account[Group.LOGIN].amount < rates.address[Group.LOGIN].amount
    assert not any(
        rate.amount
        for rate in rates_of(queries=0, mutations=0, sockets=0, logins=0).account.values()
    )
