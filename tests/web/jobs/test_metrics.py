"""What `/metrics` shows of jobs."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from tests.web.jobs.queues import dead, queue_of, working
from tests.web.jobs.test_engine import Held, Work
from web.jobs.metrics import JobsCollector


async def test_running_ended_and_dead_jobs_are_counted(redis, redis_prefix):
    queue, held, work = queue_of(redis, redis_prefix, idle=0.4), Held(), Work(failures=1)
    queue.task("fill", held)
    queue.task("mail", work, tries=1)
    registry = CollectorRegistry()
    registry.register(JobsCollector(queue))

    def shown(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    await queue.enqueue("fill")
    await queue.enqueue("mail")
    async with working(queue), asyncio.timeout(30):
        await held.begun()
        await dead(queue)
        while shown("bargraph_jobs", state="dead") != 1 or shown("bargraph_job_workers") != 1:
            await asyncio.sleep(0.02)
        running = shown("bargraph_jobs", state="running")
        held.release.set()

    assert running == 1
    assert shown("bargraph_jobs_ended_total", task="mail", outcome="dead") == 1
