"""What is opened is noted once for each listing, and never more than there is room for."""

from __future__ import annotations

import asyncio

from datasources.found import Request
from datasources.openings import Openings
from market.instrument import Instrument, InstrumentType, Listing, Series
from market.timeframe import Timeframe


def request(symbol: str, timeframe: str = "1m") -> Request:
    series = Series(Listing("sim", "crypto", symbol), Timeframe.parse(timeframe))
    instrument = Instrument("sim", "crypto", symbol, InstrumentType.SPOT)
    return Request(series, instrument, None, None, 500)


async def nobody_waits(openings: Openings) -> bool:
    try:
        await asyncio.wait_for(openings.next(), 0.01)
    except TimeoutError:
        return True
    return False


async def test_a_listing_is_opened_once_whatever_its_timeframes() -> None:
    openings = Openings()

    openings.note([request("A"), request("A"), request("B")])
    openings.note([request("A", "1h"), request("B", "1d")])

    assert await openings.next() == request("A")
    assert await openings.next() == request("B")
    assert await nobody_waits(openings)


async def test_bars_of_less_than_a_minute_open_nothing() -> None:
    openings = Openings()

    openings.note([request("A", "1s"), request("A", "5m")])

    assert await openings.next() == request("A", "5m")


async def test_a_listing_that_was_forgotten_is_opened_again() -> None:
    openings = Openings()
    openings.note([request("A")])
    first = await openings.next()

    openings.forget(first.series.listing)
    openings.note([request("A")])

    assert await openings.next() == first


async def test_a_listing_is_opened_again_after_a_while() -> None:
    openings = Openings(again_in=0)
    openings.note([request("A")])
    first = await openings.next()

    openings.note([request("A")])

    assert await openings.next() == first


async def test_what_finds_no_room_is_noted_when_it_comes_again() -> None:
    openings = Openings()
    openings.note([request(f"S{n}") for n in range(1_500)])
    taken = [await openings.next() for _ in range(1_000)]

    openings.note([request(f"S{n}") for n in range(1_500)])

    later = [await openings.next() for _ in range(500)]
    assert [r.series.listing.symbol for r in taken + later] == [f"S{n}" for n in range(1_500)]
