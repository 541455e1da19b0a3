"""Jobs run at least once, are tried again, and are given up in the end, over a real Redis."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import Counter
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from market.errors import BargraphError
from tests.web.jobs.queues import dead, queue_of, working
from web.jobs.backoff import Backoff
from web.jobs.engine import LONG
from web.jobs.errors import JobsFull, UnknownTask
from web.jobs.keys import later_key, ready_key, unfinished_key
from web.jobs.lane import Outcome
from web.jobs.stream import MOST_WAITING
from web.logs import logging_to


class Refused(BargraphError):
    code = "REFUSED"


class Work:
    """Work that fails so many times, and says how often and with what it was called."""

    def __init__(self, failures: int = 0, failure: Exception | None = None) -> None:
        self.calls: list[dict] = []
        self.finished = asyncio.Event()
        self._failures = failures
        self._failure = failure or Refused("not now")

    async def __call__(self, **arguments) -> None:
        self.calls.append(arguments)
        if len(self.calls) <= self._failures:
            raise self._failure
        self.finished.set()

    async def done(self) -> None:
        await asyncio.wait_for(self.finished.wait(), 30)


class Held:
    """Work that goes on until it is let go, and says whether it was interrupted."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.interrupted = asyncio.Event()
        self.starts = 0

    async def __call__(self) -> None:
        self.starts += 1
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.interrupted.set()
            raise

    async def begun(self) -> None:
        await asyncio.wait_for(self.started.wait(), 30)


async def until_empty(redis: Redis, prefix: str, lane: str = "short") -> None:
    """Wait until no job of *lane* is unfinished."""

    async def unfinished() -> bool:
        try:
            ready = await redis.xlen(ready_key(prefix, lane))
            return bool(ready or await redis.zcard(later_key(prefix, lane)))
        except (RedisError, OSError):
            return True  # it may be away

    async with asyncio.timeout(30):
        while await unfinished():
            await asyncio.sleep(0.02)


