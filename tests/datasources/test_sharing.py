"""The same request from many at once is one provider call, in one process and across several."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from market.clock import FixedClock
from market.window import HOUR, MINUTE
from tests.datasources.chains import NOW, RUNNING, Opened, Opener, on_each, on_embedded
from tests.fakes import FakeProvider, Market, days_before, minutes_between

LISTED = days_before(NOW, 3)
PAST = {"since": RUNNING - 10 * HOUR, "until": RUNNING - HOUR}


def listed(*, page_limit: int = 10_000) -> FakeProvider:
    market = Market.of(minutes_between(LISTED, NOW, every=2))
    return FakeProvider(
        FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, page_limit=page_limit
    )


async def release(provider: FakeProvider, *asked: asyncio.Task[Any]) -> list[Any]:
    """Let the provider answer once a call has reached it, and return what came of *asked*."""
    assert provider.gate is not None
    await provider.entered.wait()
    provider.gate.set()
    return await asyncio.gather(*asked, return_exceptions=True)


def ask(opened: Opened, timeframe: str, **cut: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(opened.get(timeframe, **cut))


@on_embedded
@pytest.mark.parametrize("timeframe", ["1m", "1h"])
async def test_a_hundred_clients_cost_one_provider_call(
    open_process: Opener, timeframe: str
) -> None:
    provider = listed()
    provider.gate = asyncio.Event()
    async with open_process(provider) as opened:
        answers = await release(provider, *(ask(opened, timeframe, **PAST) for _ in range(100)))

    assert len(provider.calls) == 1
    assert len(answers[0].bars) > 0
    assert all(answer.bars == answers[0].bars for answer in answers)


@on_embedded
async def test_overlapping_windows_share_chunks(open_process: Opener) -> None:
    provider = listed(page_limit=180)
    provider.gate = asyncio.Event()
    async with open_process(provider) as opened:
        await release(
            provider,
            ask(opened, "1m", since=RUNNING - 9 * HOUR, until=RUNNING - 3 * HOUR),
            ask(opened, "1m", since=RUNNING - 7 * HOUR, until=RUNNING - 4 * HOUR),
            ask(opened, "5m", since=RUNNING - 8 * HOUR, until=RUNNING - 3 * HOUR),
        )

    asked = sorted(provider.asked())
    assert all(a.until <= b.since for a, b in pairwise(asked))
    assert all(window.since % (180 * MINUTE) == 0 for window in asked)


@on_embedded
async def test_a_client_that_leaves_does_not_cancel_the_call_for_the_others(
    open_process: Opener,
) -> None:
    provider = listed()
    provider.gate = asyncio.Event()
    async with open_process(provider) as opened:
        leaver = ask(opened, "1m", **PAST)
        await provider.entered.wait()
        stayer = ask(opened, "1m", **PAST)
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver

        (answer,) = await release(provider, stayer)

    assert len(provider.calls) == 1
    assert len(answer.bars) == 9 * 30


@on_embedded
async def test_what_all_clients_left_is_still_fetched_and_kept(open_process: Opener) -> None:
    provider = listed()
    provider.gate = asyncio.Event()
    async with open_process(provider) as opened:
        leaver = ask(opened, "1m", **PAST)
        await provider.entered.wait()
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)

        (answer,) = await release(provider, ask(opened, "1m", **PAST))

    assert len(provider.calls) == 1
    assert len(answer.bars) == 9 * 30


@on_embedded
async def test_a_flight_under_way_ends_with_its_chain(open_process: Opener) -> None:
    provider = listed()
    provider.gate = asyncio.Event()
    async with open_process(provider) as opened:
        waiting = ask(opened, "1m", **PAST)
        await provider.entered.wait()

    with pytest.raises(asyncio.CancelledError):
        await waiting


@on_each
@pytest.mark.parametrize("timeframe", ["1m", "1h"])
async def test_two_processes_make_one_provider_call(open_process: Opener, timeframe: str) -> None:
    provider = listed()
    async with open_process(provider) as one, open_process(provider) as other:
        # Where minutes begin is found out once, by whoever comes first.
        await one.get("1h", since=LISTED + HOUR, until=LISTED + 2 * HOUR)
        await other.get("1h", since=LISTED + HOUR, until=LISTED + 2 * HOUR)
        provider.clock.at += 10_000
        provider.calls.clear()
        provider.entered.clear()
        provider.gate = asyncio.Event()

        cut = {"since": RUNNING - 5 * HOUR}
        answers = await release(
            provider, *(ask(opened, timeframe, **cut) for opened in (one, other, one, other))
        )

    assert len(provider.calls) == 1
    assert all(answer.bars == answers[0].bars for answer in answers)
    assert not answers[0].bars.is_closed[-1]


@on_embedded
async def test_a_process_reads_what_another_stored_and_asks_nothing(open_process: Opener) -> None:
    provider = listed()
    async with open_process(provider) as one:
        first = await one.get("1h", **PAST)
        await one.flush()
    calls = len(provider.calls)
    async with open_process(provider) as other:
        again = await other.get("1h", **PAST)

    assert len(provider.calls) == calls
    for column in ("time", "open", "high", "low", "close", "revision", "flags"):
        assert getattr(again.bars, column).tolist() == getattr(first.bars, column).tolist()


@on_embedded
async def test_a_process_holds_no_more_bytes_than_it_may(open_process: Opener) -> None:
    provider = listed()
    async with open_process(provider, cache_bytes=20_000) as opened:
        for hours in range(2, 40):
            cut = {"since": RUNNING - hours * HOUR, "until": RUNNING - HOUR}
            assert len((await opened.get("1m", **cut)).bars) == (hours - 1) * 30

            assert opened.cache.held_bytes <= 20_000
