"""The store counts revisions, and a change of history voids what other processes cached."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.bars import CLOSED, NATIVE, Bars
from market.clock import FixedClock
from market.window import HOUR, MINUTE
from tests.datasources.chains import NOW, Opened, Opener, on_each, on_embedded
from tests.datasources.recount import assert_says, bars_of
from tests.fakes import FakeProvider, Market, days_before, minutes_between, row

LISTED = days_before(NOW, 3)
HOUR_NOW = NOW // HOUR * HOUR
PAST = {"since": HOUR_NOW - 10 * HOUR, "until": HOUR_NOW - 2 * HOUR}
WRONG = HOUR_NOW - 5 * HOUR + 7 * MINUTE


def listed() -> FakeProvider:
    market = Market.of(minutes_between(LISTED, NOW))
    return FakeProvider(
        FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, page_limit=10_000
    )


def expected(opened: Opened, timeframe: str) -> list:
    now = opened.clock.now()
    rows = opened.provider.markets[opened.symbol].seen_at(now)
    bars = bars_of(rows, timeframe, "UTC", now=now, minutes_from=LISTED)
    return [bar for bar in bars if PAST["since"] <= bar.time < PAST["until"]]


def revision_at(bars: Bars, time: int) -> int:
    return int(bars.revision[np.flatnonzero(bars.time == time)[0]])


@on_embedded
@pytest.mark.parametrize("timeframe", ["5m", "7m", "1h", "4h"])
async def test_a_minute_starts_at_one_and_a_coarser_bar_sums_its_minutes(
    open_process: Opener, timeframe: str
) -> None:
    async with open_process(listed()) as opened:
        minutes = await opened.get("1m", **PAST)
        before = await opened.get(timeframe, **PAST)
        await opened.correct(WRONG, row(WRONG, version=1))

        corrected = await opened.get("1m", **PAST)
        after = await opened.get(timeframe, **PAST)
        assert_says(after, expected(opened, timeframe))

    assert set(minutes.bars.revision.tolist()) == {1}
    assert revision_at(corrected.bars, WRONG) == 2
    assert sum(corrected.bars.revision) == len(corrected.bars) + 1
    assert sum(after.bars.revision) == sum(before.bars.revision) + 1


@on_embedded
@pytest.mark.parametrize("timeframe", ["5m", "7m", "1h"])
async def test_a_withdrawn_minute_still_counts(open_process: Opener, timeframe: str) -> None:
    async with open_process(listed()) as opened:
        before = await opened.get(timeframe, **PAST)
        await opened.correct(WRONG, None)

        after = await opened.get(timeframe, **PAST)
        minutes = await opened.get("1m", **PAST)
        assert_says(after, expected(opened, timeframe))

    assert WRONG not in minutes.bars.time.tolist()
    at = int(np.searchsorted(before.bars.time, WRONG, side="right")) - 1
    # Else whoever holds the bar from before would take it for the newer one.
    assert after.bars.revision[at] == before.bars.revision[at] + 1


@on_embedded
async def test_a_value_that_is_the_same_changes_nothing(open_process: Opener) -> None:
    async with open_process(listed()) as opened:
        before = await opened.get("1h", **PAST)
        await opened.correct(WRONG, row(WRONG))

        after = await opened.get("1h", **PAST)

    assert after.bars == before.bars
    (head,) = after.heads.values()
    assert head.generation == 0


@on_each
@pytest.mark.parametrize("timeframe", ["1m", "7m", "1h"])
@pytest.mark.parametrize("corrected", [row(WRONG, version=1), None], ids=["corrected", "withdrawn"])
async def test_a_change_of_history_voids_what_another_process_cached(
    open_process: Opener, timeframe: str, corrected: object
) -> None:
    async with open_process(listed()) as one, open_process(one.provider) as other:
        await one.get(timeframe, **PAST)
        cached = await other.get(timeframe, **PAST)
        assert (await other.get(timeframe, **PAST)).bars == cached.bars
        await one.correct(WRONG, corrected)

        answer = await other.get(timeframe, **PAST)

        assert_says(answer, expected(other, timeframe))
        assert answer.bars != cached.bars


@on_embedded
async def test_minutes_that_are_only_added_void_nothing(open_process: Opener) -> None:
    async with open_process(listed()) as opened:
        await opened.get("1h", **PAST)
        held = opened.cache.held_bytes
        opened.clock.at += 5 * MINUTE
        await opened.get("1m", last=10)
        opened.provider.calls.clear()
        await opened.store.states([opened.key])

        answer = await opened.get("1h", **PAST)

        assert opened.provider.calls == []
        assert opened.cache.held_bytes >= held > 0
        assert_says(answer, expected(opened, "1h"))


@on_each
async def test_an_emptied_redis_costs_no_provider_call(open_process: Opener) -> None:
    async with open_process(listed()) as opened:
        before = await opened.get("1h", **PAST)
        await opened.correct(WRONG, row(WRONG, version=1))
        await opened.flush()
        opened.provider.calls.clear()

        after = await opened.get("1h", **PAST)

        assert opened.provider.calls == []
        assert after.bars != before.bars
        assert_says(after, expected(opened, "1h"))


@on_embedded
async def test_a_change_announced_to_an_emptied_redis_is_seen_by_a_process_that_held_chunks(
    open_process: Opener,
) -> None:
    async with open_process(listed()) as one, open_process(one.provider) as other:
        await other.get("1h", **PAST)
        await one.flush()
        await one.correct(WRONG, row(WRONG, version=1))

        assert_says(await other.get("1h", **PAST), expected(other, "1h"))


@on_embedded
async def test_readers_and_a_writer_at_once_never_leave_an_outdated_chunk(
    open_process: Opener,
) -> None:
    async with open_process(listed()) as one, open_process(one.provider) as other:
        for version in range(1, 15):
            await asyncio.gather(
                one.get("1h", **PAST),
                one.correct(WRONG, row(WRONG, version=version)),
                other.get("1h", **PAST),
                other.get("7m", **PAST),
            )

            for opened, timeframe in ((one, "1h"), (other, "1h"), (other, "7m")):
                assert_says(await opened.get(timeframe, **PAST), expected(opened, timeframe))


ranks = st.tuples(
    st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 10**6)
)


def bar_of(rank: tuple[bool, bool, int, int, int]) -> Bars:
    closed, recomputed, revision, updated, volume = rank
    flags = CLOSED * closed | NATIVE * (not recomputed)
    return Bars.of(
        [0], [1.0], [1.0], [1.0], [1.0], [volume], revision=revision, updated=updated, flags=flags
    )


@given(st.lists(ranks, min_size=1, max_size=6), st.randoms())
def test_the_higher_bar_wins_in_whatever_order_they_come(bars: list, order: object) -> None:
    shuffled = list(bars)
    order.shuffle(shuffled)

    merged = bar_of(shuffled[0])
    for rank in shuffled[1:]:
        merged = merged.merge(bar_of(rank))

    highest = max(rank[:4] for rank in bars)
    assert merged == next(bar_of(rank) for rank in shuffled if rank[:4] == highest)


@on_embedded
async def test_an_answer_names_no_position_later_than_its_bars(open_process: Opener) -> None:
    young = NOW // MINUTE * MINUTE - MINUTE
    async with open_process(listed(), forming_ttl=5) as opened:
        await opened.get("1m", last=3)
        await opened.correct(young, row(young, version=1))

        answer = await opened.get("1m", last=3)
        (state,) = await opened.store.states([opened.key])

    (head,) = answer.heads.values()
    assert revision_at(answer.bars, young) == 1
    # Who goes on from this answer is told of the correction.
    assert state is not None and head.position == state.position - 1
