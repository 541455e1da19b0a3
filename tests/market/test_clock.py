"""Waiting for a time of a clock: woken when it has come, and by no timer that nobody needs."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from market.clock import FixedClock, Pace
from tests.fakes import TickingClock

PATIENCE = 30


async def test_an_alarm_rings_when_a_clock_is_set_to_its_time_and_no_sooner() -> None:
    clock = FixedClock(1000)
    pace = Pace(clock)
    alarm = pace.alarm(2000)

    clock.at = 1999
    assert not alarm.done()
    clock.at = 2000

    assert alarm.done()


async def test_a_clock_that_runs_by_itself_is_looked_at_until_it_is_there() -> None:
    clock = TickingClock(0, speed=10)
    pace = Pace(clock, speed=10)

    async with asyncio.timeout(PATIENCE):
        await pace.alarm(300)
        await asyncio.gather(pace.alarm(900), pace.alarm(600))

    assert clock.now() >= 900


async def test_a_clock_that_is_faster_than_it_was_said_to_be_is_noticed() -> None:
    clock = TickingClock(0, speed=1e6)
    pace = Pace(clock, speed=1e-6)

    async with asyncio.timeout(PATIENCE):
        await pace.alarm(3_600_000)

    assert clock.now() >= 3_600_000


async def test_a_clock_that_never_moves_is_not_looked_at_again() -> None:
    standing, moving = TickingClock(0, speed=0), TickingClock(0)
    alarm = Pace(standing, speed=0).alarm(1)

    async with asyncio.timeout(PATIENCE):
        await Pace(moving).alarm(600)

    assert not alarm.done()
    assert standing.looks == 0


async def test_however_many_wait_the_clock_is_looked_at_as_often_as_for_one() -> None:
    clock = TickingClock(0)
    pace = Pace(clock)
    waiting = [pace.alarm(10**9) for _ in range(500)]
    set_up = clock.looks

    async with asyncio.timeout(PATIENCE):
        await Pace(TickingClock(0)).alarm(600)

    assert clock.looks - set_up < len(waiting) / 10


async def test_an_alarm_without_a_time_rings_only_when_it_is_ended() -> None:
    clock = FixedClock(0)
    alarm = Pace(clock).alarm(None)

    clock.at = 10**15
    assert not alarm.done()
    alarm.set_result(None)

    await alarm


@settings(deadline=None)
@given(
    times=st.lists(st.integers(0, 50), max_size=20),
    moves=st.lists(st.integers(-10, 20), max_size=10),
    given_up=st.sets(st.integers(0, 19)),
)
async def test_those_have_rung_whose_time_the_clock_has_shown_and_that_nobody_gave_up(
    times: list[int], moves: list[int], given_up: set[int]
) -> None:
    clock = FixedClock(-1)
    pace = Pace(clock)
    alarms = [pace.alarm(time) for time in times]
    for index in given_up & set(range(len(alarms))):
        alarms[index].cancel()

    for move in moves:
        clock.at += move
        await asyncio.sleep(0)

    latest = max((sum(moves[:n]) for n in range(1, len(moves) + 1)), default=0) - 1
    for index, (time, alarm) in enumerate(zip(times, alarms, strict=True)):
        if index in given_up:
            assert alarm.cancelled()
        else:
            assert alarm.done() == (bool(moves) and time <= latest)
