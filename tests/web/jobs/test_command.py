"""`python -m web jobs`, over a real Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from tests.web.jobs.queues import queue_of, working
from tests.web.jobs.test_engine import Held, Work
from web.__main__ import main
from web.jobs.keys import ready_key

Command = Callable[..., "asyncio.Future[int]"]


@pytest.fixture
def jobs(redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`python -m web jobs` with these arguments, in a thread: it has a loop of its own."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("REDIS_PREFIX", redis_prefix)

    async def run(*arguments: str) -> int:
        return await asyncio.to_thread(main, ["jobs", *arguments])

    return run


async def given_up(redis: Redis, prefix: str, count: int) -> None:
    """Leave the letters of *count* jobs, whose arguments are their numbers."""
    queue = queue_of(redis, prefix)
    queue.task("mail", Work(failures=count), tries=1)
    for number in range(count):
        await queue.enqueue("mail", key=str(number), number=number)
    async with working(queue), asyncio.timeout(30):
        while await queue.dead_letters.count() < count:
            await asyncio.sleep(0.02)


async def test_workers_are_listed(redis, redis_prefix, jobs, capsys):
    queue = queue_of(redis, redis_prefix)
    async with working(queue), asyncio.timeout(30):
        while not await queue.workers.listed():
            await asyncio.sleep(0.02)

        status = await jobs("workers")

    assert status == 0
    assert re.fullmatch(rf"{queue.workers.name}  heard of \d+\.\d s ago\n", capsys.readouterr().out)


async def test_without_workers_it_says_so(jobs, capsys):
    assert await jobs("workers") == 0
    assert capsys.readouterr().out == "No process runs jobs.\n"


async def test_jobs_given_up_are_listed_with_reason_and_arguments(
    redis, redis_prefix, jobs, capsys
):
    await given_up(redis, redis_prefix, 2)

    status = await jobs("dead")

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(
            r'\d+-\d+  \d{4}-\d\d-\d\d [\d:]{8}  mail  REFUSED after 1  \{"number": [01]\}', line
        )


async def test_one_letter_is_replayed_and_another_dropped(redis, redis_prefix, jobs, capsys):
    await given_up(redis, redis_prefix, 2)
    queue, work = queue_of(redis, redis_prefix), Work()
    queue.task("mail", work)
    first, second = await queue.dead_letters.listed()

    assert await jobs("replay", first.id) == 0
    assert await jobs("drop", second.id) == 0

    async with working(queue):
        await work.done()
    assert work.calls == [first.arguments]
    assert await queue.dead_letters.listed() == []
    assert capsys.readouterr().out == f"{first.id}  queued again\n{second.id}  dropped\n"


async def test_all_letters_are_replayed(redis, redis_prefix, jobs):
    await given_up(redis, redis_prefix, 5)

    status = await jobs("replay", "--all")

    assert status == 0
    assert await redis.xlen(ready_key(redis_prefix, "short")) == 5
    assert await queue_of(redis, redis_prefix).dead_letters.count() == 0


async def test_a_letter_that_is_not_there_is_named(jobs, capsys):
    status = await jobs("replay", "1-0")

    assert status == 1
    assert capsys.readouterr().out == "1-0  no such letter\n"


@pytest.mark.parametrize("wrong", [(), ("first",), ("1-0", "--all")])
async def test_what_to_replay_must_be_clear(jobs, wrong):
    with pytest.raises(SystemExit):
        await jobs("replay", *wrong)


async def test_a_redis_that_is_away_is_said(jobs, monkeypatch, capsys):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    status = await jobs("dead")

    assert status == 1
    assert "Redis did not answer" in capsys.readouterr().err


async def test_a_running_job_is_no_dead_letter(redis, redis_prefix, jobs, capsys):
    queue, held = queue_of(redis, redis_prefix), Held()
    queue.task("mail", held)
    await queue.enqueue("mail")
    async with working(queue):
        await held.begun()

        status = await jobs("dead")

    assert status == 0
    assert capsys.readouterr().out == "No job was given up.\n"
