"""What every provider must pass: inherit `ProviderContract` and give it a fixture `offered`.

One that streams inherits `StreamContract` of `tests.plugins.stream_contract` too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.bars import Bars
from market.buckets import Grid
from market.calendars import calendar
from market.errors import UnknownName
from market.instrument import Instrument, Listing
from market.timeframe import Timeframe
from market.window import Spans, Window
from plugins.base import (
    History,
    NativeFrame,
    Page,
    Provider,
    TradesHistory,
)

# A provider is asked a few times here, not hundreds: some of them speak HTTP.
a_few_windows = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
fractions = st.floats(0, 1, allow_nan=False)


@dataclass(slots=True)
class Offered:
    """A provider and one stretch of its past that is over and holds at least two bars.

    The fixture ends with `await offered.aclose()`, which a test may have called before it.
    """

    provider: Provider
    instrument: Instrument
    frame: NativeFrame
    window: Window
    closed: bool = False

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            await self.provider.aclose()

    @property
    def listing(self) -> Listing:
        said = self.provider.description
        return Listing(
            said.name, self.instrument.market, self.instrument.symbol, dataset=said.dataset
        )


class ProviderContract:
    """The promises of `plugins.base`, asked of whatever `offered` returns."""

    def test_it_says_who_it_is_and_where_its_prices_come_from(self, offered: Offered) -> None:
        said = offered.provider.description

        assert said.name == said.name.lower().strip() != ""
        assert said.title
        assert said.attribution
        assert said.markets

    def test_its_clock_never_goes_back(self, offered: Offered) -> None:
        times = [offered.provider.clock.now() for _ in range(100)]

        assert times == sorted(times)
        assert all(type(time) is int for time in times)

    async def test_its_symbols_are_stable_and_unique(self, offered: Offered) -> None:
        first = await offered.provider.symbols()
        second = await offered.provider.symbols()

        assert list(first) == list(second)
        assert first
        assert len({(one.market, one.symbol) for one in first}) == len(first)

    async def test_its_symbols_are_its_own_and_their_calendars_known(
        self, offered: Offered
    ) -> None:
        said = offered.provider.description

        for instrument in await offered.provider.symbols():
            assert instrument.provider == said.name
            assert instrument.market in said.markets
            assert calendar(instrument.calendar).zone

    async def test_the_frames_it_offers_stand_on_a_grid(self, offered: Offered) -> None:
        for instrument in await offered.provider.symbols():
            offer = history_of(offered).history(instrument)
            frames = [frame.timeframe for frame in offer.frames]

            assert offer.page_limit > 0
            assert len(set(frames)) == len(frames) > 0
            for frame in offer.frames:
                assert grid_of(frame, instrument).at(offered.window.since) is not None

    async def test_bars_are_true_inside_the_window_and_not_from_the_future(
        self, offered: Offered
    ) -> None:
        page = await ask(offered, offered.window)

        bars = page.bars.checked()
        assert len(bars) > 1
        assert offered.window.since <= bars.time[0]
        assert bars.time[-1] < offered.window.until
        assert bars.time[-1] <= offered.provider.clock.now()

    async def test_bars_stand_on_the_grid_of_their_frame(self, offered: Offered) -> None:
        page = await ask(offered, offered.window)

        opens = grid_of(offered.frame, offered.instrument).opening_in(offered.window).opens
        assert np.isin(page.bars.time, opens).all()

    async def test_the_same_question_has_the_same_answer(self, offered: Offered) -> None:
        first = await ask(offered, offered.window)
        second = await ask(offered, offered.window)

        assert prices(first.bars) == prices(second.bars)
        assert first.covered == second.covered

    @a_few_windows
    @given(start=fractions, end=fractions)
    async def test_a_part_of_the_window_is_the_same_part_of_its_bars(
        self, offered: Offered, start: float, end: float
    ) -> None:
        since, until = sorted(
            offered.window.since + int(offered.window.length * at) for at in (start, end)
        )
        part = Window(since, until)
        whole = await ask(offered, offered.window)

        page = await ask(offered, part)

        assert prices(page.bars) == prices(whole.bars.slice(part))

    @a_few_windows
    @given(at=fractions)
    async def test_two_pages_side_by_side_are_the_window(self, offered: Offered, at: float) -> None:
        middle = offered.window.since + int(offered.window.length * at)

        left = await ask(offered, Window(offered.window.since, middle))
        right = await ask(offered, Window(middle, offered.window.until))

        whole = await ask(offered, offered.window)
        assert prices(Bars.concat((left.bars, right.bars))) == prices(whole.bars)

    async def test_it_vouches_for_the_bars_it_returns_and_for_nothing_else(
        self, offered: Offered
    ) -> None:
        page = await ask(offered, offered.window)

        vouched = page.covered
        assert vouched.contains(page.bars.time).all()
        assert vouched - Spans((offered.window,)) == Spans()
        assert vouched.hull.until <= offered.provider.clock.now()
        assert vouched & page.not_offered == Spans()
        assert page.not_offered - Spans((offered.window,)) == Spans()

    async def test_the_future_is_neither_returned_nor_vouched_for(self, offered: Offered) -> None:
        now = offered.provider.clock.now()
        step = offered.frame.timeframe.nominal

        page = await ask(offered, Window(now - 5 * step, now + 5 * step))

        after = offered.provider.clock.now()
        assert (page.bars.time <= after).all()
        assert page.covered.hull.until <= after
        assert (page.not_offered.clip(Window(after, now + 5 * step))) == Spans()

    async def test_an_empty_window_is_an_empty_page(self, offered: Offered) -> None:
        page = await ask(offered, Window(offered.window.since, offered.window.since))

        assert len(page.bars) == 0
        assert page.covered == Spans()

    async def test_before_its_first_time_it_has_no_bars(self, offered: Offered) -> None:
        frame = offered.frame.timeframe
        before = offered.window.since - 3 * frame.nominal

        first = await history_of(offered).first_time(offered.listing, frame, before)

        assert first is not None
        assert before <= first < offered.window.until
        bucket = grid_of(offered.frame, offered.instrument).at(first)
        assert bucket is not None
        assert bucket.since == first
        earlier = await ask(offered, Window(before, first))
        assert len(earlier.bars) == 0
        later = await ask(offered, Window(first, offered.window.until))
        assert later.covered.contains(np.array([first])).all()

    async def test_there_is_no_first_time_in_the_future(self, offered: Offered) -> None:
        later = offered.provider.clock.now() + 1000 * offered.frame.timeframe.nominal

        first = await history_of(offered).first_time(
            offered.listing, offered.frame.timeframe, later
        )

        assert first is None

    async def test_an_unknown_symbol_is_told_apart_from_one_without_bars(
        self, offered: Offered
    ) -> None:
        provider = history_of(offered)
        said = offered.provider.description
        unknown = Listing(said.name, offered.instrument.market, "NO/SUCH", dataset=said.dataset)

        with pytest.raises(UnknownName):
            await provider.bars(unknown, offered.frame.timeframe, offered.window)
        with pytest.raises(UnknownName):
            await provider.first_time(unknown, offered.frame.timeframe, offered.window.since)

    async def test_a_timeframe_that_is_not_offered_has_no_beginning_and_no_bars(
        self, offered: Offered
    ) -> None:
        provider, frame = history_of(offered), Timeframe.parse("37m")

        first = await provider.first_time(offered.listing, frame, offered.window.since)

        assert first is None
        with pytest.raises(UnknownName):
            await provider.bars(offered.listing, frame, offered.window)

    async def test_nothing_of_it_runs_on_after_it_is_closed(self, offered: Offered) -> None:
        await ask(offered, offered.window)

        await offered.aclose()

        assert asyncio.all_tasks() == {asyncio.current_task()}


class TradesContract:
    """What one that offers past trades must pass besides; the first 10 minutes hold some."""

    async def test_trades_are_inside_the_window_in_order_and_each_once(
        self, offered: Offered
    ) -> None:
        assert isinstance(offered.provider, TradesHistory)
        window = Window(offered.window.since, offered.window.since + 600_000)

        trades = await offered.provider.trades(offered.listing, window)

        times = [trade.time for trade in trades]
        assert times == sorted(times)
        assert all(window.since <= time < window.until for time in times)
        assert len({trade.id for trade in trades}) == len(trades) > 0
        assert all(trade.price > 0 and trade.amount > 0 for trade in trades)


def history_of(offered: Offered) -> History:
    assert isinstance(offered.provider, History)
    return offered.provider


async def ask(offered: Offered, window: Window) -> Page:
    return await history_of(offered).bars(offered.listing, offered.frame.timeframe, window)


def grid_of(frame: NativeFrame, instrument: Instrument) -> Grid:
    traded = calendar(instrument.calendar)
    return Grid(
        frame.timeframe,
        zone=frame.timezone or traded.zone,
        session=frame.session,
        calendar=traded,
    )


def prices(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))
