"""The queue of jobs: tasks are registered, jobs enqueued, and run here if this process runs jobs.

taskiq says what a message looks like and runs what is delivered, as many at once as it may;
`LaneBroker` brings deliveries out of Redis and `Lane` ends them.

A job runs at least once. It may run again if its process died, was not heard of for *idle* or
could not write down that it was done, so its work must bear that: name rows by their ids, and look
whether the work is still to be done. Arguments are ids, never secrets: they stand in Redis.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from taskiq.acks import AcknowledgeType
from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker

from datasources.live.redis_away import RedisAway
from market.errors import BargraphError
from web.jobs.backoff import Backoff
from web.jobs.broker import LaneBroker, LaneReceiver
from web.jobs.dead_letters import DeadLetters
from web.jobs.delivery import current
from web.jobs.errors import UnknownTask
from web.jobs.lane import Lane, Outcome, Task
from web.jobs.stream import JobStream
from web.jobs.workers import Workers

log = logging.getLogger(__name__)

SHORT, LONG = "short", "long"
_AT_ONCE = {SHORT: 8, LONG: 2}
"""Jobs of each lane that run at once in a process: what takes hours keeps no mail waiting."""
JOB_CONNECTIONS = 8
"""For each lane one that waits for jobs; the others write down how jobs ended, and enqueue."""
_MOST_BYTES = 4_096
_END_SECONDS = 1.0
"""What interrupted work gets to end; the process has 5 seconds for everything."""


class JobQueue:
    """The jobs of a server, seen from one of its processes, called *worker*.

    A delivery of which nothing was heard for *idle* seconds may go to another process.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        worker: str,
        idle: float = 20.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.workers = Workers(redis, prefix=prefix, name=worker, idle_ms=int(idle * 1000))
        self.dead_letters = DeadLetters(redis, prefix=prefix)
        self._beat_seconds = idle / 4
        self._tasks: dict[str, Task] = {}
        self._lanes: dict[str, Lane] = {}
        self._brokers: dict[str, LaneBroker] = {}
        for name in _AT_ONCE:
            stream = JobStream(
                redis, name, prefix=prefix, consumer=worker, idle_ms=int(idle * 1000)
            )
            lane = Lane(
                stream,
                self._tasks,
                prefix=prefix,
                backoff=backoff or Backoff(),
                beat_seconds=self._beat_seconds,
                count=self._count,
            )
            self._lanes[name] = lane
            self._brokers[name] = LaneBroker(lane)
        self.ready = self.later = self.dead = 0
        """Jobs that are ready or run, wait for another try, were given up, as of the last beat."""
        self.ended: Counter[tuple[str, Outcome]] = Counter()
        """What became of the deliveries to this process, by task."""

    @property
    def running(self) -> int:
        """How many jobs run in this process."""
        return sum(lane.running for lane in self._lanes.values())

    def task(
        self,
        name: str,
        work: Callable[..., Coroutine[Any, Any, None]],
        *,
        lane: str = SHORT,
        tries: int = 10,
        seconds: float = 600.0,
    ) -> None:
        """Let *work* be what jobs called *name* do.

        It is called with the arguments of the job, by name. If it raises, it is tried again after a
        pause that doubles, up to *tries* times, and then goes to the dead letters. One try may
        take *seconds*. What may take longer than a minute belongs into the lane `LONG`. A process
        that ends cancels it and gives the job back, which does not count as a try.
        """
        if name in self._tasks:
            raise ValueError(f"two tasks are called {name}")
        task = Task(name, lane, work, tries, seconds)

        async def attempt(**arguments: Any) -> None:
            delivery = current.get()
            try:
                async with asyncio.timeout(task.seconds):
                    await task.work(**arguments)
                delivery.done = True
            except asyncio.CancelledError:
                return  # the lane knows whether that was its doing
            except Exception as failure:
                if not isinstance(failure, BargraphError):
                    log.exception("The job %s of %s failed", delivery.job, name)
                delivery.failure = failure

        self._tasks[name] = task
        self._brokers[lane].register_task(attempt, task_name=name)

    async def enqueue(self, name: str, *, key: str | None = None, **arguments: Any) -> None:
        """Queue a job of the task *name*, to be run soon by any process that runs jobs.

        *arguments* are what JSON can say, 4096 characters together at the most. While a job of the
        task with the same *key* is unfinished, nothing is queued. Raises `UnknownTask`,
        `JobsFull`, and `RedisAway`, after which the job may be queued all the same.
        """
        task = self._tasks.get(name)
        if task is None:
            raise UnknownTask(f"no task is called {name!r}")
        if len(json.dumps(arguments)) > _MOST_BYTES:
            raise ValueError(f"the arguments of a job take {_MOST_BYTES} characters at most")
        labels = {} if key is None else {"key": key}
        kicker: AsyncKicker[Any, Any] = AsyncKicker(name, self._brokers[task.lane], labels)
        try:
            await kicker.kiq(**arguments)
        except SendTaskError as error:
            cause = error.__cause__ or error
            if isinstance(cause, RedisError | OSError):
                raise RedisAway(f"the job may not be queued: {type(cause).__name__}") from cause
            raise cause from None

    async def run(self) -> None:
        """Run jobs until cancelled; what runs then is interrupted and given back.

        While Redis is away none are taken, and those that run go on.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for name, lane in self._lanes.items():
                    receiver = LaneReceiver(
                        self._brokers[name],
                        lane,
                        max_async_tasks=_AT_ONCE[name],
                        run_startup=False,
                        validate_params=False,
                        ack_type=AcknowledgeType.MANUAL,
                    )
                    group.create_task(receiver.listen(asyncio.Event()), name=f"{name} jobs")
                group.create_task(self._beat(), name="beat of jobs")
        finally:
            await self._give_back()

    async def _beat(self) -> None:
        while True:
            try:
                for lane in self._lanes.values():
                    await lane.keep()
                for dead in await self.workers.beat():
                    await self._forget(dead)
                depths = [await lane.stream.depth() for lane in self._lanes.values()]
                self.ready = sum(ready for ready, _ in depths)
                self.later = sum(later for _, later in depths)
                self.dead = await self.dead_letters.count()
            except (RedisError, OSError):
                pass  # the listeners say so; the next beat tries again
            await asyncio.sleep(self._beat_seconds)

    def _count(self, task: str, outcome: Outcome) -> None:
        # The names of unknown tasks come from outside: told apart, they would grow without bound.
        self.ended[task if task in self._tasks else "unknown", outcome] += 1

    async def _forget(self, worker: str) -> None:
        """Remove *worker* everywhere, unless it still has jobs that nobody took."""
        if all([await lane.stream.forget(worker) for lane in self._lanes.values()]):
            await self.workers.remove(worker)

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS + 1):
                await asyncio.gather(*(lane.close(_END_SECONDS) for lane in self._lanes.values()))
                # As long as others have not taken all that was given back, it counts as dead, and
                # is removed by the first of them to see it empty.
                await self._forget(self.workers.name)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("Jobs could not be given back: %s", type(error).__name__)
