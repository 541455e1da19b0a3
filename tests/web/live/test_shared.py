"""Operations over one tail: executed once, encoded once, and each caught up by itself."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from market.errors import ProviderUnavailable
from tests.web.live.stage import TICKS, Client, Serving, Tick, served, until
from web.live.limits import LiveLimits

RESUMING = """
subscription Resume($of: Int!, $from: Int, $told: Boolean = false) {
  ...Ticks
}
fragment Ticks on Subscription { ticks(of: $of, after: $from) { number told @include(if: $told) } }
"""


async def numbers(client: Client, id: str, count: int) -> list[int]:
    """Return the numbers of the next *count* ticks of *id*."""
    return [(await client.answer(id))["data"]["ticks"]["number"] for _ in range(count)]


async def followed(serving: Serving, members: int) -> None:
    """Wait until *members* operations share their tails and have caught up."""
    groups = serving.stage.live._groups._groups.values()
    await until(
        lambda: (
            sum(len(group.members) for group in groups) == members
            and all(member._kept is None for group in groups for member in group.members)
        )
    )


async def test_an_event_is_executed_and_encoded_once_for_fifty_sockets():
    async with served() as serving, AsyncExitStack() as stack:
        tape, counts = serving.stage.tape(), serving.stage.counts
        clients = [await stack.enter_async_context(serving.client()) for _ in range(50)]
        for number, client in enumerate(clients):
            await client.subscribe(f"op-{number}", "subscription { ticks(of: 1) { number told } }")
        await followed(serving, 50)
        sent = counts.frames.sent

        for number in range(10):
            tape.publish(number)
        got = [
            [await client.answer(f"op-{number}") for _ in range(10)]
            for number, client in enumerate(clients)
        ]

        expected = [{"data": {"ticks": {"number": n, "told": n + 1}}} for n in range(10)]
        assert got == [expected] * 50
        assert counts.shared_executions == 10
        assert serving.stage.asked == 10
        assert tape.entered == counts.groups == 1
        # All of them left as frames that were written past ASGI.
        assert counts.frames.sent - sent == 500
        assert counts.websocket.sent == 0


async def test_where_a_viewer_resumes_does_not_keep_it_from_sharing():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.history = [Tick(number=number, text="") for number in (1, 2, 3)]
        for operation, start in (("all", None), ("some", 2), ("none", 3)):
            await client.subscribe(operation, RESUMING, variables={"of": 1, "from": start})
        await followed(serving, 3)

        tape.publish(4)

        assert await numbers(client, "all", 4) == [1, 2, 3, 4]
        assert await numbers(client, "some", 2) == [3, 4]
        assert await numbers(client, "none", 1) == [4]
        assert tape.entered == 1
        assert serving.stage.counts.shared_executions == 1
        assert serving.stage.counts.own_executions == 4


@pytest.mark.parametrize(
    "other",
    [
        {"query": RESUMING, "variables": {"of": 2}},
        {"query": RESUMING, "variables": {"of": 1, "told": True}},
        {"query": RESUMING.replace("number", "n: number"), "variables": {"of": 1}},
    ],
    ids=["another tail", "another variable", "another document"],
)
async def test_what_differs_is_not_shared(other: dict[str, Any]):
    async with served() as serving, serving.client() as client:
        await client.subscribe("1", RESUMING, variables={"of": 1})
        await client.subscribe("2", **other)

        await followed(serving, 2)

        assert serving.stage.counts.groups == 2


async def test_what_comes_while_a_viewer_catches_up_follows_the_catch_up():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.history = [Tick(number=1, text=""), Tick(number=2, text="")]
        tape.reading.clear()
        await client.subscribe("slow", TICKS)
        assert await numbers(client, "slow", 1) == [1]

        for number in (3, 4, 5):
            tape.publish(number)
        await until(lambda: serving.stage.counts.shared_executions == 3)
        tape.reading.set()

        assert await numbers(client, "slow", 4) == [2, 3, 4, 5]


async def test_what_the_catch_up_told_is_not_told_again():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.history = [Tick(number=1, text=""), Tick(number=2, text="")]
        tape.reading.clear()
        await client.subscribe("slow", TICKS)
        assert await numbers(client, "slow", 1) == [1]

        for number in (1, 2, 3):
            tape.publish(number)
        await until(lambda: serving.stage.counts.shared_executions == 3)
        tape.reading.set()

        assert await numbers(client, "slow", 2) == [2, 3]


async def test_what_has_become_obsolete_while_a_viewer_catches_up_is_not_sent():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.history = [Tick(number=1, text="")]
        tape.reading.clear()
        await client.subscribe("slow", TICKS)
        await client.answer("slow")

        for number, passing in ((2, "bar"), (3, "bar"), (4, None), (5, "bar"), (6, "bar")):
            tape.publish(number, passing=passing)
        await until(lambda: serving.stage.counts.shared_executions == 5)
        tape.reading.set()

        # The newest goes where it belongs: after what was told before it.
        assert await numbers(client, "slow", 2) == [4, 6]


async def test_a_viewer_whose_catch_up_cannot_keep_up_is_cut_off():
    async with served(LiveLimits(outbox_count=3)) as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.history = [Tick(number=1, text="")]
        tape.reading.clear()
        await client.subscribe("slow", TICKS)
        await client.answer("slow")

        for number in range(2, 6):
            tape.publish(number)

        assert await client.closed() == (1013, "Too slow: messages were not read in time")
        assert serving.stage.counts.frames.slow == 1


async def test_the_tail_goes_on_without_the_viewer_who_began_it():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        async with serving.client() as first:
            await first.subscribe("1", TICKS)
            await followed(serving, 1)
            await client.subscribe("2", TICKS)
            await followed(serving, 2)
        await followed(serving, 1)

        tape.publish(7)

        assert await numbers(client, "2", 1) == [7]
        assert (tape.entered, tape.left) == (1, 0)


async def test_the_last_to_leave_ends_the_tail_and_the_next_begins_a_new_one():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        await client.subscribe("1", TICKS)
        await client.subscribe("2", TICKS)
        await followed(serving, 2)

        await client.complete("1")
        await client.complete("2")
        await until(lambda: tape.left == 1)
        assert serving.stage.counts.groups == 0
        await client.subscribe("1", TICKS)
        await followed(serving, 1)
        tape.publish(1)

        assert await numbers(client, "1", 1) == [1]
        assert tape.entered == 2


async def test_a_viewer_who_leaves_while_catching_up_closes_its_catch_up_and_the_tail():
    async with served() as serving:
        tape = serving.stage.tape()
        tape.history = [Tick(number=1, text=""), Tick(number=2, text="")]
        tape.reading.clear()
        async with serving.client() as client:
            await client.subscribe("1", TICKS)
            await client.answer("1")

        await until(lambda: (tape.caught_up, tape.left) == (1, 1))
        assert serving.stage.counts.groups == 0


async def test_a_viewer_who_leaves_before_the_tail_is_joined_ends_the_joining():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.gate.clear()
        await client.subscribe("1", TICKS)
        await until(lambda: serving.stage.counts.groups == 1)

        await client.complete("1")

        await until(lambda: serving.stage.counts.groups == 0)
        tape.gate.set()
        assert await client.alive()
        assert tape.entered == 0


@pytest.mark.parametrize(
    ("ended", "last"),
    [
        (None, {"type": "complete", "id": "1"}),
        (ProviderUnavailable("sim", "gone"), "PROVIDER_UNAVAILABLE"),
        (RuntimeError("password=hunter2"), "INTERNAL"),
    ],
)
async def test_the_end_of_the_tail_is_the_end_of_all_its_operations(ended, last):
    async with served() as serving, serving.client() as client, serving.client() as other:
        tape = serving.stage.tape()
        for each in (client, other):
            await each.subscribe("1", TICKS)
        await followed(serving, 2)

        tape.publish(1)
        tape.put(ended)

        for each in (client, other):
            assert await numbers(each, "1", 1) == [1]
            message = await each.of("1")
            if ended is None:
                assert message == last
            else:
                (error,) = message["payload"]
                assert error["extensions"]["code"] == last
                assert error["path"] == ["ticks"]
                assert "hunter2" not in str(message)
            assert await each.alive()
        assert serving.stage.counts.groups == 0


async def test_a_tail_that_ends_during_a_catch_up_does_not_cut_it_short():
    async with served() as serving, serving.client() as client:
        tape = serving.stage.tape()
        tape.history = [Tick(number=1, text=""), Tick(number=2, text="")]
        tape.reading.clear()
        await client.subscribe("1", TICKS)
        await client.answer("1")
        tape.publish(3)
        tape.put(None)
        await until(lambda: tape.left == 1)

        tape.reading.set()

        assert await numbers(client, "1", 2) == [2, 3]
        assert (await client.of("1"))["type"] == "complete"


async def test_a_tail_that_cannot_be_joined_is_an_error():
    async with served() as serving, serving.client() as client:
        serving.stage.tape().refuses = ProviderUnavailable("sim", "away")
        await client.subscribe("1", TICKS)

        (error,) = (await client.of("1"))["payload"]

    assert error["extensions"]["code"] == "PROVIDER_UNAVAILABLE"


async def test_every_event_has_a_context_of_its_own():
    # One that went on would add up what all events cost, until no more may be answered.
    async with served() as serving, serving.client() as client:
        await client.subscribe("1", TICKS)
        await followed(serving, 1)
        made = serving.stage.contexts

        for number in range(5):
            serving.stage.tape().publish(number)
        await numbers(client, "1", 5)

        assert serving.stage.contexts == made + 5


async def test_metrics_tell_what_goes_on():
    async with served() as serving, serving.client() as client:
        await client.subscribe("1", TICKS)
        await followed(serving, 1)
        serving.stage.tape().publish(1)
        await client.answer("1")

        metric = serving.stage.metric
        assert metric("bargraph_live_connections", transport="websocket") == 1
        assert metric("bargraph_live_operations", transport="websocket") == 1
        assert metric("bargraph_live_messages_total", transport="websocket") == 2
        assert metric("bargraph_live_slow_closes_total", transport="websocket") == 0
        assert metric("bargraph_live_executions_total", kind="shared") == 1
        assert metric("bargraph_live_groups") == 1
