"""Work is done once for all who ask, in lanes that do not wait for each other."""

from __future__ import annotations

import asyncio

import pytest

from datasources.flights import Flights


async def test_a_lane_that_hangs_keeps_no_other_waiting() -> None:
    flights = Flights(2)
    begun: list[int] = []

    async def hang(number: int) -> None:
        begun.append(number)
        await asyncio.Event().wait()

    async def quick() -> str:
        return "done"

    waiting = [
        asyncio.create_task(flights.join(n, lambda n=n: hang(n), lane="hanging")) for n in range(3)
    ]
    async with asyncio.timeout(10):
        answer = await flights.join("quick", quick, lane="other")
    await flights.aclose()
    ended = await asyncio.gather(*waiting, return_exceptions=True)

    assert answer == "done"
    assert begun == [0, 1]
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)


class Runway:
    """Work that counts who is under way, and lands when it is let."""

    def __init__(self) -> None:
        self.flying: set[str] = set()
        self.order: list[str] = []
        self.together: list[frozenset[str]] = []
        """Who was under way when each took off, itself included."""
        self._landing: dict[str, asyncio.Event] = {}

    async def fly(self, name: str) -> str:
        self.flying.add(name)
        self.order.append(name)
        self.together.append(frozenset(self.flying))
        try:
            await self._landing.setdefault(name, asyncio.Event()).wait()
        finally:
            self.flying.discard(name)
        return name

    async def land(self, name: str) -> None:
        self._landing.setdefault(name, asyncio.Event()).set()
        await settled()


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def begin(flights: Flights, runway: Runway, name: str, **options: bool) -> asyncio.Task[str]:
    joined = flights.join(name, lambda: runway.fly(name), lane="sim", **options)
    return asyncio.create_task(joined)


async def test_patient_work_starts_only_while_no_other_flies_or_waits() -> None:
    flights, runway = Flights(1), Runway()
    urgent = [begin(flights, runway, f"chart {n}") for n in range(3)]
    patient = [begin(flights, runway, f"backfill {n}", patient=True) for n in range(3)]
    for n in range(3):
        await settled()
        assert runway.order == [f"chart {k}" for k in range(n + 1)]
        await runway.land(f"chart {n}")

    for n in range(3):
        await runway.land(f"backfill {n}")
    await asyncio.gather(*urgent, *patient)

    assert runway.order[3:] == [f"backfill {n}" for n in range(3)]


async def test_of_patient_work_few_pieces_fly_at_once() -> None:
    flights, runway = Flights(16, patient_limit=2), Runway()

    patient = [begin(flights, runway, f"backfill {n}", patient=True) for n in range(9)]
    for n in range(9):
        await runway.land(f"backfill {n}")
    await asyncio.gather(*patient)

    assert max(len(flying) for flying in runway.together) == 2


async def test_work_that_is_asked_for_while_patient_work_flies_does_not_wait_for_it() -> None:
    flights, runway = Flights(16), Runway()
    patient = begin(flights, runway, "backfill", patient=True)
    await settled()

    urgent = begin(flights, runway, "chart")
    await settled()

    assert runway.flying == {"backfill", "chart"}
    await runway.land("backfill")
    await runway.land("chart")
    await asyncio.gather(patient, urgent)


async def test_patient_work_that_a_chart_joins_goes_at_once() -> None:
    flights, runway = Flights(16), Runway()
    other = begin(flights, runway, "other chart")
    patient = begin(flights, runway, "page", patient=True)
    await settled()
    assert runway.flying == {"other chart"}

    urgent = begin(flights, runway, "page")
    await settled()

    assert runway.flying == {"other chart", "page"}
    assert runway.order.count("page") == 1
    await runway.land("page")
    assert await urgent == await patient == "page"
    await runway.land("other chart")
    await other


async def test_patient_work_that_everybody_left_before_it_began_is_not_done() -> None:
    flights, runway = Flights(16), Runway()
    chart = begin(flights, runway, "chart")
    patient = begin(flights, runway, "page", patient=True)
    await settled()

    patient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await patient
    await runway.land("chart")
    await chart

    assert runway.order == ["chart"]


async def test_who_asks_for_work_that_was_just_given_up_gets_it() -> None:
    flights, runway = Flights(16), Runway()
    chart = begin(flights, runway, "chart")
    patient = begin(flights, runway, "page", patient=True)
    await settled()

    patient.cancel()
    await asyncio.sleep(0)
    urgent = begin(flights, runway, "page")
    await settled()
    await runway.land("page")

    assert await urgent == "page"
    await runway.land("chart")
    await chart


async def test_patient_work_goes_on_after_work_before_it_failed() -> None:
    flights = Flights(1)

    async def fail() -> None:
        raise ZeroDivisionError

    async def done() -> str:
        return "done"

    urgent = asyncio.create_task(flights.join("chart", fail, lane="sim"))
    patient = asyncio.create_task(flights.join("page", done, lane="sim", patient=True))

    with pytest.raises(ZeroDivisionError):
        await urgent
    assert await patient == "done"
