"""Alpaca's streams, as a local server speaks msgpack to the real alpaca-py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import CLOSED, Bars
from market.clock import FixedClock
from market.errors import BadInput, BargraphError, ProviderUnavailable, UnknownName
from market.instrument import Listing
from market.quotes import OrderBook, Ticker
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import MINUTE, Window
from plugins.alpaca import AlpacaProvider
from plugins.alpaca.book import Book
from plugins.alpaca.seat import QUEUED
from plugins.base import NativeFrame, Stream, Trade
from tests.alpaca_server import AlpacaServer, StreamEndpoint, alpaca_server
from tests.alpaca_server.server import stamp
from tests.plugins.stream_contract import CAPABILITIES, Live, StreamContract

NOW = 1_700_000_020_000
MINUTE_BEFORE = NOW // MINUTE * MINUTE - MINUTE
APPLE = Listing("alpaca", "stocks", "AAPL", dataset="iex")
SPY = Listing("alpaca", "stocks", "SPY", dataset="iex")
BITCOIN = Listing("alpaca", "crypto", "BTC/USD", dataset="iex")
ETHER = Listing("alpaca", "crypto", "ETH/USD", dataset="iex")
_SECONDS = 10

T = TypeVar("T")


@pytest.fixture
async def server() -> AsyncIterator[AlpacaServer]:
    async with alpaca_server(now=NOW) as running:
        yield running


@pytest.fixture
async def alpaca(server: AlpacaServer) -> AsyncIterator[AlpacaProvider]:
    provider = AlpacaProvider(
        server.keys, clock=FixedClock(NOW), addresses=server.addresses, timeout=5
    )
    yield provider
    await provider.aclose()


@pytest.fixture
def iex(server: AlpacaServer) -> StreamEndpoint:
    return server.stream("iex")


@pytest.fixture
def crypto(server: AlpacaServer) -> StreamEndpoint:
    return server.stream("crypto")


async def soon(work: Awaitable[T]) -> T:
    async with asyncio.timeout(_SECONDS):
        return await work


async def batch(stream: Stream[T]) -> T:
    """Return the next batch, whatever it holds."""
    return await soon(anext(aiter(stream)))


@asynccontextmanager
async def joined(stream: Stream[T], empty: Any) -> AsyncIterator[Stream[T]]:
    """Join, check the first batch, and leave at the end."""
    try:
        assert await batch(stream) == empty
        yield stream
    finally:
        await soon(stream.aclose())


def trade(symbol: str, number: int, *, at: int = NOW, **changed: Any) -> dict[str, Any]:
    made = {"i": number, "x": "V", "p": 100.0 + number, "s": 2, "c": ["@"], "z": "C"}
    return {"T": "t", "S": symbol, **made, "t": stamp(at), **changed}


def quote(symbol: str, bid: float, ask: float, *, at: int = NOW) -> dict[str, Any]:
    made = {"bp": bid, "bs": 3.0, "ap": ask, "as": 4.0}
    return {"T": "q", "S": symbol, **made, "t": stamp(at)}


def book(
    bids: Sequence[tuple[float, float]],
    asks: Sequence[tuple[float, float]],
    *,
    at: int = NOW,
    symbol: str = "BTC/USD",
    whole: bool = False,
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "b": [{"p": price, "s": size} for price, size in bids],
        "a": [{"p": price, "s": size} for price, size in asks],
    }
    return {"T": "o", "S": symbol, **made, "t": stamp(at)} | ({"r": True} if whole else {})


class TestContract(StreamContract):
    """Crypto, which has all of them, keeps the contract of streams."""

    @pytest.fixture
    async def offered(self, server: AlpacaServer) -> AsyncIterator[Live]:
        clock = FixedClock(NOW)
        provider = AlpacaProvider(server.keys, clock=clock, addresses=server.addresses)
        instrument = next(one for one in await provider.symbols() if one.symbol == "BTC/USD")

        async def advance() -> None:
            clock.at += 15_000
            await server.move("BTC/USD", 15_000)

        offered = Live(
            provider,
            instrument,
            NativeFrame(MINUTE_FRAME),
            Window(NOW - 10 * MINUTE, NOW - 5 * MINUTE),
            advance=advance,
            kinds=frozenset(CAPABILITIES),
        )
        yield offered
        await offered.aclose()


# Bars


async def test_a_minute_comes_closed_and_again_when_it_is_corrected(
    server: AlpacaServer, alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_bars(APPLE, MINUTE_FRAME), Bars.empty()) as stream:
        await iex.push(server.bar("AAPL", MINUTE_BEFORE))
        first = await batch(stream)
        await iex.push(server.bar("AAPL", MINUTE_BEFORE, kind="u", c=11.5, v=6.0))
        second = await batch(stream)

    assert (first.time.tolist(), first.close.tolist()) == ([MINUTE_BEFORE], [11.0])
    assert (second.time.tolist(), second.close.tolist()) == ([MINUTE_BEFORE], [11.5])
    assert first.flags.tolist() == second.flags.tolist() == [CLOSED]
    assert (first.volume[0], first.vwap[0], first.trades[0]) == (5.0, 10.5, 3)
    assert first.merge(second) == second == second.merge(first)


async def test_bars_and_their_corrections_are_subscribed_to_and_days_are_not(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_bars(APPLE, MINUTE_FRAME), Bars.empty()):
        assert iex.requests == [{"action": "subscribe", "bars": ["AAPL"], "updatedBars": ["AAPL"]}]


async def test_bars_that_come_at_once_are_told_one_by_one_in_their_order(
    server: AlpacaServer, alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_bars(BITCOIN, MINUTE_FRAME), Bars.empty()) as stream:
        await crypto.push(
            server.bar("BTC/USD", MINUTE_BEFORE),
            server.bar("BTC/USD", MINUTE_BEFORE - MINUTE, kind="u"),
            server.bar("BTC/USD", MINUTE_BEFORE + MINUTE, v=0.0, n=0, vw=0.0),
        )
        came = [await batch(stream) for _ in range(3)]

    assert [int(bars.time[0] - MINUTE_BEFORE) for bars in came] == [0, -MINUTE, MINUTE]
    assert str(came[2].vwap[0]) == "nan"


async def test_only_minutes_are_pushed(alpaca: AlpacaProvider) -> None:
    instrument = (await alpaca.symbols())[0]

    assert alpaca.streamed_frames(instrument) == (MINUTE_FRAME,)
    with pytest.raises(UnknownName):
        alpaca.stream_bars(APPLE, Timeframe.parse("1d"))


# Trades, tickers, books


async def test_every_trade_is_told_once_in_alpaca_s_order(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_trades(APPLE), ()) as stream:
        await iex.push(trade("AAPL", 2), trade("AAPL", 1), trade("SPY", 9), trade("AAPL", 3, s=0))
        await iex.push(trade("AAPL", 4, x="D"))

        assert await batch(stream) == [
            Trade("V-2", NOW, 102.0, 2.0),
            Trade("V-1", NOW, 101.0, 2.0),
        ]
        assert await batch(stream) == [Trade("D-4", NOW, 104.0, 2.0)]


async def test_a_ticker_holds_the_newest_trade_and_quote(
    alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_ticker(BITCOIN), None) as stream:
        await crypto.push(quote("BTC/USD", 99.0, 101.0))
        await crypto.push(trade("BTC/USD", 0, at=NOW + 5))
        # An older report, and a side that nobody quotes any more.
        await crypto.push(trade("BTC/USD", 7, at=NOW + 4), quote("BTC/USD", 0, 102.0, at=NOW + 9))
        came = [await batch(stream) for _ in range(3)]

    assert came == [
        Ticker(NOW, bid=99.0, bid_size=3.0, ask=101.0, ask_size=4.0),
        Ticker(NOW + 5, last=100.0, bid=99.0, bid_size=3.0, ask=101.0, ask_size=4.0),
        Ticker(NOW + 9, last=100.0, bid=None, bid_size=3.0, ask=102.0, ask_size=4.0),
    ]


async def test_sizes_of_stocks_whose_unit_is_not_told_are_left_out(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_ticker(APPLE), None) as stream:
        await iex.push(quote("AAPL", 99.0, 101.0))

        assert await batch(stream) == Ticker(NOW, bid=99.0, ask=101.0)


async def test_a_book_is_whole_at_every_state(
    alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    crypto.books["BTC/USD"] = book([(99, 1), (98, 2), (97, 3)], [(101, 1), (102, 2)], whole=True)

    async with joined(alpaca.stream_book(BITCOIN, 2), None) as stream:
        first = await batch(stream)
        await crypto.push(book([(99, 0), (98.5, 4)], [(101, 7)], at=NOW + 1))
        second = await batch(stream)
        await crypto.push(book([(50, 1)], [(60, 1)], at=NOW + 2, whole=True))
        third = await batch(stream)

    assert first == OrderBook(NOW, bids=((99, 1), (98, 2)), asks=((101, 1), (102, 2)))
    assert second == OrderBook(NOW + 1, bids=((98.5, 4), (98, 2)), asks=((101, 7), (102, 2)))
    assert third == OrderBook(NOW + 2, bids=((50, 1),), asks=((60, 1),))


async def test_who_joins_a_book_later_begins_with_the_whole_of_it(
    alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    crypto.books["BTC/USD"] = book([(99, 1)], [(101, 1)], whole=True)

    async with joined(alpaca.stream_book(BITCOIN, 5), None) as first:
        await batch(first)
        await crypto.push(book([(98, 2)], []))
        await batch(first)
        async with joined(alpaca.stream_book(BITCOIN, 1), None) as second:
            state = await batch(second)

    assert state == OrderBook(NOW, bids=((99, 1),), asks=((101, 1),))
    assert len(crypto.requests) == 1


async def test_changes_before_the_whole_book_and_crossed_states_are_not_shown(
    alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_book(BITCOIN, 5), None) as stream:
        await crypto.push(book([(1, 1)], [(2, 1)]))
        await crypto.push(book([(99, 1)], [(101, 1)], whole=True))
        await crypto.push(book([(101.5, 1)], []))
        await crypto.push(book([], [(101, 0), (102, 1)], at=NOW + 3))
        came = [await batch(stream) for _ in range(2)]

    assert came == [
        OrderBook(NOW, bids=((99, 1),), asks=((101, 1),)),
        OrderBook(NOW + 3, bids=((101.5, 1), (99, 1)), asks=((102, 1),)),
    ]


async def test_a_book_that_stays_crossed_ends_the_stream(
    alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_book(BITCOIN, 5), None) as stream:
        await crypto.push(book([(102, 1)], [(101, 1)], whole=True))
        await crypto.push(*(book([(102, 1)], []) for _ in range(100)))

        with pytest.raises(ProviderUnavailable):
            await batch(stream)


@settings(deadline=None)
@given(
    changes=st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 3)), max_size=60),
    depth=st.integers(1, 14),
)
def test_a_book_is_what_its_changes_leave(changes: list[tuple[bool, int, int]], depth: int) -> None:
    kept = Book()
    kept.apply(book([], [], whole=True))
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}

    for is_bid, level, size in changes:
        # Bids below 50 and asks above it: never crossed.
        price = 50 - level if is_bid else 50 + level
        (bids if is_bid else asks)[price] = size
        kept.apply(book([(price, size)], []) if is_bid else book([], [(price, size)]))

    state = kept.state(depth)
    assert state is not None
    assert list(state.bids) == sorted(((p, s) for p, s in bids.items() if s), reverse=True)[:depth]
    assert list(state.asks) == sorted((p, s) for p, s in asks.items() if s)[:depth]


# One connection


async def test_all_streams_of_a_feed_share_one_connection_and_all_feeds_have_their_own(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    by_sip = Listing("alpaca", "stocks", "AAPL", feed="sip", dataset="iex")
    streams: list[Stream[Any]] = [
        alpaca.stream_trades(APPLE),
        alpaca.stream_bars(SPY, MINUTE_FRAME),
        alpaca.stream_ticker(APPLE),
        alpaca.stream_trades(by_sip),
        alpaca.stream_trades(BITCOIN),
        alpaca.stream_book(ETHER, 5),
    ]

    await asyncio.gather(*(batch(stream) for stream in streams))

    opened = {name: stream.connections for name, stream in server.streams.items()}
    assert opened == {"iex": 1, "sip": 1, "crypto": 1}
    await asyncio.gather(*(soon(stream.aclose()) for stream in streams))


async def test_what_two_want_is_subscribed_to_once_and_left_with_the_last(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    first, second = alpaca.stream_trades(APPLE), alpaca.stream_trades(APPLE)
    third = alpaca.stream_trades(SPY)
    for stream in (first, second, third):
        await batch(stream)

    await soon(first.aclose())
    after_first = len(iex.requests)
    await iex.push(trade("AAPL", 1))
    told = await batch(second)
    await soon(second.aclose())

    assert after_first == 2
    assert [one.id for one in told] == ["V-1"]
    assert iex.requests == [
        {"action": "subscribe", "trades": ["AAPL"]},
        {"action": "subscribe", "trades": ["SPY"]},
        {"action": "unsubscribe", "trades": ["AAPL"]},
    ]
    assert iex.subscribed == {("trades", "SPY")}
    await soon(third.aclose())


async def test_the_connection_ends_with_its_last_stream_and_the_next_opens_another(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_trades(APPLE), ()):
        pass
    await iex.when(lambda endpoint: not endpoint.connected)

    async with joined(alpaca.stream_trades(APPLE), ()) as stream:
        await iex.push(trade("AAPL", 1))
        assert len(await batch(stream)) == 1

    assert iex.connections == 2


async def test_a_stream_joined_while_the_last_one_leaves_gets_a_connection_of_its_own(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    leaving, coming = alpaca.stream_trades(APPLE), alpaca.stream_trades(APPLE)
    await batch(leaving)

    _, first = await asyncio.gather(soon(leaving.aclose()), batch(coming))

    assert first == ()
    await iex.push(trade("AAPL", 1))
    assert len(await batch(coming)) == 1
    await soon(coming.aclose())


async def test_nothing_is_left_out_for_who_joins_while_others_are_told(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    first, second = alpaca.stream_trades(APPLE), alpaca.stream_trades(SPY)
    await batch(first)

    async def push() -> None:
        for number in range(50):
            await iex.push(trade("AAPL", number))

    _, confirmation = await asyncio.gather(push(), batch(second))
    told = [await batch(first) for _ in range(50)]

    assert confirmation == ()
    assert [one.id for trades in told for one in trades] == [f"V-{n}" for n in range(50)]
    await soon(first.aclose())
    await soon(second.aclose())


async def test_what_follows_the_confirmation_at_once_is_told(
    alpaca: AlpacaProvider, crypto: StreamEndpoint
) -> None:
    crypto.books["ETH/USD"] = book([(9, 1)], [(10, 1)], symbol="ETH/USD", whole=True)

    for _ in range(20):
        async with joined(alpaca.stream_book(ETHER, 1), None) as stream:
            assert await batch(stream) == OrderBook(NOW, bids=((9, 1),), asks=((10, 1),))


async def test_a_caller_that_gives_up_waiting_misses_nothing(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    async with joined(alpaca.stream_trades(APPLE), ()) as stream:
        waiting = asyncio.create_task(anext(aiter(stream)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await iex.push(trade("AAPL", 1))

        assert len(await batch(stream)) == 1


async def test_a_caller_that_gives_up_joining_may_leave_or_go_on(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    iex.answers_requests = False
    leaves, stays = alpaca.stream_trades(APPLE), alpaca.stream_trades(SPY)
    joining = [asyncio.create_task(anext(aiter(stream))) for stream in (leaves, stays)]
    await iex.when(lambda endpoint: len(endpoint.requests) == 1)
    for task in joining:
        task.cancel()
    await asyncio.gather(*joining, return_exceptions=True)
    leaving = asyncio.create_task(leaves.aclose())
    iex.answers_requests = True
    await iex.push({"T": "subscription", "trades": ["AAPL"]})
    await soon(leaving)

    assert await batch(stays) == ()
    await iex.push(trade("SPY", 1))
    assert len(await batch(stays)) == 1
    await soon(stays.aclose())


async def test_closing_ends_the_wait_of_who_listens(alpaca: AlpacaProvider) -> None:
    stream = alpaca.stream_trades(APPLE)
    await batch(stream)
    waiting = asyncio.create_task(anext(aiter(stream)))
    await asyncio.sleep(0)

    await soon(stream.aclose())

    with pytest.raises(StopAsyncIteration):
        await soon(waiting)
    with pytest.raises(StopAsyncIteration):
        await batch(stream)


async def test_a_stream_that_was_never_read_is_closed_without_a_word(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    await alpaca.stream_trades(APPLE).aclose()

    assert iex.connections == 0


async def test_closing_the_provider_tells_who_listens_and_leaves_nothing_running(
    server: AlpacaServer,
) -> None:
    alpaca = AlpacaProvider(server.keys, clock=FixedClock(NOW), addresses=server.addresses)
    stream = alpaca.stream_trades(APPLE)
    await batch(stream)

    await alpaca.aclose()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(ProviderUnavailable, match="closed"):
        await batch(stream)
    with pytest.raises(ProviderUnavailable, match="closed"):
        await batch(alpaca.stream_trades(APPLE))
    await soon(stream.aclose())


# Losses


async def cut(endpoint: StreamEndpoint) -> None:
    await endpoint.drop()


async def cut_in_a_frame(endpoint: StreamEndpoint) -> None:
    await endpoint.drop(half_frame=True)


async def half_a_message(endpoint: StreamEndpoint) -> None:
    packed = msgpack.packb([trade("AAPL", 5)])
    await endpoint.push_bytes(packed[: len(packed) // 2])


async def no_list(endpoint: StreamEndpoint) -> None:
    await endpoint.push_bytes(msgpack.packb({"T": "t"}))


async def no_message(endpoint: StreamEndpoint) -> None:
    await endpoint.push_bytes(msgpack.packb([7]))


async def a_trade_without_a_price(endpoint: StreamEndpoint) -> None:
    await endpoint.push({"T": "t", "S": "AAPL", "i": 1, "s": 1, "t": stamp(NOW)})


async def a_trade_that_is_not_a_number(endpoint: StreamEndpoint) -> None:
    await endpoint.push(trade("AAPL", 1, p=float("nan")))


async def slow_client(endpoint: StreamEndpoint) -> None:
    await endpoint.push({"T": "error", "code": 407, "msg": "slow client"})


async def internal_error(endpoint: StreamEndpoint) -> None:
    await endpoint.push({"T": "error", "code": 500, "msg": "internal error"})


@pytest.mark.parametrize(
    "lose",
    [
        cut,
        cut_in_a_frame,
        half_a_message,
        no_list,
        no_message,
        a_trade_without_a_price,
        a_trade_that_is_not_a_number,
        slow_client,
        internal_error,
    ],
)
async def test_a_loss_fails_every_stream_after_what_came_before_and_a_new_one_works(
    alpaca: AlpacaProvider,
    iex: StreamEndpoint,
    lose: Callable[[StreamEndpoint], Awaitable[None]],
) -> None:
    streams: list[Stream[Any]] = [alpaca.stream_trades(APPLE), alpaca.stream_ticker(SPY)]
    for stream in streams:
        await batch(stream)
    await iex.push(trade("AAPL", 1), trade("SPY", 2))

    await lose(iex)

    for stream in streams:
        assert await batch(stream)
        for _ in range(2):
            with pytest.raises(ProviderUnavailable):
                await batch(stream)
        await soon(stream.aclose())
    await iex.when(lambda endpoint: not endpoint.connected)
    async with joined(alpaca.stream_trades(APPLE), ()) as again:
        await iex.push(trade("AAPL", 3))
        assert [one.id for one in await batch(again)] == ["V-3"]
    assert iex.connections == 2


async def test_a_loss_of_stocks_leaves_crypto_as_it_is(
    alpaca: AlpacaProvider, iex: StreamEndpoint, crypto: StreamEndpoint
) -> None:
    stock, pair = alpaca.stream_trades(APPLE), alpaca.stream_trades(BITCOIN)
    await batch(stock)
    await batch(pair)

    await iex.drop()

    with pytest.raises(ProviderUnavailable):
        await batch(stock)
    await crypto.push(trade("BTC/USD", 1))
    assert len(await batch(pair)) == 1
    await soon(stock.aclose())
    await soon(pair.aclose())


async def test_a_stream_that_is_not_read_fails_alone(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    slow, quick = alpaca.stream_trades(APPLE), alpaca.stream_trades(APPLE)
    await batch(slow)
    await batch(quick)

    for number in range(QUEUED + 1):
        await iex.push(trade("AAPL", number))
        assert [one.id for one in await batch(quick)] == [f"V-{number}"]

    with pytest.raises(ProviderUnavailable, match="fast enough"):
        await batch(slow)
    await iex.push(trade("AAPL", 0))
    assert await batch(quick)
    await soon(slow.aclose())
    await soon(quick.aclose())


# Refusals


async def test_a_second_connection_of_the_account_is_refused_and_said_so(
    server: AlpacaServer, alpaca: AlpacaProvider
) -> None:
    other = AlpacaProvider(server.keys, clock=FixedClock(NOW), addresses=server.addresses)
    async with joined(other.stream_trades(APPLE), ()):
        stream = alpaca.stream_trades(APPLE)

        with pytest.raises(ProviderUnavailable, match="another connection") as refused:
            await batch(stream)

        assert refused.value.retry_after == 10
        await soon(stream.aclose())
    await other.aclose()


async def test_refused_keys_and_feeds_are_said_to_be(
    alpaca: AlpacaProvider, iex: StreamEndpoint, crypto: StreamEndpoint
) -> None:
    iex.insufficient = True
    crypto.secret = "another"

    for listing, reason in ((APPLE, "excludes this feed"), (BITCOIN, "refused the keys")):
        stream = alpaca.stream_trades(listing)
        with pytest.raises(ProviderUnavailable, match=reason):
            await batch(stream)
        await soon(stream.aclose())


async def test_a_symbol_too_many_fails_its_own_stream_only(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    iex.symbol_limit = 1
    first, second = alpaca.stream_trades(APPLE), alpaca.stream_trades(SPY)
    await batch(first)

    with pytest.raises(ProviderUnavailable, match="no more symbols"):
        await batch(second)

    await soon(second.aclose())
    await iex.push(trade("AAPL", 1))
    assert len(await batch(first)) == 1
    await soon(first.aclose())


async def test_a_subscription_that_is_not_confirmed_fails_its_own_stream_only(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    first, second = alpaca.stream_trades(APPLE), alpaca.stream_trades(SPY)
    await batch(first)
    iex.answers_requests = False
    joining = asyncio.create_task(anext(aiter(second)))
    await iex.when(lambda endpoint: len(endpoint.requests) == 2)
    await iex.push({"T": "subscription", "trades": ["AAPL"]})

    with pytest.raises(ProviderUnavailable, match="refused the subscription"):
        await soon(joining)

    await soon(second.aclose())
    await iex.push(trade("AAPL", 1))
    assert len(await batch(first)) == 1
    await soon(first.aclose())


async def test_a_subscription_that_is_never_answered_is_a_loss(server: AlpacaServer) -> None:
    alpaca = AlpacaProvider(
        server.keys, clock=FixedClock(NOW), addresses=server.addresses, timeout=2
    )
    server.stream("iex").answers_requests = False
    stream = alpaca.stream_trades(APPLE)

    with pytest.raises(ProviderUnavailable, match="did not confirm"):
        await batch(stream)

    await soon(stream.aclose())
    await alpaca.aclose()


async def test_a_loss_while_joining_fails_who_waits_and_who_comes_after(
    alpaca: AlpacaProvider, iex: StreamEndpoint
) -> None:
    iex.answers_requests = False
    streams = [alpaca.stream_trades(APPLE), alpaca.stream_trades(SPY)]
    joining = [asyncio.create_task(anext(aiter(stream))) for stream in streams]
    await iex.when(lambda endpoint: len(endpoint.requests) == 1)

    await iex.drop()

    for task, stream in zip(joining, streams, strict=True):
        with pytest.raises(ProviderUnavailable, match="broke off"):
            await soon(task)
        await soon(stream.aclose())


async def test_a_closed_port_fails_the_stream() -> None:
    async with alpaca_server(now=NOW) as gone:
        alpaca = AlpacaProvider(gone.keys, clock=FixedClock(NOW), addresses=gone.addresses)
        await alpaca.symbols()
    stream = alpaca.stream_trades(APPLE)

    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        await batch(stream)

    await soon(stream.aclose())
    await alpaca.aclose()


@pytest.mark.parametrize(
    ("listing", "wrong"),
    [
        (Listing("alpaca", "stocks", "NOSUCH"), UnknownName),
        (Listing("alpaca", "crypto", "AAPL"), UnknownName),
        (Listing("alpaca", "stocks", "AAPL", feed="otc"), UnknownName),
    ],
)
async def test_what_there_is_no_stream_of_is_refused_without_a_connection(
    server: AlpacaServer,
    alpaca: AlpacaProvider,
    listing: Listing,
    wrong: type[BargraphError],
) -> None:
    stream = alpaca.stream_trades(listing)

    with pytest.raises(wrong):
        await batch(stream)

    await soon(stream.aclose())
    assert [stream.connections for stream in server.streams.values()] == [0, 0, 0]


def test_stocks_have_no_order_books(alpaca: AlpacaProvider) -> None:
    with pytest.raises(BadInput):
        alpaca.stream_book(APPLE, 5)
