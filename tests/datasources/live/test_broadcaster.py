"""What is sent reaches whoever listens, or the listener is told that it may not have."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count, pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from datasources.live.broadcaster import Appended, Break, Broadcaster, Inbox
from datasources.live.leases import Lease, Leases
from datasources.live.redis_keys import channel_name, lease_key, log_key
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from web.bootstrap import open_redis

on_embedded = pytest.mark.parametrize("redis_url", ["embedded"], indirect=True, scope="session")

PATIENCE = 20
"""Seconds after which what a test waits for is not coming."""


@pytest.fixture
async def broadcaster(redis: Redis, redis_prefix: str) -> AsyncIterator[Broadcaster]:
    async with Broadcaster(redis, prefix=redis_prefix) as broadcaster:
        yield broadcaster


@pytest.fixture
async def other(redis_url: str, redis_prefix: str) -> AsyncIterator[Broadcaster]:
    """The broadcaster of a second process."""
    async with (
        open_redis(redis_url, 5) as redis,
        Broadcaster(redis, prefix=redis_prefix) as broadcaster,
    ):
        yield broadcaster


@pytest.fixture
async def proxy(redis_url: str, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(redis_url, tmp_path / "redis.sock") as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(proxy: CuttingProxy, redis_prefix: str) -> AsyncIterator[Broadcaster]:
    async with (
        open_redis(proxy.url, 5) as redis,
        Broadcaster(redis, prefix=redis_prefix, ping_every=0.05) as broadcaster,
    ):
        yield broadcaster


@pytest.fixture
async def lease(redis: Redis, redis_prefix: str) -> Lease:
    granted = await Leases(redis, prefix=redis_prefix, owner="a", ttl_ms=600_000).acquire("feed")
    assert granted is not None
    return granted


async def taken(inbox: Inbox, number: int) -> list[bytes | Break]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(inbox) for _ in range(number)]


async def until_subscribers(redis: Redis, prefix: str, channel: str, number: int) -> None:
    name = channel_name(prefix, channel)
    async with asyncio.timeout(PATIENCE):
        while (await redis.pubsub_numsub(name))[0][1] != number:
            await asyncio.sleep(0.005)


class TestListening:
    async def test_messages_arrive_in_order_and_byte_for_byte(
        self, broadcaster: Broadcaster, other: Broadcaster
    ) -> None:
        sent = [bytes(range(256)), b"", b"\r\n", *(b"%d" % i for i in range(50))]
        async with broadcaster.listen("a") as inbox:
            for message in sent:
                assert await other.publish("a", message)

            assert await taken(inbox, len(sent)) == sent

    async def test_many_messages_of_one_call_arrive_in_order_on_their_channels(
        self, broadcaster: Broadcaster, other: Broadcaster
    ) -> None:
        async with broadcaster.listen("a") as a, broadcaster.listen("b") as b:
            assert await other.publish_many([("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4")])

            assert await taken(a, 2) == [b"1", b"3"]
            assert await taken(b, 1) == [b"2"]

    async def test_another_prefix_is_another_world(
        self, broadcaster: Broadcaster, redis: Redis, redis_prefix: str
    ) -> None:
        async with (
            Broadcaster(redis, prefix=f"{redis_prefix}else:") as elsewhere,
            broadcaster.listen("a") as inbox,
        ):
            await elsewhere.publish("a", b"not for us")
            await broadcaster.publish("a", b"for us")

            assert await taken(inbox, 1) == [b"for us"]

    async def test_inboxes_of_a_channel_share_one_subscription_until_the_last_has_left(
        self, broadcaster: Broadcaster, redis: Redis, redis_prefix: str
    ) -> None:
        async with broadcaster.listen("a") as first:
            async with broadcaster.listen("a") as second:
                await until_subscribers(redis, redis_prefix, "a", 1)
                await broadcaster.publish("a", b"1")
                assert await taken(second, 1) == [b"1"]
            await broadcaster.publish("a", b"2")

            assert await taken(first, 2) == [b"1", b"2"]
            await until_subscribers(redis, redis_prefix, "a", 1)
        await until_subscribers(redis, redis_prefix, "a", 0)

    async def test_whoever_entered_gets_what_is_sent_however_many_come_and_go(
        self, broadcaster: Broadcaster, other: Broadcaster, redis: Redis, redis_prefix: str
    ) -> None:
        chance = random.Random(7)

        async def come_and_go(listener: int) -> None:
            for turn in range(25):
                channel = chance.choice("abc")
                mine = b"%d %d" % (listener, turn)
                async with broadcaster.listen(channel) as inbox:
                    await chance.choice((broadcaster, other)).publish(channel, mine)
                    async with asyncio.timeout(PATIENCE):
                        while (item := await anext(inbox)) != mine:
                            assert isinstance(item, bytes)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)

        await asyncio.gather(*(come_and_go(listener) for listener in range(30)))

        for channel in "abc":
            await until_subscribers(redis, redis_prefix, channel, 0)

    async def test_whoever_gives_up_entering_leaves_nothing_behind(
        self, broadcaster: Broadcaster, redis: Redis, redis_prefix: str
    ) -> None:
        async def enter() -> None:
            async with broadcaster.listen("a"):
                raise AssertionError("it was cancelled before")

        entering = asyncio.create_task(enter())
        await asyncio.sleep(0)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

        async with broadcaster.listen("b"):
            await until_subscribers(redis, redis_prefix, "a", 0)

    @on_embedded
    async def test_a_thousand_inboxes_take_one_connection_and_none_from_the_pool(
        self, redis_url: str, redis: Redis, redis_prefix: str
    ) -> None:
        async with (
            open_redis(redis_url, 1) as narrow,
            Broadcaster(narrow, prefix=redis_prefix) as broadcaster,
            AsyncExitStack() as stack,
        ):
            inboxes = await asyncio.gather(
                *(
                    stack.enter_async_context(broadcaster.listen(f"channel {i % 250}"))
                    for i in range(1000)
                )
            )
            assert await broadcaster.publish_many([(f"channel {i}", b"%d" % i) for i in range(250)])

            for i, inbox in enumerate(inboxes):
                assert await taken(inbox, 1) == [b"%d" % (i % 250)]
            listening = await redis.client_list(_type="pubsub")
            assert [client["sub"] for client in listening if client["sub"] == "250"] == ["250"]
            counts = narrow.connection_pool.get_connection_count()
            assert sum(count for count, _ in counts) == 1

    async def test_a_burst_overflows_nobody_who_reads(
        self, redis: Redis, redis_prefix: str, other: Broadcaster
    ) -> None:
        sent = [b"%d" % i for i in range(5000)]
        async with (
            Broadcaster(redis, prefix=redis_prefix, inbox_length=250) as broadcaster,
            broadcaster.listen("a") as inbox,
        ):
            reading = asyncio.create_task(taken(inbox, len(sent)))

            await other.publish_many([("a", message) for message in sent])

            assert await reading == sent

    async def test_a_listener_that_does_not_read_slows_nobody(
        self, redis: Redis, redis_prefix: str
    ) -> None:
        sent = [b"%d" % i for i in range(100)]
        async with (
            Broadcaster(redis, prefix=redis_prefix, inbox_length=10) as broadcaster,
            broadcaster.listen("a") as slow,
            broadcaster.listen("a") as quick,
        ):
            heard: list[bytes | Break] = []
            for message in sent:
                await broadcaster.publish("a", message)
                heard += await taken(quick, 1)

            assert heard == sent
            (first, *rest) = await taken(slow, 2)
            assert first is Break.OVERFLOW
            assert rest[0] in sent

    async def test_the_end_of_the_broadcaster_ends_its_inboxes(
        self, redis: Redis, redis_prefix: str
    ) -> None:
        async with AsyncExitStack() as stack:
            async with Broadcaster(redis, prefix=redis_prefix) as broadcaster:
                inbox = await stack.enter_async_context(broadcaster.listen("a"))
                await broadcaster.publish("a", b"never read")

            assert [item async for item in inbox] == []
            async with broadcaster.listen("b") as late:
                assert [item async for item in late] == []

    async def test_it_ends_at_once_though_listeners_leave_at_that_moment(
        self, redis: Redis, redis_prefix: str
    ) -> None:
        async with asyncio.timeout(PATIENCE):
            for turn in range(100):
                async with Broadcaster(redis, prefix=redis_prefix) as broadcaster:
                    async with broadcaster.listen("a"):
                        pass
                    for _ in range(turn % 10):
                        await asyncio.sleep(0)

        assert [t for t in asyncio.all_tasks() if "Redis" in t.get_name()] == []


@on_embedded
class TestBreaks:
    async def test_a_lost_connection_is_told_and_so_is_its_return(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy, broadcaster: Broadcaster
    ) -> None:
        async with behind_proxy.listen("a") as a, behind_proxy.listen("b") as b:
            await broadcaster.publish_many([("a", b"1"), ("b", b"2")])
            assert (await taken(a, 1), await taken(b, 1)) == ([b"1"], [b"2"])
            await proxy.shut()
            assert (await taken(a, 1), await taken(b, 1)) == ([Break.AWAY], [Break.AWAY])
            assert not behind_proxy.connected
            await broadcaster.publish("a", b"lost")

            await proxy.open()

            assert (await taken(a, 1), await taken(b, 1)) == ([Break.BACK], [Break.BACK])
            assert behind_proxy.connected
            await broadcaster.publish_many([("a", b"3"), ("b", b"4")])
            assert (await taken(a, 1), await taken(b, 1)) == ([b"3"], [b"4"])

    async def test_a_connection_cut_again_and_again_never_hides_a_loss(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy, broadcaster: Broadcaster
    ) -> None:
        """Two messages in a row without a break between them were sent in a row."""
        heard: list[bytes | Break] = []
        numbers = count()

        async def hear(inbox: Inbox) -> None:
            async for item in inbox:
                heard.append(item)
                if item == b"end":
                    return

        async with behind_proxy.listen("a") as inbox, asyncio.timeout(PATIENCE):
            hearing = asyncio.create_task(hear(inbox))
            for _ in range(5):
                for _ in range(20):
                    await broadcaster.publish("a", b"%d" % next(numbers))
                connections = proxy.connections
                await proxy.cut()
                while proxy.connections == connections:
                    await broadcaster.publish("a", b"%d" % next(numbers))
                    await asyncio.sleep(0)
            while not hearing.done():
                await broadcaster.publish("a", b"end")

        assert heard.count(Break.AWAY) == heard.count(Break.BACK) >= 5
        for one, next_one in pairwise(heard[: heard.index(b"end")]):
            if isinstance(one, bytes) and isinstance(next_one, bytes):
                assert int(next_one) == int(one) + 1

    async def test_whoever_enters_while_redis_is_away_need_not_wait(
        self, redis_prefix: str, redis_url: str, tmp_path: Path, broadcaster: Broadcaster
    ) -> None:
        async with (
            cutting_proxy(redis_url, tmp_path / "late.sock") as proxy,
            open_redis(proxy.url, 2) as redis,
        ):
            await proxy.shut()
            async with (
                Broadcaster(redis, prefix=redis_prefix) as late,
                late.listen("a") as first,
                late.listen("a") as second,
            ):
                assert await taken(first, 1) == [Break.AWAY]
                assert await taken(second, 1) == [Break.AWAY]
                await proxy.open()
                assert await taken(first, 1) == [Break.BACK]
                await broadcaster.publish("a", b"1")

                assert await taken(first, 1) == [b"1"]
                assert await taken(second, 2) == [Break.BACK, b"1"]

    async def test_a_connection_that_died_without_a_word_is_noticed(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy
    ) -> None:
        async with behind_proxy.listen("a") as inbox:
            proxy.stall()

            assert await taken(inbox, 1) == [Break.AWAY]
            async with behind_proxy.listen("b") as entered_meanwhile:
                assert await taken(entered_meanwhile, 1) == [Break.AWAY]
            proxy.flow()
            assert await taken(inbox, 1) == [Break.BACK]

    async def test_who_waits_for_a_confirmation_on_a_dead_connection_is_let_in(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy
    ) -> None:
        async with behind_proxy.listen("a"):
            proxy.stall()

            async with asyncio.timeout(PATIENCE), behind_proxy.listen("b") as inbox:
                assert await taken(inbox, 1) == [Break.AWAY]

    async def test_a_quiet_connection_that_lives_is_not_taken_for_a_dead_one(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy, redis: Redis
    ) -> None:
        async def pings() -> int:
            return (await redis.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0)

        async with behind_proxy.listen("a") as inbox, asyncio.timeout(PATIENCE):
            before, connections = await pings(), proxy.connections
            while await pings() < before + 10:
                await asyncio.sleep(0.01)
            await behind_proxy.publish("a", b"1")

            assert await taken(inbox, 1) == [b"1"]
            assert proxy.connections <= connections + 1  # the pool's, to publish

    async def test_publishing_while_redis_is_away_says_so(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy
    ) -> None:
        await proxy.shut()

        assert not await behind_proxy.publish("a", b"1")
        assert not await behind_proxy.publish_many([("a", b"1")])
        assert await behind_proxy.publish_many([])

    async def test_that_redis_is_away_and_back_is_logged_once(
        self,
        behind_proxy: Broadcaster,
        proxy: CuttingProxy,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async with behind_proxy.listen("a") as inbox:
            await proxy.shut()
            await taken(inbox, 1)
            for _ in range(3):
                await behind_proxy.publish("a", b"1")
            await proxy.open()
            await taken(inbox, 1)

        said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert [" ".join(line.split()[:3]) for line in said] == ["Redis is away,", "Redis is back,"]


class TestLog:
    async def test_what_is_appended_is_published_and_kept(
        self, broadcaster: Broadcaster, other: Broadcaster, lease: Lease
    ) -> None:
        async with other.listen("a") as inbox:
            for position, previous in ((3, 0), (4, 3), (9, 4)):
                appended = await broadcaster.append(
                    "a", b"%d" % position, position=position, previous=previous, lease=lease
                )
                assert appended is Appended.APPENDED

            assert await taken(inbox, 3) == [b"3", b"4", b"9"]
        assert await other.since("a", 0) == [(3, b"3"), (4, b"4"), (9, b"9")]
        assert await other.since("a", 3) == [(4, b"4"), (9, b"9")]
        assert await other.since("a", 9) == []
        assert await other.newest("a") == 9

    async def test_an_entry_that_begins_before_the_position_counts_as_connected(
        self, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        await broadcaster.append("a", b"x", position=9, previous=4, lease=lease)

        assert await broadcaster.since("a", 6) == [(9, b"x")]
        assert await broadcaster.since("a", 4) == [(9, b"x")]
        assert await broadcaster.since("a", 3) is None

    async def test_nothing_is_known_of_a_log_that_is_not_there_or_not_so_far(
        self, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        await broadcaster.append("a", b"x", position=9, previous=4, lease=lease)

        assert await broadcaster.since("a", 10) is None
        assert await broadcaster.since("b", 0) is None
        assert await broadcaster.newest("b") is None

    async def test_what_is_appended_again_is_published_again_and_kept_once(
        self, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        async with broadcaster.listen("a") as inbox:
            for position in (1, 2, 1, 2, 2):
                appended = await broadcaster.append(
                    "a", b"%d" % position, position=position, previous=position - 1, lease=lease
                )
                assert appended is Appended.APPENDED

            assert await taken(inbox, 5) == [b"1", b"2", b"1", b"2", b"2"]
        assert await broadcaster.since("a", 0) == [(1, b"1"), (2, b"2")]

    async def test_a_log_that_misses_something_begins_anew(
        self, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        await broadcaster.append("a", b"1", position=1, previous=0, lease=lease)

        appended = await broadcaster.append("a", b"5", position=5, previous=4, lease=lease)

        assert appended is Appended.RESTARTED
        assert await broadcaster.since("a", 1) is None
        assert await broadcaster.since("a", 4) == [(5, b"5")]

    async def test_a_log_of_another_past_begins_anew(
        self, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        """A store that was restored counts again from where it was."""
        for position in (1, 2, 3):
            await broadcaster.append(
                "a", b"%d" % position, position=position, previous=position - 1, lease=lease
            )

        appended = await broadcaster.append("a", b"else", position=2, previous=1, lease=lease)

        assert appended is Appended.RESTARTED
        assert await broadcaster.since("a", 0) is None
        assert await broadcaster.since("a", 1) == [(2, b"else")]
        assert await broadcaster.since("a", 3) is None

    async def test_whoever_lost_the_lease_neither_appends_nor_publishes(
        self, redis: Redis, redis_prefix: str, broadcaster: Broadcaster
    ) -> None:
        brief = Leases(redis, prefix=redis_prefix, owner="a", ttl_ms=30)
        first = await brief.acquire("feed")
        assert first is not None
        async with broadcaster.listen("a") as inbox:
            lasting = Leases(redis, prefix=redis_prefix, owner="b", ttl_ms=60_000)
            async with asyncio.timeout(PATIENCE):
                while (second := await lasting.acquire("feed")) is None:
                    await asyncio.sleep(0.005)

            late = await broadcaster.append("a", b"late", position=1, previous=0, lease=first)
            new = await broadcaster.append("a", b"new", position=1, previous=0, lease=second)

            assert (late, new) == (Appended.FENCED, Appended.APPENDED)
            assert await taken(inbox, 1) == [b"new"]
        assert await broadcaster.since("a", 0) == [(1, b"new")]

    async def test_whoever_let_the_lease_end_appends_nothing_though_nobody_took_it(
        self, redis: Redis, redis_prefix: str, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        await Leases(redis, prefix=redis_prefix, owner="a").release(lease)

        appended = await broadcaster.append("a", b"late", position=1, previous=0, lease=lease)

        assert appended is Appended.FENCED
        assert await redis.exists(log_key(redis_prefix, "a")) == 0

    async def test_a_lease_that_came_back_with_an_old_state_of_redis_is_fenced_by_the_log(
        self, redis: Redis, redis_prefix: str, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        await broadcaster.append("a", b"1", position=1, previous=0, lease=lease)
        older = Lease(lease.name, lease.token - 1)
        await redis.set(lease_key(redis_prefix, lease.name), f"{older.token}:b")

        appended = await broadcaster.append("a", b"2", position=2, previous=1, lease=older)

        assert appended is Appended.FENCED
        assert await broadcaster.since("a", 0) == [(1, b"1")]

    async def test_a_full_log_forgets_its_oldest_entries_and_says_so(
        self, redis: Redis, redis_prefix: str, lease: Lease
    ) -> None:
        broadcaster = Broadcaster(redis, prefix=redis_prefix, log_length=20)
        for position in range(1, 301):
            await broadcaster.append(
                "a", b"%d" % position, position=position, previous=position - 1, lease=lease
            )

        assert await redis.xlen(log_key(redis_prefix, "a")) < 200
        assert await broadcaster.since("a", 0) is None
        assert await broadcaster.since("a", 279) is None
        expected = [(position, b"%d" % position) for position in range(281, 301)]
        assert await broadcaster.since("a", 280) == expected

    async def test_a_log_nobody_appends_to_vanishes(
        self, redis: Redis, redis_prefix: str, broadcaster: Broadcaster, lease: Lease
    ) -> None:
        key = log_key(redis_prefix, "a")
        await broadcaster.append("a", b"1", position=1, previous=0, lease=lease)
        await redis.expire(key, 10)

        await broadcaster.append("a", b"2", position=2, previous=1, lease=lease)

        assert await redis.ttl(key) > 10

    @pytest.mark.parametrize(("position", "previous"), [(0, 0), (1, 1), (1, 2), (1, -1)])
    async def test_a_position_has_to_follow_the_previous_one(
        self, broadcaster: Broadcaster, lease: Lease, position: int, previous: int
    ) -> None:
        with pytest.raises(ValueError, match="does not follow"):
            await broadcaster.append("a", b"", position=position, previous=previous, lease=lease)

    @on_embedded
    async def test_while_redis_is_away_nothing_is_appended_or_known(
        self, behind_proxy: Broadcaster, proxy: CuttingProxy, lease: Lease
    ) -> None:
        await behind_proxy.append("a", b"1", position=1, previous=0, lease=lease)
        await proxy.shut()

        appended = await behind_proxy.append("a", b"2", position=2, previous=1, lease=lease)

        assert appended is Appended.AWAY
        assert await behind_proxy.since("a", 0) is None
        assert await behind_proxy.newest("a") is None
        await proxy.open()
        assert await behind_proxy.since("a", 0) == [(1, b"1")]

    @settings(
        deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        entries=st.lists(
            st.tuples(st.integers(0, 12), st.integers(1, 4), st.integers(0, 1)), max_size=12
        )
    )
    async def test_a_log_gives_all_changes_since_a_position_or_nothing(
        self,
        broadcaster: Broadcaster,
        lease: Lease,
        entries: list[tuple[int, int, int]],
    ) -> None:
        """Each entry tells of the changes *previous* + 1 to *position*, by one of two pasts.

        What `since` returns has to tell of every change past a position.
        """
        channel = uuid4().hex
        log: list[tuple[int, int, bytes]] = []
        for previous, length, past in entries:
            position = previous + length
            message = b"past %d" % past
            again = (previous, position, message) in log
            connects = not log or previous <= log[-1][1] < position

            appended = await broadcaster.append(
                channel, message, position=position, previous=previous, lease=lease
            )

            assert (appended is Appended.APPENDED) == (connects or again)
            if not again:
                log = [*(log if connects else ()), (previous, position, message)]

        newest = log[-1][1] if log else -1
        for after in range(18):
            told = await broadcaster.since(channel, after)

            # Entries connect, so those past a position tell of all after it if the first does.
            past_it = [entry for entry in log if entry[1] > after]
            if after == newest or (past_it and past_it[0][0] <= after):
                assert told == [(position, message) for _, position, message in past_it]
            else:
                assert told is None


async def test_feeds_that_speak_while_redis_hangs_do_not_wait_for_each_other(
    proxy: CuttingProxy, redis_prefix: str
) -> None:
    async with (
        open_redis(proxy.url, 10) as redis,
        Broadcaster(redis, prefix=redis_prefix) as broadcaster,
    ):
        await broadcaster.publish("warm", b"up")
        proxy.stall()
        before = proxy.connections
        saying = [asyncio.create_task(broadcaster.say(f"{n}", b"hung")) for n in range(5)]
        async with asyncio.timeout(PATIENCE):
            while proxy.connections < before + 4:
                await asyncio.sleep(0.01)

        proxy.flow()
        await asyncio.gather(*saying)
