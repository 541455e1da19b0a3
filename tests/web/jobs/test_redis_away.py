"""Redis goes away, at the start or later, and jobs go on when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from datasources.live.redis_away import RedisAway
from db.embedded.servers import EmbeddedServers, embedded_servers
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.web.jobs.queues import queue_of, working
from tests.web.jobs.test_engine import Held, Work, until_empty
from web.bootstrap import open_redis
from web.jobs.engine import JOB_CONNECTIONS
from web.jobs.lane import Outcome


@pytest.fixture
async def proxy(embedded: EmbeddedServers, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(embedded.redis_url, tmp_path / "redis.sock") as proxy:
        yield proxy


@pytest.fixture
async def through(proxy: CuttingProxy) -> AsyncIterator[Redis]:
    """A client that reaches Redis through the proxy only."""
    async with open_redis(proxy.url, JOB_CONNECTIONS) as redis:
        yield redis


@pytest.fixture
async def direct(embedded: EmbeddedServers) -> AsyncIterator[Redis]:
    async with open_redis(embedded.redis_url, JOB_CONNECTIONS) as redis:
        yield redis


@pytest.fixture
def prefix() -> str:
    return f"bargraph-test-{uuid4().hex}:"


async def test_a_process_started_without_redis_runs_jobs_once_it_is_there(
    proxy, through, direct, prefix
):
    queue, asking, work = queue_of(through, prefix), queue_of(direct, prefix), Work()
    queue.task("mail", work)
    asking.task("mail", Work())
    await proxy.shut()

    async with working(queue):
        await asking.enqueue("mail", to=1)
        with pytest.raises(RedisAway):
            await queue.enqueue("mail", to=2)
        await proxy.open()
        await work.done()

    assert work.calls == [{"to": 1}]


async def test_a_job_that_ends_while_redis_is_away_is_done_when_it_is_back(
    proxy, through, direct, prefix
):
    queue, held = queue_of(through, prefix), Held()
    queue.task("fill", held)

    await queue.enqueue("fill")
    async with working(queue):
        await held.begun()
        await proxy.shut()
        held.release.set()
        await proxy.open()
        await until_empty(direct, prefix)

    assert held.starts == 1
    assert queue.ended == {("fill", Outcome.DONE): 1}


async def test_a_process_cut_off_loses_its_job_to_another_and_stops_it(
    proxy, through, direct, prefix
):
    cut_off, other = queue_of(through, prefix, idle=1.0), queue_of(direct, prefix, idle=1.0)
    held, taken_over = Held(), Held()
    cut_off.task("fill", held)
    other.task("fill", taken_over)

    await cut_off.enqueue("fill")
    async with working(cut_off):
        await held.begun()
        await proxy.shut()
        async with working(other):
            await taken_over.begun()
            await proxy.open()
            await asyncio.wait_for(held.interrupted.wait(), 30)
            taken_over.release.set()
            await until_empty(direct, prefix)

    assert cut_off.ended == {("fill", Outcome.LOST): 1}
    assert other.ended == {("fill", Outcome.DONE): 1}


async def test_an_outage_longer_than_the_silence_allowed_makes_nobody_run_a_job_twice(
    embedded, tmp_path, prefix
):
    idle = 3.0
    async with (
        cutting_proxy(embedded.redis_url, tmp_path / "a.sock") as proxy,
        open_redis(proxy.url, JOB_CONNECTIONS) as redis,
        open_redis(proxy.url, JOB_CONNECTIONS) as redis_of_other,
    ):
        queue = queue_of(redis, prefix, idle=idle)
        other = queue_of(redis_of_other, prefix, idle=idle)
        held = Held()
        for each in (queue, other):
            each.task("fill", held)

        await queue.enqueue("fill")
        async with working(queue, other):
            await held.begun()
            await proxy.shut()
            await asyncio.sleep(1.5 * idle)  # the outage itself
            await proxy.open()
            await asyncio.sleep(2 * idle)  # whoever would claim it, would by now
            held.release.set()
            await until_empty(redis, prefix)

    assert held.starts == 1


async def test_jobs_survive_the_death_of_the_embedded_server(tmp_path, prefix):
    async with (
        embedded_servers(tmp_path) as servers,
        open_redis(servers.redis_url, JOB_CONNECTIONS) as redis,
    ):
        queue, held, work = queue_of(redis, prefix), Held(), Work()
        queue.task("fill", held)
        queue.task("mail", work)
        async with working(queue):
            await queue.enqueue("fill", key="1")
            await held.begun()
            for number in range(20):
                await queue.enqueue("mail", key=str(number), number=number)
            os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)
            held.release.set()
            await until_empty(redis, prefix)

    assert held.starts == 1
    assert {call["number"] for call in work.calls} == set(range(20))
