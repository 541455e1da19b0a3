"""Backfill jobs as rows: added once, one a series, held by one at a time, and not kept for ever."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from db.backfills import (
    Backfill,
    BackfillRunning,
    BackfillState,
    BackfillStore,
    Claim,
    IdempotencyConflict,
    NewBackfill,
    TooManyBackfills,
)
from db.migrations import migrate
from db.pool import open_pool
from market.instrument import Adjustment, Listing
from market.timeframe import MINUTE_FRAME
from market.window import DAY, MINUTE, Window
from web.bootstrap import SQL

T0 = 1_700_000_040_000
WINDOW = Window(T0, T0 + DAY)


def job(
    *, provider: str = "sim", symbol: str | None = None, asked: str = "a day", **listing: object
) -> NewBackfill:
    """A job of a series nobody else fills."""
    name = symbol or uuid4().hex
    return NewBackfill(
        Listing(provider, "crypto", name, **listing), MINUTE_FRAME, False, WINDOW, asked
    )


def key() -> str:
    return uuid4().hex


@pytest.fixture
def backfills(pool: asyncpg.Pool) -> BackfillStore:
    return BackfillStore(pool)


async def claimed(backfills: BackfillStore, backfill: Backfill) -> Claim:
    claim = await backfills.claim(backfill.id, seconds=60)
    assert claim is not None
    return claim


async def test_a_job_is_read_as_it_was_added(backfills: BackfillStore) -> None:
    new = job(adjustment=Adjustment.SPLIT, feed="sip", dataset="x1")

    added = await backfills.add(new, key=key())

    assert await backfills.get(added.id) == added
    assert (added.listing, added.timeframe, added.window) == (new.listing, MINUTE_FRAME, WINDOW)
    assert (added.state, added.reason, added.holes, added.bars) == (
        BackfillState.QUEUED,
        None,
        0,
        0,
    )
    assert added.started_at is None
    assert added.ended_at is None


async def test_the_same_key_and_input_give_the_first_job(backfills: BackfillStore) -> None:
    name, new = key(), job()
    first = await backfills.add(new, key=name)
    await backfills.cancel(first.id)

    again = await backfills.add(new, key=name)
    kept = await backfills.keyed(name, asked=new.asked)

    assert again.id == first.id
    assert again == kept
    assert again.state is BackfillState.CANCELLED


async def test_the_same_key_with_another_input_is_refused(backfills: BackfillStore) -> None:
    name = key()
    await backfills.add(job(asked="a day"), key=name)

    with pytest.raises(IdempotencyConflict):
        await backfills.add(job(asked="a week"), key=name)
    with pytest.raises(IdempotencyConflict):
        await backfills.keyed(name, asked="a week")


async def test_of_many_that_add_at_once_with_one_key_all_get_one_job(
    backfills: BackfillStore,
) -> None:
    name, new = key(), job()

    added = await asyncio.gather(*(backfills.add(new, key=name) for _ in range(10)))

    assert len({backfill.id for backfill in added}) == 1


async def test_a_series_has_one_unfinished_job(backfills: BackfillStore) -> None:
    symbol = uuid4().hex
    added = await asyncio.gather(
        *(backfills.add(job(symbol=symbol), key=key()) for _ in range(10)), return_exceptions=True
    )

    (first,) = [each for each in added if isinstance(each, Backfill)]
    refusals = [each for each in added if isinstance(each, BackfillRunning)]
    assert len(refusals) == 9
    assert {refusal.running.id for refusal in refusals} == {first.id}
    await backfills.cancel(first.id)
    assert (await backfills.add(job(symbol=symbol), key=key())).id != first.id


async def test_listings_that_differ_in_one_part_are_different_series(
    backfills: BackfillStore,
) -> None:
    symbol = uuid4().hex
    parts = ({}, {"feed": "sip"}, {"adjustment": Adjustment.SPLIT}, {"dataset": "x"})

    added = [await backfills.add(job(symbol=symbol, **part), key=key()) for part in parts]

    assert len({backfill.id for backfill in added}) == len(parts)


async def test_one_of_many_gets_a_job(backfills: BackfillStore) -> None:
    added = await backfills.add(job(), key=key())

    claims = await asyncio.gather(*(backfills.claim(added.id, seconds=60) for _ in range(10)))

    (claim,) = [claim for claim in claims if claim is not None]
    assert claim.backfill.state is BackfillState.RUNNING
    assert claim.backfill.started_at is not None


async def test_a_claim_that_ended_is_given_to_another_with_a_higher_fence(
    backfills: BackfillStore,
) -> None:
    added = await backfills.add(job(), key=key())
    former = await backfills.claim(added.id, seconds=0)

    later = None
    async with asyncio.timeout(20):
        while later is None:
            later = await backfills.claim(added.id, seconds=60)

    assert former is not None
    assert later.fence > former.fence
    assert await backfills.progress(former, holes=1, done=1, bars=1) is None
    assert not await backfills.renew(former, seconds=60)
    await backfills.release(former)
    assert await backfills.claim(added.id, seconds=60) is None


async def test_progress_counts_bars_and_never_goes_back(backfills: BackfillStore) -> None:
    claim = await claimed(backfills, await backfills.add(job(), key=key()))

    await backfills.progress(claim, holes=10 * MINUTE, done=6 * MINUTE, bars=4)
    noted = await backfills.progress(claim, holes=10 * MINUTE, done=5 * MINUTE, bars=3)

    assert noted is not None
    assert (noted.holes, noted.done, noted.bars) == (10 * MINUTE, 6 * MINUTE, 7)


async def put_off(backfills: BackfillStore, claim: Claim, **longer: float) -> Backfill:
    times = {"least": 60.0, "most": 900.0, "enough": 12 * 3_600.0, **longer}
    rests = await backfills.put_off(claim, "It fails.", **times)
    assert rests is not None
    return rests


async def test_a_failure_ends_only_when_an_answer_takes_the_job_further_than_it_ever_was(
    backfills: BackfillStore,
) -> None:
    added = await backfills.add(job(), key=key())
    claim = await claimed(backfills, added)
    await backfills.progress(claim, holes=10 * MINUTE, done=4 * MINUTE, bars=4, answered=True)
    failing = (await put_off(backfills, claim, least=0, most=0)).failing_since
    later = None
    async with asyncio.timeout(20):
        while later is None:
            later = await backfills.claim(added.id, seconds=60)

    seen = []
    for done, answered in ((3, True), (4, True), (5, False), (6, True)):
        noted = await backfills.progress(
            later, holes=10 * MINUTE, done=done * MINUTE, bars=0, answered=answered
        )
        assert noted is not None
        seen.append((noted.failing_since, noted.message))

    assert failing is not None
    assert seen == [(failing, "It fails.")] * 3 + [(None, None)]


@pytest.mark.parametrize(
    ("longer", "rests"),
    [
        ({}, 60),
        ({"retry_after": 10_800.0}, 10_800),
        ({"retry_after": 5.0}, 60),
        ({"least": 2_000.0}, 900),
        ({"retry_after": 10_800.0, "enough": 3_600.0}, 3_600),
    ],
)
async def test_a_job_rests_for_as_long_as_its_provider_asks_and_no_longer_than_it_waits_at_all(
    backfills: BackfillStore, pool: asyncpg.Pool, longer: dict[str, float], rests: int
) -> None:
    claim = await claimed(backfills, await backfills.add(job(), key=key()))

    await put_off(backfills, claim, **longer)

    seconds = await pool.fetchval(
        "SELECT extract(epoch FROM held_until - updated_at) FROM backfill WHERE id = $1",
        claim.backfill.id,
    )
    assert rests <= seconds < rests + 30


async def test_a_job_that_ended_stays_as_it_ended(backfills: BackfillStore) -> None:
    claim = await claimed(backfills, await backfills.add(job(), key=key()))
    ended = await backfills.finish(claim, BackfillState.DONE, reason="NEWEST_ONLY", message="So.")

    cancelled = await backfills.cancel(claim.backfill.id)

    assert cancelled == ended
    assert ended is not None
    assert (ended.state, ended.reason, ended.message) == (BackfillState.DONE, "NEWEST_ONLY", "So.")
    assert ended.ended_at is not None
    assert await backfills.progress(claim, holes=1, done=1, bars=1) is None
    assert await backfills.finish(claim, BackfillState.FAILED) is None
    assert await backfills.claim(ended.id, seconds=60) is None


async def test_a_cancelled_job_is_nobodys_any_more(backfills: BackfillStore) -> None:
    claim = await claimed(backfills, await backfills.add(job(), key=key()))

    cancelled = await backfills.cancel(claim.backfill.id)

    assert cancelled is not None
    assert (cancelled.state, cancelled.reason) == (BackfillState.CANCELLED, "CANCELLED")
    assert not await backfills.renew(claim, seconds=60)
    assert await backfills.cancel(uuid4()) is None


async def test_jobs_that_nobody_holds_are_found(backfills: BackfillStore) -> None:
    waiting = await backfills.add(job(), key=key())
    held = await backfills.add(job(), key=key())
    dropped = await backfills.add(job(), key=key())
    over = await backfills.add(job(), key=key())
    await backfills.claim(held.id, seconds=60)
    await backfills.release(await claimed(backfills, dropped))
    await backfills.cancel(over.id)

    orphans = await backfills.orphans()

    assert {waiting.id, dropped.id} <= set(orphans)
    assert not {held.id, over.id} & set(orphans)


async def test_pages_go_from_the_newest_to_the_oldest_without_a_gap(
    backfills: BackfillStore,
) -> None:
    added = [await backfills.add(job(), key=key()) for _ in range(5)]

    first = await backfills.page(first=2)
    second = await backfills.page(first=3, after=first[-1].number)

    newest = [backfill.id for backfill in reversed(added)]
    assert [backfill.id for backfill in first + second] == newest


async def test_a_look_is_taken_once_it_is_due_and_by_one(backfills: BackfillStore) -> None:
    again = Window(T0, T0 + 5 * MINUTE)
    ids = []
    for wait in (0, 3600):
        claim = await claimed(backfills, await backfills.add(job(), key=key()))
        await backfills.finish(claim, BackfillState.DONE, again=again, again_in=wait)
        ids.append(claim.backfill.id)
    taken = await asyncio.gather(
        *(backfills.take_look(seconds=60, give_up_after=60) for _ in range(5))
    )

    (look,) = [look for look in taken if look is not None and look.backfill.id in ids]
    assert (look.backfill.id, look.window) == (ids[0], again)
    await backfills.looked(look)


async def test_a_look_that_was_not_done_is_due_again_until_it_is_given_up(
    backfills: BackfillStore,
) -> None:
    claim = await claimed(backfills, await backfills.add(job(), key=key()))
    await backfills.finish(claim, BackfillState.DONE, again=WINDOW, again_in=0)

    first = await backfills.take_look(seconds=0, give_up_after=60)
    second = await backfills.take_look(seconds=0, give_up_after=60)
    third = await backfills.take_look(seconds=0, give_up_after=-60)

    assert first is not None
    assert second is not None
    assert first.backfill.id == second.backfill.id == claim.backfill.id
    assert third is None


async def test_unfinished_jobs_are_bounded_and_ended_ones_are_pruned(empty_url: str) -> None:
    await migrate(empty_url, SQL)
    async with open_pool(empty_url) as pool:
        backfills = BackfillStore(pool, most_unfinished=3, most_ended=2)
        added = [await backfills.add(job(), key=key()) for _ in range(3)]
        with pytest.raises(TooManyBackfills) as refusal:
            await backfills.add(job(), key=key())
        assert refusal.value.most == 3
        for backfill in added:
            await backfills.cancel(backfill.id)

        last = await backfills.add(job(), key=key())

        kept = [backfill.id for backfill in await backfills.page(first=10)]
        assert kept == [last.id, added[2].id, added[1].id]


async def test_jobs_that_wait_for_a_provider_that_fails_take_no_place_of_others(
    empty_url: str,
) -> None:
    await migrate(empty_url, SQL)
    async with open_pool(empty_url) as pool:
        backfills = BackfillStore(pool, most_unfinished=2)
        for _ in range(2):
            claim = await claimed(backfills, await backfills.add(job(), key=key()))
            await put_off(backfills, claim)

        with pytest.raises(TooManyBackfills):
            await backfills.add(job(), key=key())
        others = [await backfills.add(job(provider="other"), key=key()) for _ in range(2)]
        with pytest.raises(TooManyBackfills):
            await backfills.add(job(provider="other"), key=key())

        assert {other.state for other in others} == {BackfillState.QUEUED}
