"""Deadlines: what takes too long is given up, and nothing else is."""

import asyncio

import pytest

from web.limits.deadline import Deadline, ExecutionTimedOut

SHORT = 0.02


async def test_what_takes_too_long_is_given_up_and_its_work_ended() -> None:
    deadline = Deadline(SHORT)
    ended = False

    with pytest.raises(ExecutionTimedOut) as late, deadline():
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    assert ended
    assert (late.value.code, late.value.status) == ("EXECUTION_TIMEOUT", 504)
    assert str(SHORT) in str(late.value)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_each_is_given_up_at_its_own_time_also_after_others() -> None:
    deadline = Deadline(SHORT)

    async def stuck() -> None:
        with deadline():
            await asyncio.Event().wait()

    for _ in range(3):
        together = await asyncio.gather(*(stuck() for _ in range(5)), return_exceptions=True)
        assert [type(failure) for failure in together] == [ExecutionTimedOut] * 5


async def test_what_ends_in_time_keeps_its_result_and_its_own_failures() -> None:
    deadline = Deadline(60)

    with deadline():
        await asyncio.sleep(0)
    with pytest.raises(KeyError), deadline():
        raise KeyError
    with pytest.raises(TimeoutError), deadline():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_a_task_that_others_cancel_is_cancelled() -> None:
    deadline = Deadline(60)

    async def stuck() -> None:
        with deadline():
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_goes_on_for_long_does_not_hold_up_the_end_of_others() -> None:
    deadline = Deadline(SHORT)

    async def deaf() -> str:
        try:
            with deadline():
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        await asyncio.sleep(3 * SHORT)  # it puts things away
                        raise
        except ExecutionTimedOut:
            return "late"

    async def stuck() -> str:
        try:
            with deadline():
                await asyncio.Event().wait()
        except ExecutionTimedOut:
            return "late"
        return "never"

    first = asyncio.create_task(deaf())
    await asyncio.sleep(SHORT / 2)

    assert await stuck() == "late"
    assert not first.done()
    assert await first == "late"
