"""The jobs of this process, and of all as it last saw them, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from web.jobs.engine import JobQueue


class JobsCollector(Collector):
    """Reads a queue at every scrape; Redis is not asked for it."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        queue = self._queue
        ended = CounterMetricFamily(
            "bargraph_jobs_ended",
            "Tries of jobs in this process; outcome is done, retried, dead, given_back or lost.",
            labels=["task", "outcome"],
        )
        for (task, outcome), count in queue.ended.items():
            ended.add_metric([task, outcome], count)
        yield ended
        jobs = GaugeMetricFamily(
            "bargraph_jobs",
            "Jobs that are running here; and in all processes ready or running, waiting for "
            "another try, given up.",
            labels=["state"],
        )
        states = {
            "running": queue.running,
            "ready": queue.ready,
            "later": queue.later,
            "dead": queue.dead,
        }
        for state, count in states.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(
            "bargraph_job_workers",
            "Processes that run jobs, as this one last saw them.",
            value=queue.workers.live,
        )
