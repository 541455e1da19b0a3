"""Trades are stored once, and a minute is made of all of them as soon as they are told whole."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from itertools import pairwise

import asyncpg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from db.candles import CandleStore
from db.pool import open_pool
from db.raw_trades import RawTradeStore
from db.stored import SeriesKey
from db.told import MOST_SPANS, US
from market.bars import CLOSED, FROM_TRADES
from market.errors import InvalidBars
from market.window import DAY, MINUTE, Spans
from tests.db.minutes import T0, assert_views_exact, fresh_key, minutes, put, stored
from tests.db.trades import (
    LATE,
    PROOF,
    SETTLE,
    Deal,
    assert_made_of,
    tell,
    telling,
    trades_in,
)

T1, T2, T3 = T0 + MINUTE, T0 + 2 * MINUTE, T0 + 3 * MINUTE
TWO = [Deal.of("1", T0 + 5, 10.0, 2.0), Deal.of("2", T0 + 59_999, 12.0, 1.0)]


async def test_a_whole_minute_becomes_a_bar_with_its_count_and_vwap(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()

    answer = await tell(store, key, TWO, T0, T1 + LATE)

    bars = await stored(store, key)
    assert_made_of(bars, TWO)
    assert bars.trades.tolist() == [2]
    assert bars.vwap.tolist() == [32 / 3]
    assert bars.flags.tolist() == [FROM_TRADES | CLOSED]
    assert bars.updated.tolist() == [T0 + 59_999]
    assert answer.newest_bar == T0
    assert answer.state.position == 1
    await assert_views_exact(pool, key)


async def test_a_minute_that_is_not_over_is_not_stored(store: CandleStore) -> None:
    key = fresh_key()

    await tell(store, key, TWO, T0, T1 + LATE - 1)

    assert len(await stored(store, key)) == 0


async def test_the_rest_of_a_minute_completes_it(store: CandleStore) -> None:
    key = fresh_key()
    await tell(store, key, TWO[:1], T0, T0 + 30_000)

    await tell(store, key, TWO[1:], T0 + 30_000, T1 + LATE)

    assert_made_of(await stored(store, key), TWO)


async def test_a_minute_joined_in_its_middle_leaves_the_whole_bar_alone(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]))

    await tell(store, key, TWO, T0 + 1, T2 + LATE)

    assert (await stored(store, key)).close.tolist() == [10.0]
    assert await trades_in(pool, key) == TWO


async def test_a_hole_of_a_microsecond_keeps_a_minute_from_being_whole(store: CandleStore) -> None:
    key = fresh_key()
    await tell(store, key, TWO[:1], T0, T0 + 30_000)

    await tell(store, key, TWO[1:], T0 + 30_000.001, T1 + LATE)

    assert len(await stored(store, key)) == 0


async def test_what_fills_the_hole_completes_the_minute(store: CandleStore) -> None:
    key = fresh_key()
    await tell(store, key, TWO[1:], T0 + 30_000, T1 + LATE)

    await tell(store, key, TWO[:1], T0, T0 + 30_000)

    assert_made_of(await stored(store, key), TWO)


async def test_a_late_trade_revises_its_bar_and_all_above_it(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    late = Deal.of("3", T0 + 40, 99.0, 7.0)
    await tell(store, key, TWO, T0, T3 + SETTLE)

    await tell(store, key, [late], T3 + SETTLE, T3 + SETTLE + 1)

    bars = await stored(store, key)
    assert_made_of(bars, [*TWO, late])
    assert bars.revision.tolist() == [2]
    await assert_views_exact(pool, key)


async def test_trades_told_twice_change_nothing(store: CandleStore, pool: asyncpg.Pool) -> None:
    key = fresh_key()
    first = await tell(store, key, TWO, T0, T1 + LATE)

    again = await tell(store, key, [*TWO, *TWO], T0, T1 + LATE)

    assert await trades_in(pool, key) == TWO
    assert again.state == first.state
    assert (await stored(store, key)).revision.tolist() == [1]


async def test_trades_told_twice_leave_room_for_new_ones_beside_them(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    new = Deal.of("a-longer-name", T0 + 6, 11.0)
    await tell(store, key, TWO, T0, T0 + 30_000)

    await tell(store, key, [*TWO, new], T0 + 30_000, T1 + LATE)

    assert await trades_in(pool, key) == sorted([*TWO, new])
    assert_made_of(await stored(store, key), [*TWO, new])


async def test_trades_of_one_instant_are_ordered_by_number(store: CandleStore) -> None:
    key = fresh_key()
    deals = [Deal.of(str(n), T0, float(n)) for n in (11, 9, 10, 100)]

    await tell(store, key, deals, T0, T1 + LATE)

    bars = await stored(store, key)
    assert (bars.open.tolist(), bars.close.tolist()) == ([9.0], [100.0])


async def test_minutes_are_known_once_the_stream_was_followed_until_they_settled(
    store: CandleStore,
) -> None:
    key = fresh_key()

    answer = await tell(store, key, TWO, T0 - 5, T3 + SETTLE - 1)

    assert answer.state.known == Spans.of(T0, T2)


async def test_an_empty_minute_is_not_known_where_there_is_a_hole(store: CandleStore) -> None:
    key = fresh_key()
    await tell(store, key, TWO, T0, T1 + LATE)

    answer = await tell(store, key, [], T1 + LATE + 1, T2 + SETTLE + LATE + 1)

    assert answer.state.known == Spans()


async def test_a_settled_minute_stands_again_where_history_said_less_in_between(
    store: CandleStore,
) -> None:
    key = fresh_key()
    await tell(store, key, TWO, T0, T1 + LATE)
    await put(store, key, minutes([T0]), T1 + LATE + 1)

    await tell(store, key, [], T1 + LATE, T1 + SETTLE)

    bars = await stored(store, key)
    assert_made_of(bars, TWO)
    assert bars.revision.tolist() == [3]


async def test_a_later_look_at_history_stands_against_an_older_telling(store: CandleStore) -> None:
    key = fresh_key()
    await put(store, key, minutes([T0]), T1 + LATE + 1)

    await tell(store, key, TWO, T0, T1 + LATE)

    assert (await stored(store, key)).close.tolist() == [10.0]


async def test_many_series_are_told_in_one_transaction(store: CandleStore) -> None:
    keys = [fresh_key() for _ in range(20)]
    raw = RawTradeStore(store, proof=PROOF)

    answers = await raw.write([telling(key, TWO, T0, T1 + LATE) for key in keys])

    assert [answer.key for answer in answers] == keys
    for key in keys:
        assert_made_of(await stored(store, key), TWO)


async def test_nothing_of_a_write_is_stored_if_a_bar_cannot_be_true(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    good, bad = fresh_key(), fresh_key()
    endless = [Deal.of("1", T0, 1.0, 1e308), Deal.of("2", T0, 1.0, 1e308)]
    raw = RawTradeStore(store, proof=PROOF)

    with pytest.raises(InvalidBars):
        await raw.write([telling(good, TWO, T0, T1 + LATE), telling(bad, endless, T0, T1 + LATE)])

    assert await trades_in(pool, good) == []
    assert await raw.told(good) == Spans()


async def test_a_number_that_is_none_is_refused(store: CandleStore, pool: asyncpg.Pool) -> None:
    key = fresh_key()

    with pytest.raises(InvalidBars):
        await tell(store, key, [Deal.of("1", T0, float("nan"))], T0, T0 + 1)

    assert await trades_in(pool, key) == []


async def test_only_so_many_stretches_are_remembered(store: CandleStore) -> None:
    key = fresh_key()
    raw = RawTradeStore(store, proof=PROOF)
    holes = [telling(key, [], T0 + 2 * n, T0 + 2 * n + 1) for n in range(MOST_SPANS + 10)]

    await raw.write(holes)

    assert len(await raw.told(key)) == MOST_SPANS


async def test_writers_of_one_minute_leave_nobodys_trades_out(store_url: str) -> None:
    key = fresh_key()
    deals = [Deal.of(str(n), T0 + n * 59, 100 + n % 17 / 8, n % 5 / 10) for n in range(1000)]
    pieces = [deals[n::10] for n in range(10)]
    cuts = np.linspace(T0, T1 + LATE, 11).round().tolist()
    async with open_pool(store_url) as pool:
        store = CandleStore(pool)

        await asyncio.gather(
            *(
                tell(store, key, piece, since, until)
                for piece, since, until in zip(pieces, cuts, cuts[1:], strict=False)
            )
        )

        assert_made_of(await stored(store, key), deals)
        await assert_views_exact(pool, key)


prices = st.integers(1, 2**53).map(lambda ticks: ticks / 2**20)
amounts = st.one_of(st.just(0.0), st.floats(1e-9, 1e9))
traded = st.builds(
    Deal.of,
    st.text("0123456789", min_size=1, max_size=12),
    st.integers(T0, T3 - 1),
    prices,
    amounts,
)


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[Deal], list[tuple[list[Deal], float, float]]]:
    """Trades of three minutes, and the pieces in which they are told: cut, shuffled, repeated."""
    deals = draw(st.lists(traded, max_size=30, unique_by=lambda deal: (deal.time, deal.id)))
    end = T3 + draw(st.sampled_from([LATE, SETTLE]))
    cuts = sorted({T0, end, *draw(st.lists(st.integers(T0, end), max_size=8))})
    spans = list(pairwise(cuts))
    # A trade is told by a piece that ends after it happened, however late.
    home = [draw(st.sampled_from([s for s in spans if s[1] > deal.time])) for deal in deals]
    pieces = [
        ([d for d, own in zip(deals, home, strict=True) if own == span], *span) for span in spans
    ]
    again = draw(st.lists(st.sampled_from(pieces), max_size=4))
    order = draw(st.permutations([*pieces, *again]))
    return deals, order


@hypothesis_settings(max_examples=40)
@given(tellings(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_bars_are_the_same_however_trades_are_cut_ordered_and_repeated(
    store_url: str,
    told: tuple[list[Deal], list[tuple[list[Deal], float, float]]],
    at_once: int,
    shuffling: random.Random,
) -> None:
    deals, pieces = told

    async def run() -> None:
        key = fresh_key()
        async with open_pool(store_url) as pool:
            store = CandleStore(pool)
            raw = RawTradeStore(store, proof=PROOF)
            for n in range(0, len(pieces), at_once):
                some = pieces[n : n + at_once]
                for piece, _, _ in some:
                    shuffling.shuffle(piece)
                await raw.write([telling(key, *piece) for piece in some])
            assert await trades_in(pool, key) == sorted(deals)
            assert_made_of(await stored(store, key), deals)
            await assert_views_exact(pool, key)

    asyncio.run(run())


async def test_bars_outlive_trades_that_are_forgotten_and_nothing_late_revises_them(
    store: CandleStore, pool: asyncpg.Pool
) -> None:
    key = fresh_key()
    old = T0 - 3 * DAY
    await tell(store, key, [Deal.of("0", old + 5, 13.0), *TWO], old, T3)
    before = await stored(store, key)

    await pool.execute("SELECT forget_trades($1)", datetime.fromtimestamp(T0 / 1000 + 30, UTC))
    await tell(store, key, [Deal.of("3", old + 7, 99.0)], T3, T3 + 1)

    assert [deal.id for deal in await trades_in(pool, key)] == ["3", "1", "2"]
    assert await stored(store, key) == before
    assert await RawTradeStore(store, proof=PROOF).told(key) == Spans.of(T0 * US, (T3 + 1) * US)


async def test_an_unknown_series_was_never_told(store: CandleStore) -> None:
    key: SeriesKey = fresh_key()

    assert await RawTradeStore(store, proof=PROOF).told(key) == Spans()
