"""What every provider that streams must pass besides `ProviderContract`.

Inherit `StreamContract` as well, and let the fixture `offered` return a `Live`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from market.bars import Bars
from market.errors import UnknownName
from market.instrument import Listing
from market.window import Window
from plugins.base import (
    Stream,
    StreamsBars,
    StreamsBooks,
    StreamsTickers,
    StreamsTrades,
    Trade,
    TradesHistory,
)
from tests.plugins.contract import Offered, ask, grid_of, history_of, prices

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
