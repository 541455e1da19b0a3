"""What every provider must pass: inherit `ProviderContract` and give it a fixture `offered`.

One that streams inherits `StreamContract` too, and its fixture returns a `Live`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

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
    Stream,
    StreamsBars,
    StreamsBooks,
    StreamsTickers,
    StreamsTrades,
    Trade,
    TradesHistory,
)

# A provider is asked a few times here, not hundreds: some of them speak HTTP.
a_few_windows = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
fractions = st.floats(0, 1, allow_nan=False)

CAPABILITIES = {
    "bars": StreamsBars,
    "trades": StreamsTrades,
    "book": StreamsBooks,
    "ticker": StreamsTickers,
}
every_kind = pytest.mark.parametrize("kind", CAPABILITIES)
PATIENCE = 60.0
"""Seconds after which what should have come counts as lost."""
PAUSE = 0.05
"""Seconds for which a listener hears nothing before the market moves again."""


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


@dataclass(slots=True, kw_only=True)
class Live(Offered):
    """One whose market moves only when told, so that nothing happens between two calls.

    *advance* moves it on by a part of a bar of *frame*, trades and quotes included, and may
    return before its streams have told of it; *frame* is one that is streamed. *kinds* are those of
    `CAPABILITIES` that it has. One that *confirms* sends a first batch before anything happens.
    """

    advance: Callable[[], Awaitable[None]]
    kinds: frozenset[str]
    confirms: bool = True

    def stream(self, kind: str, *, listing: Listing | None = None) -> Stream[Any]:
        if kind not in self.kinds:
            pytest.skip(f"{self.provider.description.name} streams no {kind}")
        asked = listing or self.listing
        provider: Any = self.provider
        match kind:
            case "bars":
                return provider.stream_bars(asked, self.frame.timeframe)
            case "trades":
                return provider.stream_trades(asked)
            case "book":
                return provider.stream_book(asked, 5)
            case _:
                return provider.stream_ticker(asked)


class Listener:
    """Reads a stream in a task; *heard* are its batches that say something."""

    def __init__(self, live: Live, stream: Stream[Any]) -> None:
        self._live = live
        self._stream = stream
        self._news = asyncio.Event()
        self._begun = asyncio.Event()
        self.heard: list[Any] = []
        self.reading = asyncio.create_task(self._read())

    async def begun(self) -> None:
        """Wait for the first batch."""
        async with asyncio.timeout(PATIENCE):
            while not self._begun.is_set():
                if not self._live.confirms:
                    await self._live.advance()
                await self._pause()

    async def until(self, enough: Callable[[], bool]) -> None:
        """Move the market until *enough* was heard."""
        async with asyncio.timeout(PATIENCE):
            while not enough():
                await self._live.advance()
                await self._pause()

    async def quiet(self) -> None:
        """Wait until nothing more comes while the market stands still."""
        async with asyncio.timeout(PATIENCE):
            while await self._pause():
                pass

    async def _pause(self) -> bool:
        if self.reading.done():
            self.reading.result()
            raise AssertionError("the stream has ended by itself")
        self._news.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), PAUSE)
        return self._news.is_set()

    async def _read(self) -> None:
        async for batch in self._stream:
            self._begun.set()
            self._news.set()
            if batch is not None and (not hasattr(batch, "__len__") or len(batch)):
                self.heard.append(batch)


@asynccontextmanager
async def listening(live: Live, kind: str) -> AsyncIterator[Listener]:
    """Open a stream, wait until it has begun, and close it at the end."""
    stream = live.stream(kind)
    listener = Listener(live, stream)
    try:
        await listener.begun()
        yield listener
    finally:
        await stream.aclose()
        await asyncio.wait_for(listener.reading, PATIENCE)


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


class StreamContract:
    """What one that streams must pass besides; `offered` is a `Live`."""

    def test_it_streams_what_it_is_said_to_stream(self, offered: Live) -> None:
        has = {kind for kind, can in CAPABILITIES.items() if isinstance(offered.provider, can)}

        assert has == offered.kinds

    async def test_frames_that_are_streamed_are_frames_of_history(self, offered: Live) -> None:
        if not isinstance(offered.provider, StreamsBars):
            pytest.skip("it streams no bars")

        for instrument in await offered.provider.symbols():
            streamed = offered.provider.streamed_frames(instrument)
            offer = history_of(offered).history(instrument)

            assert len(set(streamed)) == len(streamed)
            assert set(streamed) <= {frame.timeframe for frame in offer.frames}
        assert offered.frame.timeframe in offered.provider.streamed_frames(offered.instrument)

    @every_kind
    async def test_the_first_batch_comes_while_the_market_stands_still(
        self, offered: Live, kind: str
    ) -> None:
        if not offered.confirms:
            pytest.skip("it never confirms a subscription")
        stream = offered.stream(kind)

        await asyncio.wait_for(anext(aiter(stream)), PATIENCE)

        await stream.aclose()

    @every_kind
    async def test_closing_ends_the_task_that_waits_for_the_next_batch(
        self, offered: Live, kind: str
    ) -> None:
        stream = offered.stream(kind)
        listener = Listener(offered, stream)
        await listener.begun()
        await listener.quiet()

        await stream.aclose()

        assert await asyncio.wait_for(listener.reading, PATIENCE) is None

    @every_kind
    async def test_a_closed_stream_tells_nothing_more(self, offered: Live, kind: str) -> None:
        stream = offered.stream(kind)
        async with listening(offered, kind):
            await stream.aclose()
            await offered.advance()

            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(aiter(stream)), PATIENCE)

    @every_kind
    async def test_one_that_leaves_does_not_disturb_another(self, offered: Live, kind: str) -> None:
        async with listening(offered, kind) as staying:
            async with listening(offered, kind):
                pass
            before = len(staying.heard)

            await staying.until(lambda: len(staying.heard) > before)

    @every_kind
    async def test_a_symbol_that_is_unknown_cannot_be_streamed(
        self, offered: Live, kind: str
    ) -> None:
        said = offered.provider.description
        unknown = Listing(said.name, offered.instrument.market, "NO/SUCH", dataset=said.dataset)

        with pytest.raises(UnknownName):
            await asyncio.wait_for(anext(aiter(offered.stream(kind, listing=unknown))), PATIENCE)

    @every_kind
    async def test_no_stream_leaves_anything_running(self, offered: Live, kind: str) -> None:
        async with listening(offered, kind) as listener:
            await listener.until(lambda: len(listener.heard) > 1)

        await offered.aclose()

        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_streamed_bars_end_as_the_bars_of_history(self, offered: Live) -> None:
        grid = grid_of(offered.frame, offered.instrument)
        async with listening(offered, "bars") as listener:
            now = offered.provider.clock.now()
            bucket = grid.at(now)
            since = now if bucket is None else bucket.until

            await listener.until(lambda: len(ended(listener.heard, since)) > 2)

            streamed = ended(listener.heard, since)
            page = await ask(offered, Window(since, max(streamed) + 1))
        assert list(streamed.values()) == prices(page.bars)

    async def test_a_streamed_bar_grows_and_is_not_open_again_once_it_closed(
        self, offered: Live
    ) -> None:
        async with listening(offered, "bars") as listener:
            await listener.until(lambda: len(ended(listener.heard, 0)) > 2)

        opens = grid_of(offered.frame, offered.instrument)
        running: dict[int, tuple[float, ...]] = {}
        closed: set[int] = set()
        for bars in listener.heard:
            bars.checked()
            for bar, is_closed in zip(prices(bars), bars.is_closed.tolist(), strict=True):
                time, open_, high, low, _, volume = bar
                bucket = opens.at(int(time))
                assert bucket is not None
                assert bucket.since == time
                assert is_closed or (time not in closed and time >= max(closed, default=0))
                if time in running and time not in closed:
                    before = running[time]
                    assert open_ == before[1]
                    assert high >= before[2]
                    assert low <= before[3]
                    assert volume >= before[5]
                running[time] = bar
                closed |= {time} if is_closed else set()

    async def test_every_trade_is_streamed_once_and_in_order(self, offered: Live) -> None:
        async with listening(offered, "trades") as listener:
            since = offered.provider.clock.now()

            await listener.until(lambda: sum(map(len, listener.heard)) > 5)

            streamed: Sequence[Trade] = [trade for batch in listener.heard for trade in batch]
            if isinstance(offered.provider, TradesHistory):
                # Those of the last millisecond may be under way.
                window = Window(min(since, streamed[0].time), streamed[-1].time + 1)
                past = await offered.provider.trades(offered.listing, window)
                known = list(past)[list(past).index(streamed[0]) :]
                assert streamed == known[: len(streamed)]
                assert all(trade.time == streamed[-1].time for trade in known[len(streamed) :])
                assert all(trade.time <= since for trade in past if trade not in known)
        assert [trade.time for trade in streamed] == sorted(trade.time for trade in streamed)
        assert len({trade.id for trade in streamed}) == len(streamed)
        assert all(trade.price > 0 and trade.amount > 0 for trade in streamed)

    async def test_a_streamed_book_is_whole_and_its_sides_do_not_cross(self, offered: Live) -> None:
        async with listening(offered, "book") as listener:
            await listener.until(lambda: len(listener.heard) > 3)

        for book in listener.heard:
            bids = [price for price, _ in book.bids]
            asks = [price for price, _ in book.asks]
            assert bids == sorted(set(bids), reverse=True)
            assert asks == sorted(set(asks))
            assert bids[0] < asks[0]
            assert min(amount for _, amount in (*book.bids, *book.asks)) > 0
        order = [(book.sequence or 0, book.time) for book in listener.heard]
        assert order == sorted(order)

    async def test_a_streamed_ticker_goes_on_in_time(self, offered: Live) -> None:
        async with listening(offered, "ticker") as listener:
            await listener.until(lambda: len(listener.heard) > 3)

        times = [ticker.time for ticker in listener.heard]
        assert times == sorted(times)
        for ticker in listener.heard:
            assert ticker.last is None or ticker.last > 0
            assert None in (ticker.bid, ticker.ask) or ticker.bid < ticker.ask
        assert any(ticker.last or ticker.bid for ticker in listener.heard)


def ended(heard: Sequence[Bars], since: int) -> dict[int, tuple[float, ...]]:
    """Return the last state of each bar from *since* on that closed or that another followed."""
    states: dict[int, tuple[float, ...]] = {}
    running: set[int] = set()
    for bars in heard:
        for bar, is_closed in zip(prices(bars), bars.is_closed.tolist(), strict=True):
            states[int(bar[0])] = bar
            (running.discard if is_closed else running.add)(int(bar[0]))
    newest = max(states, default=0)
    over = (time for time in sorted(states) if time >= since)
    return {time: states[time] for time in over if time < newest or time not in running}


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
