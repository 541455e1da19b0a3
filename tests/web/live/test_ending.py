"""How live transport ends, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from contextlib import suppress

from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.web.live.stage import PATIENCE, TICKS, Serving, served, until
from tests.web.live.test_shared import followed

LONG = "subscription { count(to: 100000, delayMs: 1) }"


async def test_going_away_closes_all_sockets_and_lets_nobody_in():
    async with served() as serving, serving.client() as one, serving.client() as two:
        await one.subscribe("1", TICKS)
        await two.subscribe("1", LONG)
        await followed(serving, 1)

        await serving.stage.live.drain(PATIENCE)

        assert await one.closed() == (1001, "Going away")
        assert await two.closed() == (1001, "Going away")
        assert serving.stage.running == 0
        assert serving.stage.tape().left == 1
        try:
            async with serving.socket():
                raise AssertionError("it was let in")
        except InvalidStatus as refused:
            assert refused.response.status_code == 503


async def test_going_away_does_not_wait_for_ever_for_one_who_will_not_go():
    async with served() as serving, serving.client() as client:
        await client.subscribe("1", "subscription { stubborn }")
        await client.answer("1")

        await serving.stage.live.drain(0.05)

        assert serving.stage.counts.frames.connections == 1
        serving.stage.began.set()
        await until(lambda: serving.stage.counts.frames.connections == 0)


async def test_after_many_have_come_and_gone_nothing_is_left():
    async with served() as serving:
        await visit(serving, random.Random(1))
        gc.collect()
        tasks, files = len(asyncio.all_tasks()), len(os.listdir("/dev/fd"))

        seeds = iter(range(60))

        async def visitors() -> None:
            for seed in seeds:
                await visit(serving, random.Random(seed))

        publishing = asyncio.create_task(publish(serving))
        await asyncio.gather(*(visitors() for _ in range(8)))
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

        stage = serving.stage
        await until(lambda: not serving.server.server_state.connections)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        gc.collect()
        assert len(os.listdir("/dev/fd")) <= files
        assert stage.running == 0
        assert all(tape.entered == tape.left for tape in stage.tapes.values())
        for tally in (stage.counts.frames, stage.counts.sse):
            assert (tally.connections, tally.operations) == (0, 0)
        assert stage.counts.groups == 0
        assert stage.counts.frames.slow == 0


async def publish(serving: Serving) -> None:
    number = 0
    while True:
        for tape in serving.stage.tapes.values():
            tape.publish(number, passing=None if number % 3 else "bar")
        number += 1
        await asyncio.sleep(0.001)


async def visit(serving: Serving, choose: random.Random) -> None:
    """Connect, ask for this and that, and leave in one way or another."""
    if choose.random() < 0.2:
        async with serving.http() as http:
            request = http.stream(
                "POST", "/graphql", json={"query": TICKS}, headers={"accept": "text/event-stream"}
            )
            async with request as response:
                await anext(response.aiter_text())
        return
    with suppress(ConnectionClosed, TimeoutError):
        async with serving.client(close_timeout=1) as client:
            for number in range(choose.randrange(5)):
                of = choose.randrange(3)
                query = choose.choice([f"subscription {{ ticks(of: {of}) {{ number }} }}", LONG])
                await client.subscribe(f"{number}", query)
                if choose.random() < 0.3:
                    await client.complete(f"{number}")
            for _ in range(choose.randrange(4)):
                async with asyncio.timeout(0.05):
                    await client.receive()
            leaving = choose.random()
            if leaving < 0.4:
                client.connection.transport.abort()
            elif leaving < 0.5:
                await client.send("not json")
