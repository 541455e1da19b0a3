"""Which processes run jobs, and what one that does nothing else serves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from db.embedded.servers import EmbeddedServers
from tests.conftest import scratch_database
from tests.web.serving import SERVE, Serving, serving, start
from web.bootstrap import open_redis
from web.jobs.workers import Worker, Workers


@asynccontextmanager
async def served(
    folder: Path, role: str, embedded: EmbeddedServers, database_url: str, prefix: str
) -> AsyncIterator[Serving]:
    process = await asyncio.to_thread(
        start,
        folder,
        (*SERVE, "--role", role),
        database_url=database_url,
        redis_url=embedded.redis_url,
        redis_prefix=prefix,
        data_dir=folder,
    )
    try:
        yield await asyncio.to_thread(serving, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


async def listed(url: str, prefix: str, *, count: int) -> list[Worker]:
    """Wait until *count* processes run jobs, and return them."""
    async with open_redis(url, 2) as redis, asyncio.timeout(30):
        workers = Workers(redis, prefix=prefix, name="", idle_ms=0)
        while len(found := await workers.listed()) != count:
            await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize("role", ["jobs", "all"])
async def test_a_process_that_runs_jobs_is_in_the_set_until_it_is_stopped(
    embedded: EmbeddedServers, database_url: str, tmp_path, role
):
    url, prefix = embedded.redis_url, f"{role}-test:"
    async with served(tmp_path, role, embedded, database_url, prefix) as running:
        [worker] = await listed(url, prefix, count=1)

        running.send(signal.SIGTERM)
        status, _ = await asyncio.to_thread(running.end)
        left = await listed(url, prefix, count=0)

    assert f"-{running.process.pid}-" in worker.name
    assert status == 0
    assert left == []


async def test_a_process_that_only_runs_jobs_tells_of_itself_and_answers_no_clients(
    embedded: EmbeddedServers, database_url: str, tmp_path
):
    url, prefix = embedded.redis_url, "only-jobs-test:"
    async with (
        served(tmp_path, "jobs", embedded, database_url, prefix) as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        await listed(url, prefix, count=1)
        metrics = (await client.get("/metrics")).text
        ready = await client.get("/readyz")
        answer = await client.post("/graphql", json={"query": "{ __typename }"})

    assert ready.status_code == 200
    assert answer.status_code == 404
    assert 'bargraph_jobs{state="running"}' in metrics
    assert 'bargraph_live{what="feeds"}' not in metrics
