"""Run the jobs of one lane: take them, keep them while they run, and write down how they ended."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis.exceptions import RedisError

from market.errors import BargraphError
from web.jobs.backoff import Backoff
from web.jobs.delivery import Delivery, current
from web.jobs.errors import JobInterrupted, UnknownTask, WorkerDied
from web.jobs.keys import unfinished_key
from web.jobs.message import parsed
from web.jobs.stream import JobStream, Taken
from web.request_ids import go_on_as

log = logging.getLogger(__name__)

_END_PAUSE = 1.0
_UNKNOWN_TRIES = 10
"""A task that this process does not know may be known to the next one: a release is rolled out."""


class Outcome(StrEnum):
    """What becomes of a delivery."""

    DONE = "done"
    RETRIED = "retried"
    DEAD = "dead"
    GIVEN_BACK = "given_back"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Task:
    """Work with a name: an async function of what JSON can say, tried *tries* times at the most.

    One try may take *seconds*.
    """

    name: str
    lane: str
    work: Callable[..., Coroutine[Any, Any, None]]
    tries: int
    seconds: float


class Lane:
    """The deliveries that this process has of one lane.

    A try ends in one of four ways: the job is done, waits for another try, is buried with the dead
    letters, or is given back because this process ends. One that another process took meanwhile,
    because this one was not heard of, is interrupted and left to it.
    """

    def __init__(
        self,
        stream: JobStream,
        tasks: Mapping[str, Task],
        *,
        prefix: str,
        backoff: Backoff,
        beat_seconds: float,
        count: Callable[[str, Outcome], None],
    ) -> None:
        self.stream = stream
        self._tasks = tasks
        self._prefix = prefix
        self._backoff = backoff
        self._beat_seconds = beat_seconds
        self._count = count
        self._held: dict[str, Delivery] = {}
        self._closing = False
        self._claims_from = 0.0

    @property
    def running(self) -> int:
        return len(self._held)

    async def put(self, message: bytes, *, id: str, task: str, key: str | None) -> None:
        """Queue *message*; nothing happens if an unfinished job of *task* has *key*."""
        await self.stream.put(message, id=id, key=self._key(task, key))

    async def take(self) -> Delivery | None:
        """Return the next delivery, or None after a while.

        After Redis was away no dead consumer can be told from a live one until all had the time
        for a beat, so nothing is claimed until then.
        """
        loop = asyncio.get_running_loop()
        try:
            taken = await self.stream.take(claims=loop.time() >= self._claims_from)
        except (RedisError, OSError):
            self._claims_from = math.inf
            raise
        if self._claims_from == math.inf:
            self._claims_from = loop.time() + 2 * self._beat_seconds
        if taken is None or taken.id in self._held:
            return None  # it runs here; this process was only too busy to say so
        delivery = self._read(taken)
        self._held[taken.id] = delivery
        refusal = self._refusal(delivery)
        if refusal is None:
            return delivery
        delivery.failure = refusal
        await self._end(delivery)
        return None

    async def carry_out(self, delivery: Delivery, running: Coroutine[Any, Any, None]) -> None:
        """Run what taskiq makes of *delivery*, and write down how it ended."""
        delivery.attempt = asyncio.current_task()
        current.set(delivery)
        go_on_as(delivery.job)
        if self._closing:
            running.close()
            self._held.pop(delivery.taken.id, None)
            return
        try:
            await running
        except asyncio.CancelledError:
            pass  # nobody cancels it but we, or the work itself
        except Exception as failure:
            log.exception("The job %s of %s could not be run", delivery.job, delivery.task)
            delivery.failure = failure
        await self._end(delivery)

    async def keep(self) -> None:
        """Say that the deliveries here are being worked on, and interrupt those that are lost."""
        held = [delivery for delivery in self._held.values() if not delivery.ending]
        lost = await self.stream.beat(
            [delivery.taken.id for delivery in held],
            keys=[delivery.key for delivery in held if delivery.key is not None],
        )
        for delivery in held:
            if delivery.taken.id in lost and not delivery.ending:
                log.warning("The job %s went to another process", delivery.job)
                delivery.interrupt()

    async def close(self, seconds: float) -> None:
        """Interrupt what runs, wait *seconds* for it at the most, and give it all back."""
        self._closing = True
        for delivery in list(self._held.values()):
            delivery.interrupt()
        attempts = [each.attempt for each in self._held.values() if each.attempt is not None]
        if attempts:
            await asyncio.wait(attempts, timeout=seconds)
        given = await self.stream.give_back()
        if given:
            log.info("%d %s jobs were given back", given, self.stream.name)

    def _read(self, taken: Taken) -> Delivery:
        message = parsed(taken.message)
        if message is None:
            return Delivery(taken, job="", task="", key=None)  # nothing can be made of it
        key = message.labels.get("key")
        return Delivery(
            taken, message.task_id, message.task_name, self._key(message.task_name, key)
        )

    def _refusal(self, delivery: Delivery) -> Exception | None:
        """Return why the delivery is not to be run at all."""
        task = self._tasks.get(delivery.task)
        if task is None:
            return UnknownTask(f"no task is called {delivery.task!r}")
        if self._failures_before(delivery) >= task.tries:
            return WorkerDied(
                f"{delivery.taken.deliveries - 1} processes ended in the middle of it"
            )
        return None

    @staticmethod
    def _failures_before(delivery: Delivery) -> int:
        return delivery.taken.failures + delivery.taken.deliveries - 1

    async def _end(self, delivery: Delivery) -> None:
        """Write down what became of *delivery*, however long Redis is away meanwhile."""
        delivery.ending = True
        if delivery.told and not delivery.done:
            # Whatever it raised came of being interrupted.
            self._held.pop(delivery.taken.id, None)
            self._count(delivery.task, Outcome.GIVEN_BACK if self._closing else Outcome.LOST)
            return
        if not delivery.done and delivery.failure is None:
            delivery.failure = JobInterrupted("the work was cancelled, and not by its process")
        while True:
            try:
                await self._write_end(delivery)
                break
            except (RedisError, OSError):
                if self._closing:
                    break
                await asyncio.sleep(_END_PAUSE)
        self._held.pop(delivery.taken.id, None)

    async def _write_end(self, delivery: Delivery) -> None:
        taken, failure = delivery.taken, delivery.failure
        if failure is None:
            await self.stream.done(taken.id, job=delivery.job, key=delivery.key)
            self._count(delivery.task, Outcome.DONE)
            return
        failures = self._failures_before(delivery) + 1
        task = self._tasks.get(delivery.task)
        tries = task.tries if task is not None else _UNKNOWN_TRIES if delivery.task else 1
        if failures < tries:
            after_ms = self._backoff.after_ms(failures, failure)
            await self.stream.retry(taken, failures=failures, after_ms=after_ms, key=delivery.key)
            log.info(
                "The job %s of %s failed (%s) and is tried again in %.1f s",
                *(delivery.job, delivery.task, told(failure), after_ms / 1000),
            )
            self._count(delivery.task, Outcome.RETRIED)
            return
        letter: dict[str, str | bytes | int] = {
            "job": delivery.job,
            "task": delivery.task,
            "lane": self.stream.name,
            "reason": reason_of(failure),
            "failures": min(failures, tries),
            "message": taken.message,
        }
        made_room = await self.stream.bury(
            taken.id, job=delivery.job, key=delivery.key, letter=letter
        )
        log.error("The job %s of %s was given up: %s", delivery.job, delivery.task, told(failure))
        if made_room:
            log.error("The oldest dead letter was dropped to make room")
        self._count(delivery.task, Outcome.DEAD)

    def _key(self, task: str, key: str | None) -> str | None:
        return None if key is None else unfinished_key(self._prefix, task, key)


def told(failure: Exception) -> str:
    """Return what the log says of *failure*. What is no failure of ours was logged whole before."""
    reason = reason_of(failure)
    return f"{reason}, {failure}" if isinstance(failure, BargraphError) else reason


def reason_of(failure: Exception) -> str:
    """Return what is kept of *failure*: its code, or its class. What it says may be anything."""
    return failure.code if isinstance(failure, BargraphError) else type(failure).__name__