async def test_a_job_runs_with_its_arguments_and_leaves_nothing(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work()
    queue.task("mail", work)

    await queue.enqueue("mail", to=7, kinds=["a", "b"])
    async with working(queue):
        await work.done()
        await until_empty(redis, redis_prefix)

    assert work.calls == [{"to": 7, "kinds": ["a", "b"]}]
    assert await queue.dead_letters.listed() == []


async def test_a_job_enqueued_before_anybody_ran_jobs_is_not_lost(redis, redis_prefix):
    asking, running, work = (
        queue_of(redis, redis_prefix),
        queue_of(redis, redis_prefix),
        Work(),
    )
    asking.task("mail", Work())
    running.task("mail", work)

    await asking.enqueue("mail", to=1)
    async with working(running):
        await work.done()

    assert work.calls == [{"to": 1}]


async def test_a_failed_job_is_tried_again_until_it_succeeds(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work(failures=3)
    queue.task("mail", work)

    await queue.enqueue("mail", to=1)
    async with working(queue):
        await work.done()
        await until_empty(redis, redis_prefix)

    assert work.calls == [{"to": 1}] * 4
    assert queue.ended == {("mail", Outcome.RETRIED): 3, ("mail", Outcome.DONE): 1}


async def test_each_line_that_is_logged_for_a_job_carries_its_id(redis, redis_prefix):
    queue, said = queue_of(redis, redis_prefix), io.StringIO()

    async def work() -> None:
        logging.getLogger("work").info("at it")
        raise Refused("never")

    queue.task("mail", work)

    with logging_to(said, level="info", form="json"):
        await queue.enqueue("mail")
        async with working(queue):
            (letter,) = await dead(queue)

    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    told = {line["event"].split(" (")[0] for line in lines if line.get("request_id") == letter.job}
    assert {"at it", f"The job {letter.job} of mail was given up: REFUSED, never"} <= told
    assert "request_id" not in str([line for line in lines if letter.job not in str(line)])


async def test_a_failed_job_waits_for_its_pause(redis, redis_prefix):
    queue = queue_of(redis, redis_prefix, backoff=Backoff(first_ms=600_000))
    work = Work(failures=1)
    queue.task("mail", work)

    await queue.enqueue("mail", to=1)
    async with working(queue), asyncio.timeout(30):
        while not await redis.zcard(later_key(redis_prefix, "short")):
            await asyncio.sleep(0.02)

    [(_, due)] = await redis.zrange(later_key(redis_prefix, "short"), 0, -1, withscores=True)
    seconds, microseconds = await redis.time()
    assert 200_000 < due - (seconds * 1000 + microseconds // 1000) <= 600_000
    assert len(work.calls) == 1


async def test_a_job_that_always_fails_is_given_up_with_its_code(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work(failures=99)
    queue.task("mail", work, tries=3)

    await queue.enqueue("mail", to=1)
    async with working(queue):
        [letter] = await dead(queue)

    assert len(work.calls) == 3
    assert (letter.task, letter.reason, letter.failures) == ("mail", "REFUSED", 3)
    assert letter.arguments == {"to": 1}


async def test_a_dead_letter_keeps_nothing_that_an_exception_said(redis, redis_prefix):
    queue = queue_of(redis, redis_prefix)
    queue.task("mail", Work(failures=99, failure=RuntimeError("the password is xyzzy")), tries=1)

    await queue.enqueue("mail", to=1)
    async with working(queue):
        [letter] = await dead(queue)

    assert letter.reason == "RuntimeError"
    assert "xyzzy" not in repr(letter)


async def test_a_replayed_job_has_all_its_tries_again(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work(failures=3)
    queue.task("mail", work, tries=2)
    await queue.enqueue("mail", to=1)
    async with working(queue):
        [letter] = await dead(queue)

        queued = await queue.dead_letters.replay(letter)
        await work.done()

    assert queued
    assert len(work.calls) == 4
    assert await queue.dead_letters.listed() == []


async def test_a_key_lets_a_job_be_queued_once_until_it_is_done(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work()
    queue.task("fill", work)

    for _ in range(3):
        await queue.enqueue("fill", key="7", id=7)
    async with working(queue):
        await work.done()
        await until_empty(redis, redis_prefix)
        calls_before = len(work.calls)
        work.finished.clear()
        await queue.enqueue("fill", key="7", id=7)
        await work.done()

    assert calls_before == 1
    assert len(work.calls) == 2


async def test_a_job_that_waits_for_long_keeps_its_key_by_being_put_again(redis, redis_prefix):
    queue, key = queue_of(redis, redis_prefix), unfinished_key(redis_prefix, "fill", "7")
    queue.task("fill", Work())
    await queue.enqueue("fill", key="7", id=7)
    await redis.pexpire(key, 60_000)

    await queue.enqueue("fill", key="7", id=7)

    assert await redis.xlen(ready_key(redis_prefix, "short")) == 1
    assert await redis.pttl(key) > 60_000


async def test_a_job_that_redis_lost_without_its_key_can_be_put_again(redis, redis_prefix):
    queue = queue_of(redis, redis_prefix)
    queue.task("fill", Work())
    await queue.enqueue("fill", key="7", id=7)
    await redis.delete(ready_key(redis_prefix, "short"))

    await queue.enqueue("fill", key="7", id=7)

    assert await redis.xlen(ready_key(redis_prefix, "short")) == 1


async def test_a_key_holds_while_the_job_runs_and_between_tries(redis, redis_prefix):
    queue, held = queue_of(redis, redis_prefix, backoff=Backoff(first_ms=600_000)), Held()
    failing = Work(failures=99)
    queue.task("held", held)
    queue.task("failing", failing)

    await queue.enqueue("held", key="1")
    await queue.enqueue("failing", key="1")
    async with working(queue), asyncio.timeout(30):
        await held.begun()
        while not await redis.zcard(later_key(redis_prefix, "short")):
            await asyncio.sleep(0.02)
        await queue.enqueue("held", key="1")
        await queue.enqueue("failing", key="1")
        unfinished = await redis.xlen(ready_key(redis_prefix, "short"))

        held.release.set()
        while await redis.xlen(ready_key(redis_prefix, "short")):
            await asyncio.sleep(0.02)

    assert unfinished == 1
    assert held.starts == 1
    assert len(failing.calls) == 1


async def test_a_job_given_up_frees_its_key(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work(failures=1)
    queue.task("fill", work, tries=1)
    await queue.enqueue("fill", key="7", id=7)
    async with working(queue):
        [letter] = await dead(queue)

        await queue.enqueue("fill", key="7", id=7)
        await work.done()

    assert letter.reason == "REFUSED"
    assert not await redis.exists(unfinished_key(redis_prefix, "fill", "7"))


async def test_replaying_a_job_whose_key_is_taken_queues_nothing(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work(failures=1)
    queue.task("fill", work, tries=1)
    await queue.enqueue("fill", key="7", id=7)
    async with working(queue):
        [letter] = await dead(queue)
    await queue.enqueue("fill", key="7", id=7)

    queued = await queue.dead_letters.replay(letter)

    assert not queued
    assert await redis.xlen(ready_key(redis_prefix, "short")) == 1


async def test_long_jobs_keep_no_short_one_waiting(redis, redis_prefix):
    queue, held, work = queue_of(redis, redis_prefix), Held(), Work()
    queue.task("fill", held, lane=LONG)
    queue.task("mail", work)

    for _ in range(5):
        await queue.enqueue("fill")
    async with working(queue), asyncio.timeout(30):
        while held.starts < 2:
            await asyncio.sleep(0.02)
        await queue.enqueue("mail")
        await work.done()
        started = held.starts
        held.release.set()
        await until_empty(redis, redis_prefix, LONG)

    assert started == 2
    assert held.starts == 5


async def test_a_process_that_ends_gives_its_jobs_back_at_once(redis, redis_prefix):
    first, second = queue_of(redis, redis_prefix), queue_of(redis, redis_prefix)
    held, work = Held(), Work()
    first.task("fill", held, tries=1)
    second.task("fill", work, tries=1)

    await first.enqueue("fill")
    async with working(first):
        await held.begun()
    async with working(second):
        await work.done()
        await until_empty(redis, redis_prefix)

    assert held.interrupted.is_set()
    assert first.ended == {("fill", Outcome.GIVEN_BACK): 1}
    assert second.ended == {("fill", Outcome.DONE): 1}


async def test_work_that_ends_although_it_was_told_to_stop_is_done(redis, redis_prefix):
    queue, begun = queue_of(redis, redis_prefix), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    queue.task("fill", stubborn)

    await queue.enqueue("fill")
    async with working(queue):
        await asyncio.wait_for(begun.wait(), 30)

    assert queue.ended == {("fill", Outcome.DONE): 1}
    assert await redis.xlen(ready_key(redis_prefix, "short")) == 0


async def test_work_that_fails_when_told_to_stop_is_given_back(redis, redis_prefix):
    queue, begun = queue_of(redis, redis_prefix), asyncio.Event()

    async def fragile() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise Refused("it was in the middle")

    queue.task("fill", fragile, tries=1)

    await queue.enqueue("fill")
    async with working(queue):
        await asyncio.wait_for(begun.wait(), 30)

    assert queue.ended == {("fill", Outcome.GIVEN_BACK): 1}
    assert await redis.xlen(ready_key(redis_prefix, "short")) == 1
    assert await queue.dead_letters.listed() == []


async def test_a_job_longer_than_the_silence_allowed_runs_once(redis, redis_prefix):
    idle = 2.0
    first = queue_of(redis, redis_prefix, idle=idle)
    second = queue_of(redis, redis_prefix, idle=idle)
    held = Held()
    for queue in (first, second):
        queue.task("fill", held, lane=LONG)

    await first.enqueue("fill")
    async with working(first, second):
        await held.begun()
        await asyncio.sleep(2 * idle)  # time itself is what this is about
        held.release.set()
        await until_empty(redis, redis_prefix, LONG)

    assert held.starts == 1
    assert Counter(first.ended) + Counter(second.ended) == {("fill", Outcome.DONE): 1}


async def test_a_process_that_was_too_busy_to_speak_does_not_take_its_own_job(redis, redis_prefix):
    queue, held, work = queue_of(redis, redis_prefix), Held(), Work()
    queue.task("fill", held)
    queue.task("mail", work)

    await queue.enqueue("fill")
    async with working(queue):
        await held.begun()
        stream = ready_key(redis_prefix, "short")
        [(entry, _)] = await redis.xrange(stream)
        name = queue.workers.name
        await redis.xclaim(stream, "jobs", name, 0, [entry], idle=3_600_000, justid=True)
        for _ in range(2):  # with the first one it reads, and only then looks for what is silent
            work.finished.clear()
            await queue.enqueue("mail")
            await work.done()
        held.release.set()
        await until_empty(redis, redis_prefix)

    assert held.starts == 1


async def test_work_that_takes_too_long_fails(redis, redis_prefix):
    queue, held = queue_of(redis, redis_prefix), Held()
    queue.task("fill", held, tries=1, seconds=0.05)

    await queue.enqueue("fill")
    async with working(queue):
        [letter] = await dead(queue)

    assert held.interrupted.is_set()
    assert letter.reason == "TimeoutError"


async def test_work_that_cancels_itself_counts_as_failed(redis, redis_prefix):
    queue = queue_of(redis, redis_prefix)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    queue.task("fill", cancelled, tries=1)

    await queue.enqueue("fill")
    async with working(queue):
        [letter] = await dead(queue)

    assert letter.reason == "JOB_INTERRUPTED"


async def test_wrong_arguments_fail_the_job_and_nothing_else(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work()

    async def fill(id: int) -> None:
        raise AssertionError

    queue.task("fill", fill, tries=1)
    queue.task("mail", work)

    await queue.enqueue("fill", wrong=1)
    await queue.enqueue("mail")
    async with working(queue):
        [letter] = await dead(queue)
        await work.done()

    assert letter.reason == "TypeError"


async def test_a_task_unknown_here_waits_for_a_process_that_knows_it(redis, redis_prefix):
    newer, work = queue_of(redis, redis_prefix), Work()
    older = queue_of(redis, redis_prefix, backoff=Backoff(first_ms=2_000))
    newer.task("export", work)

    await newer.enqueue("export", id=1)
    async with working(older), asyncio.timeout(30):
        while not older.ended:
            await asyncio.sleep(0.02)
    async with working(newer):
        await work.done()

    assert ("unknown", Outcome.RETRIED) in older.ended
    assert work.calls == [{"id": 1}]


async def test_what_is_no_message_goes_to_the_dead_letters(redis, redis_prefix):
    queue, work = queue_of(redis, redis_prefix), Work()
    queue.task("mail", work)
    await queue.enqueue("mail")
    await redis.xadd(ready_key(redis_prefix, "short"), {"job": b"0:{not json"})

    async with working(queue):
        [letter] = await dead(queue)
        await work.done()

    assert letter.arguments is None
    assert letter.message == b"{not json"


async def test_a_full_lane_refuses_and_says_its_limit(redis, redis_prefix):
    queue = queue_of(redis, redis_prefix)
    queue.task("mail", Work())
    await queue.enqueue("mail")
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(MOST_WAITING - 1):
            pipe.xadd(ready_key(redis_prefix, "short"), {"job": b"0:{}"})
        await pipe.execute()

    with pytest.raises(JobsFull) as refusal:
        await queue.enqueue("mail")

    assert refusal.value.limit == MOST_WAITING


async def test_only_known_tasks_and_small_arguments_are_queued(redis, redis_prefix):
    queue = queue_of(redis, redis_prefix)
    queue.task("mail", Work())

    with pytest.raises(UnknownTask):
        await queue.enqueue("fax")
    with pytest.raises(ValueError, match="4096"):
        await queue.enqueue("mail", text="x" * 5_000)
    with pytest.raises(TypeError):
        await queue.enqueue("mail", to=object())

    assert not await redis.exists(ready_key(redis_prefix, "short"))
