"""Work is done once for all who ask, in lanes that do not wait for each other."""

from __future__ import annotations

import asyncio

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
