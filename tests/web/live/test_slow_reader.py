"""A client that stops reading: what it gets, what it costs, and who notices."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from tests.web.live.stage import PATIENCE, TICKS, Client, Serving, served, until
from tests.web.live.test_shared import followed, numbers
from web.live.limits import LiveLimits

TEXT = "x" * 10_000
LIMITS = LiveLimits(outbox_count=50, outbox_bytes=10_000_000, stall=PATIENCE)


@pytest.fixture(params=["frames", "asgi"])
async def serving(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    ws = {} if request.param == "frames" else {"ws": "websockets-sansio"}
    async with served(LIMITS, send_buffer=4096, **ws) as serving:
        yield serving


def slow(serving: Serving) -> int:
    return serving.stage.counts.frames.slow + serving.stage.counts.websocket.slow


async def rest(client: Client) -> tuple[list[int], int | None]:
    """Return the numbers of all ticks until the socket is closed, and the code."""
    got: list[int] = []
    try:
        while True:
            got.append((await client.answer("1"))["data"]["ticks"]["number"])
    except ConnectionClosed as closed:
        return got, closed.rcvd.code if closed.rcvd else None


async def test_it_is_closed_when_what_it_must_not_miss_finds_no_room_and_others_notice_nothing(
    serving,
):
    async with serving.narrow() as lazy, serving.client() as keen:
        for client in (lazy, keen):
            await client.subscribe("1", TICKS)
        await followed(serving, 2)

        for number in range(200):
            serving.stage.tape().publish(number, TEXT)
            assert await numbers(keen, "1", 1) == [number]
        assert slow(serving) == 1
        got, code = await rest(lazy)

        # It read all up to some event, and is told that there were more.
        assert got == list(range(len(got)))
        assert len(got) < 200
        assert code == 1013
        await followed(serving, 1)


async def test_it_gets_the_newest_of_what_passes_and_all_else_in_order(serving):
    async with serving.narrow() as lazy, serving.client() as keen:
        for client in (lazy, keen):
            await client.subscribe("1", TICKS)
        await followed(serving, 2)
        closing = {number for number in range(400) if number % 20 == 19}

        for number in range(400):
            passing = None if number in closing else ("bar", number // 20)
            serving.stage.tape().publish(number, TEXT, passing)
            assert await numbers(keen, "1", 1) == [number]
        got: list[int] = []
        while 399 not in got:
            got += await numbers(lazy, "1", 1)

        assert got == sorted(got)
        assert closing <= set(got)
        assert len(got) < 400
        counts = serving.stage.counts
        assert counts.frames.conflated + counts.websocket.conflated == 400 - len(got)
        assert slow(serving) == 0
        assert await lazy.alive()


async def test_what_waits_for_it_is_dropped_when_it_wants_no_more(serving):
    async with serving.narrow() as lazy, serving.client() as keen:
        for client in (lazy, keen):
            await client.subscribe("1", TICKS)
        await followed(serving, 2)
        for number in range(40):
            serving.stage.tape().publish(number, TEXT)
        await numbers(keen, "1", 40)

        await lazy.complete("1")
        await followed(serving, 1)
        await lazy.subscribe("1", "{ hello }")

        got = 0
        while "ticks" in (answer := await lazy.answer("1"))["data"]:
            assert answer["data"]["ticks"]["number"] == got
            got += 1
        assert answer == {"data": {"hello": "hello world"}}
        assert got < 40


async def test_its_own_large_events_wait_for_it(serving):
    async with serving.narrow() as lazy:
        await lazy.subscribe("1", "subscription { flood(to: 400, size: 10000) { number text } }")
        await lazy.answer("1")

        assert serving.stage.flooded < 390
        for number in range(1, 400):
            assert (await lazy.answer("1"))["data"]["flood"]["number"] == number
        assert slow(serving) == 0


async def test_one_that_makes_no_progress_is_closed():
    limits = LiveLimits(stall=0.2)
    async with served(limits, send_buffer=4096) as serving, serving.narrow() as lazy:
        await lazy.subscribe("1", "subscription { flood(to: 400, size: 10000) { number text } }")

        await until(lambda: serving.stage.counts.frames.slow == 1)
        await until(lambda: serving.stage.counts.frames.connections == 0)

        assert serving.stage.flooded < 390


async def test_one_that_never_reads_again_is_dropped():
    limits = LiveLimits(stall=0.2)
    async with served(limits, send_buffer=4096) as serving, serving.narrow() as lazy:
        await lazy.subscribe("1", "subscription { flood(to: 400, size: 10000) { number text } }")

        await until(lambda: not serving.server.server_state.connections)

        assert serving.stage.counts.frames.slow == 1


async def test_one_that_pings_and_never_reads_is_closed():
    limits = LiveLimits(outbox_count=20)
    async with served(limits, send_buffer=4096) as serving, serving.narrow() as lazy:
        ping = {"type": "ping", "payload": {"x": TEXT}}

        for _ in range(200):
            await lazy.send(ping)

        await until(lambda: serving.stage.counts.frames.slow == 1)


async def test_a_message_larger_than_all_room_is_sent_to_one_who_reads():
    limits = LiveLimits(outbox_bytes=1_000)
    async with served(limits, send_buffer=4096) as serving, serving.client() as client:
        for operation in ("1", "2"):
            await client.subscribe(operation, "{ large(size: 300000) }")

        for operation in ("1", "2"):
            assert len((await client.answer(operation))["data"]["large"]) == 300_000
