"""Processes that run jobs and are killed in the middle of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from tests.db.embedded.processes import CHECKOUT
from tests.web.jobs.queues import dead, queue_of
from tests.web.jobs.test_engine import Work, until_empty
from web.jobs.engine import LONG, JobQueue

KILLS = 20 if os.environ.get("BARGRAPH_CHAOS") else 3
NOTES = 1_000
IDLE = 1.0


class Workers:
    """Processes as `tests.web.jobs.worker`, over one Redis."""

    def __init__(self, redis: Redis, url: str, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self._url = url

    def start(self) -> int:
        command = (sys.executable, "-m", "tests.web.jobs.worker", self._url, self.prefix)
        process = subprocess.Popen((*command, str(IDLE)), cwd=CHECKOUT, start_new_session=True)
        self.running[process.pid] = process
        return process.pid

    async def end(self, pid: int, number: int = signal.SIGKILL) -> None:
        process = self.running.pop(pid)
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 30)

    async def told(self, what: str, count: int) -> list[int]:
        """Wait until *count* processes at least told of *what*, and return them."""
        async with asyncio.timeout(60):
            while len(pids := await self.redis.lrange(self.prefix + what, 0, -1)) < count:
                await asyncio.sleep(0.02)
        return [int(pid) for pid in pids]

    async def release(self) -> None:
        """Let the jobs called `wait` end."""
        await self.redis.set(f"{self.prefix}released", 1)


@asynccontextmanager
async def workers(redis: Redis, url: str, prefix: str) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        running = Workers(redis, url, prefix)

        async def end_all() -> None:
            for pid in list(running.running):
                await running.end(pid)

        stack.push_async_callback(end_all)
        yield running


def asking(redis: Redis, prefix: str) -> JobQueue:
    """Return a queue that knows the tasks of `tests.web.jobs.worker`, and runs none."""
    queue = queue_of(redis, prefix)
    queue.task("note", Work())
    queue.task("wait", Work(), lane=LONG)
    return queue


async def test_a_job_whose_process_was_killed_is_finished_by_another(
    redis, redis_url, redis_prefix
):
    queue = asking(redis, redis_prefix)
    async with workers(redis, redis_url, redis_prefix) as running:
        running.start(), running.start()

        await queue.enqueue("wait")
        [first] = await running.told("started", 1)
        await running.end(first)
        started = await running.told("started", 2)
        await running.release()
        finished = await running.told("finished", 1)
        await until_empty(redis, redis_prefix, LONG)

    assert started[1] != first
    assert finished == started[1:]


async def test_a_job_that_kills_its_processes_is_given_up(redis, redis_url, redis_prefix):
    queue = asking(redis, redis_prefix)
    async with workers(redis, redis_url, redis_prefix) as running:
        running.start()

        await queue.enqueue("wait")
        for kills in (1, 2):
            await running.told("started", kills)
            await running.end(next(iter(running.running)))
            running.start()
        [letter] = await dead(queue)

    assert (letter.task, letter.reason) == ("wait", "WORKER_DIED")
    assert await redis.llen(f"{redis_prefix}started") == 2


async def test_a_process_told_to_stop_hands_its_job_on_without_the_wait_for_the_dead(
    redis, redis_url, redis_prefix
):
    queue = queue_of(redis, redis_prefix)
    other, work = queue_of(redis, redis_prefix), Work()
    queue.task("wait", Work(), lane=LONG)
    other.task("wait", work, lane=LONG, tries=1)
    async with workers(redis, redis_url, redis_prefix) as running:
        pid = running.start()
        await queue.enqueue("wait")
        await running.told("started", 1)

        await running.end(pid, signal.SIGINT)
        # It allows a silence of a minute, and a single try: only what was given back is its to run.
        task = asyncio.create_task(other.run())
        await work.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert len(work.calls) == 1


async def test_killed_processes_lose_no_job(redis, redis_url, redis_prefix):
    queue = asking(redis, redis_prefix)
    pick = random.Random(1)
    async with workers(redis, redis_url, redis_prefix) as running:
        running.start(), running.start()
        for number in range(NOTES):
            await queue.enqueue("note", number=number)

        for kill in range(KILLS):
            goal = (kill + 1) * NOTES // (KILLS + 1)
            async with asyncio.timeout(60):
                while await redis.scard(f"{redis_prefix}noted") < goal:
                    await asyncio.sleep(0.005)
            await running.end(pick.choice(list(running.running)))
            running.start()
        await until_empty(redis, redis_prefix)

    noted = {int(number) for number in await redis.smembers(f"{redis_prefix}noted")}
    assert noted == set(range(NOTES))
    assert await queue.dead_letters.listed() == []


async def test_the_dead_leave_the_set_of_workers_and_the_group(redis, redis_url, redis_prefix):
    queue = asking(redis, redis_prefix)
    async with workers(redis, redis_url, redis_prefix) as running:
        killed, left = running.start(), running.start()
        async with asyncio.timeout(60):
            while len(await queue.workers.listed()) < 2:
                await asyncio.sleep(0.02)

        await running.end(killed)
        async with asyncio.timeout(60):
            while len(found := await queue.workers.listed()) > 1:
                await asyncio.sleep(0.02)
        consumers = await redis.xinfo_consumers(f"{redis_prefix}jobs:short:ready", "jobs")

    assert [worker.name for worker in found] == [f"worker-{left}"]
    assert f"worker-{killed}".encode() not in [consumer["name"] for consumer in consumers]
