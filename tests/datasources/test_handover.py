"""Patient work of one process lets those pass that ask the same provider in another."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from datasources.flights import Handover


@pytest.fixture
def busy(redis: Redis, redis_prefix: str) -> Handover:
    return Handover(redis, prefix=redis_prefix, ttl=5)


@pytest.fixture
def patient(redis: Redis, redis_prefix: str) -> Handover:
    return Handover(redis, prefix=redis_prefix, ttl=5)


async def rests(patient: Handover, lane: str) -> bool:
    """Return whether patient work still waits after another process was asked many times."""
    resting = asyncio.create_task(patient.rest(lane))
    for _ in range(20):
        await patient.take(uuid4().hex)
    waits = not resting.done()
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)
    return waits


async def test_patient_work_rests_while_another_process_asks_the_same_provider(
    busy: Handover, patient: Handover
) -> None:
    async with busy.hold("page", busy="sim"):
        assert await rests(patient, "sim")
        assert not await rests(patient, "kraken")

    assert not await rests(patient, "sim")


async def test_it_rests_until_the_last_of_many_has_its_page(
    busy: Handover, patient: Handover
) -> None:
    async with busy.hold("page 1", busy="sim"):
        async with busy.hold("page 2", busy="sim"):
            pass

        assert await rests(patient, "sim")


async def test_nobody_rests_for_what_is_asked_in_the_same_process(patient: Handover) -> None:
    async with patient.hold("page", busy="sim"):
        assert not await rests(patient, "sim")


async def test_patient_work_makes_nobody_rest(busy: Handover, patient: Handover) -> None:
    async with busy.hold("page"):
        assert not await rests(patient, "sim")


async def test_patient_work_goes_on_at_some_time_though_the_others_never_pause(
    busy: Handover, patient: Handover
) -> None:
    async with busy.hold("page", busy="sim"), asyncio.timeout(60):
        await patient.rest("sim")


async def test_a_lane_that_is_busy_still_has_locks(busy: Handover, patient: Handover) -> None:
    order: list[str] = []

    async def take_turn(handover: Handover, name: str) -> None:
        async with handover.hold("page", busy="sim"):
            order.append(f"{name} in")
            await handover.take("anything")
            order.append(f"{name} out")

    await asyncio.gather(take_turn(busy, "one"), take_turn(patient, "other"))

    assert order in (
        ["one in", "one out", "other in", "other out"],
        ["other in", "other out", "one in", "one out"],
    )


async def test_nobody_rests_while_redis_is_away() -> None:
    away = Handover(Redis.from_url("redis://127.0.0.1:1"), prefix="away:", ttl=5)

    async with asyncio.timeout(10), away.hold("page", busy="sim"):
        await away.rest("sim")
