"""Whatever an exchange does to its pages, what is covered is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.window import MINUTE, Spans, Window
from plugins.ccxt_exchange.paging import MAX_ASKS, Row, find_first, read_window

START = 1_700_000_040_000
ROW: Row = (2.0, 3.0, 1.0, 2.5, 10.0)
minutes = st.integers(0, 120)


@dataclass(slots=True)
class Exchange:
    """An exchange of one market whose trading minutes are counted from `START`."""

    traded: frozenset[int]
    cap: int = 30
    ignores_since: bool = False
    stretch_only: bool = False
    newest_first: bool = False
    takes_until: bool = True
    newest_only: int | None = None
    cuts_every: int = 0
    asks: int = 0

    @property
    def times(self) -> list[int]:
        """Everything that it still has, oldest first."""
        newest = len(self.traded) if self.newest_only is None else self.newest_only
        return self.times_ever[max(0, len(self.traded) - newest) :]

    @property
    def times_ever(self) -> list[int]:
        return [START + minute * MINUTE for minute in sorted(self.traded)]

    async def ask(self, since: int, count: int, until: int | None = None) -> Mapping[int, Row]:
        self.asks += 1
        times = self.times
        if not self.ignores_since:
            times = [t for t in times if t >= since]
            if self.stretch_only:
                times = [t for t in times if t < since + count * MINUTE]
        if until is not None and self.takes_until:
            times = [t for t in times if t <= until]
        size = min(count, self.cap)
        newest = self.ignores_since or self.newest_first
        times = times[-size:] if newest else times[:size]
        if self.cuts_every and self.asks % self.cuts_every == 0:
            times = times[: (len(times) + 1) // 2]
        # ccxt drops what an exchange sends from before *since*.
        return {t: ROW for t in times if t >= since}


exchanges = st.builds(
    Exchange,
    traded=st.frozensets(minutes) | st.just(frozenset(range(121))),
    cap=st.integers(3, 40),
    ignores_since=st.booleans(),
    stretch_only=st.booleans(),
    newest_first=st.booleans(),
    takes_until=st.booleans(),
    newest_only=st.none() | st.integers(1, 60),
) | st.builds(
    Exchange,
    traded=st.frozensets(minutes) | st.just(frozenset(range(121))),
    cap=st.integers(3, 40),
    stretch_only=st.booleans(),
    cuts_every=st.integers(1, 3),
)


@settings(deadline=None)
@given(exchange=exchanges, start=minutes, length=st.integers(0, 60), limit=st.integers(3, 40))
async def test_a_minute_is_covered_only_if_its_row_came_or_it_had_no_trades(
    exchange: Exchange, start: int, length: int, limit: int
) -> None:
    window = Window(START + start * MINUTE, START + (start + length) * MINUTE)
    now = START + 121 * MINUTE

    answer = await read_window(exchange.ask, window, step=MINUTE, limit=limit, now=now)

    # One that answers by stretches does not show whether it forgot or nothing was traded.
    missed = [
        time
        for time in (exchange.times if exchange.stretch_only else exchange.times_ever)
        if Spans.of(time, time + 1).clip(window) & answer.covered and time not in answer.rows
    ]
    assert missed == []
    assert all(time in exchange.times for time in answer.rows)
    assert answer.covered & answer.not_offered == Spans()
    assert exchange.asks <= MAX_ASKS


@settings(deadline=None)
@given(
    traded=st.frozensets(minutes),
    stretch_only=st.booleans(),
    start=minutes,
    length=st.integers(1, 30),
)
async def test_of_an_exchange_that_does_as_documented_nothing_stays_unknown(
    traded: frozenset[int], stretch_only: bool, start: int, length: int
) -> None:
    exchange = Exchange(traded, stretch_only=stretch_only)
    window = Window(START + start * MINUTE, START + (start + length) * MINUTE)
    now = START + 200 * MINUTE

    answer = await read_window(exchange.ask, window, step=MINUTE, limit=30, now=now)

    expected = [time for time in exchange.times if window.since <= time < window.until]
    assert list(answer.rows) == expected
    assert answer.covered | answer.not_offered == Spans((window,))
    listed = exchange.times[0] if traded else now
    assert answer.not_offered - Spans.of(0, listed) == Spans()


async def test_a_full_page_takes_one_call() -> None:
    exchange = Exchange(frozenset(range(120)))
    window = Window(START, START + 30 * MINUTE)

    await read_window(exchange.ask, window, step=MINUTE, limit=30, now=START + 200 * MINUTE)

    assert exchange.asks == 1


async def test_calls_stop_at_the_allowed_number_and_the_rest_stays_unknown() -> None:
    exchange = Exchange(frozenset(range(120)), cap=10)
    window = Window(START, START + 100 * MINUTE)

    answer = await read_window(
        exchange.ask, window, step=MINUTE, limit=100, now=START + 200 * MINUTE, max_asks=4
    )

    assert exchange.asks == 4
    assert answer.covered == Spans.of(START, START + 40 * MINUTE)
    assert answer.not_offered == Spans()


@settings(deadline=None)
@given(
    traded=st.frozensets(st.integers(0, 5000), max_size=8),
    stretch_only=st.booleans(),
    since=st.integers(0, 5000),
)
async def test_the_first_time_is_that_of_the_oldest_row_not_before_since(
    traded: frozenset[int], stretch_only: bool, since: int
) -> None:
    fine = Exchange(traded, stretch_only=stretch_only)
    now = START + 5100 * MINUTE

    async def hours(since: int, count: int, until: int | None = None) -> Mapping[int, Row]:
        until = since + count * 60 * MINUTE if stretch_only else now
        opens = {time // (60 * MINUTE) * 60 * MINUTE for time in fine.times}
        return {t: ROW for t in sorted(opens) if since <= t < until}

    first = await find_first(
        {MINUTE: fine.ask, 60 * MINUTE: hours}, START + since * MINUTE, limit=30, now=now
    )

    later = [time for time in fine.times if time >= START + since * MINUTE]
    assert first == (later[0] if later else None)


async def test_a_search_that_takes_too_many_calls_says_so() -> None:
    exchange = Exchange(frozenset([5000]), stretch_only=True)

    with pytest.raises(LookupError):
        await find_first(
            {MINUTE: exchange.ask}, START, limit=10, now=START + 5100 * MINUTE, max_asks=5
        )

    assert exchange.asks == 5
