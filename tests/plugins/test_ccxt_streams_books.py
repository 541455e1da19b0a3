"""Order books as the real ccxt.pro client keeps them: whole, true, and begun anew after a hole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from market.errors import ProviderUnavailable
from market.instrument import Listing
from market.quotes import OrderBook
from plugins.base import Stream, StreamsBooks
from plugins.ccxt_exchange import CcxtProvider
from plugins.ccxt_exchange.depths import depth_to_ask
from plugins.ccxt_exchange.kraken_wire import checksum
from plugins.ccxt_exchange.pump import REBUILDS
from tests.exchange_server import ExchangeServer, exchange_server
from tests.exchange_server.streaming import provider_at, told, told_until

NOW = 1_700_000_020_000
AT_BINANCE = Listing("binance", "crypto", "BTC/USDT")
AT_KRAKEN = Listing("kraken", "crypto", "BTC/USD")
LISTINGS = {"binance": AT_BINANCE, "kraken": AT_KRAKEN}
EXCHANGES = ["binance", "kraken"]
DEPTH = 5


@pytest.fixture
async def server() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as running:
        for listing in LISTINGS.values():
            await running.live.change(
                listing.symbol,
                bids=[(1000.0 - n, 1.0) for n in range(40)],
                asks=[(1001.0 + n, 1.0) for n in range(40)],
            )
        yield running


@pytest.fixture
async def binance(server: ExchangeServer) -> AsyncIterator[CcxtProvider]:
    async with provider_at(server, "binance") as provider:
        yield provider


@pytest.fixture
async def kraken(server: ExchangeServer) -> AsyncIterator[CcxtProvider]:
    async with provider_at(server, "kraken") as provider:
        yield provider


def book_of(provider: Any, listing: Listing, depth: int = DEPTH) -> Stream[OrderBook | None]:
    assert isinstance(provider, StreamsBooks)
    return provider.stream_book(listing, depth)


async def next_state(stream: Stream[OrderBook | None]) -> OrderBook:
    state = (await told_until(stream, lambda book: book is not None))[-1]
    assert state is not None
    return state


async def state_with(stream: Stream[OrderBook | None], bid: tuple[float, float]) -> list[OrderBook]:
    """Return the states up to the first that has the level *bid*."""
    states = await told_until(stream, lambda book: book is not None and bid in book.bids)
    return [state for state in states if state is not None]


def true_levels(server: ExchangeServer, symbol: str, depth: int = DEPTH) -> tuple[Any, Any]:
    bids, asks = server.live.books[symbol].top(depth)
    return tuple(bids), tuple(asks)


# Following the market


@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_every_state_is_one_that_the_market_had(
    server: ExchangeServer, exchange_id: str
) -> None:
    listing, chance = LISTINGS[exchange_id], random.Random(4)
    async with provider_at(server, exchange_id) as provider:
        stream = book_of(provider, listing)
        states = [await next_state(stream)]
        had = [true_levels(server, listing.symbol)]

        for n in range(1, 200):
            price = float(chance.randint(980, 1000))
            await server.live.change(
                listing.symbol,
                bids=[(price, float(chance.randint(0, 3)))],
                asks=[(2001.0 - price, float(chance.randint(0, 3)))],
            )
            had.append(true_levels(server, listing.symbol))
            if n % 20 == 0:
                states.append(await next_state(stream))
        await server.live.change(listing.symbol, bids=[(1000.5, 7.0)])
        had.append(true_levels(server, listing.symbol))
        states += await state_with(stream, (1000.5, 7.0))

    positions = [had.index((state.bids, state.asks)) for state in states]
    assert (states[-1].bids, states[-1].asks) == had[-1]
    assert len(set(positions)) > 5
    assert all(len(state.bids) == len(state.asks) == DEPTH for state in states)


async def test_binance_s_states_carry_its_number_of_the_last_change(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = book_of(binance, AT_BINANCE)
    first = await next_state(stream)

    await server.live.change("BTC/USDT", bids=[(1000.0, 3.0), (999.0, 0.0)])
    second = await next_state(stream)

    assert first.sequence is not None
    assert second.sequence == first.sequence + 2 == server.live.books["BTC/USDT"].sequence
    assert second.time == NOW


async def test_changes_that_come_before_the_snapshot_are_joined_to_it(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await server.live.hold_snapshots()
    stream = book_of(binance, AT_BINANCE)
    await told(stream)
    await server.live.until(lambda: bool(server.asked("depth")))

    for n in range(1, 6):
        await server.live.change("BTC/USDT", bids=[(1000.0 + n / 10, float(n))])
    await server.live.release_snapshots()
    states = await state_with(stream, (1000.5, 5.0))

    assert states[-1].bids == tuple((1000.0 + n / 10, float(n)) for n in range(5, 0, -1))
    assert len(server.asked("depth")) == 1


async def test_as_many_levels_are_given_as_were_wanted_or_as_there_are(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    all_of_it = await next_state(book_of(kraken, AT_KRAKEN, 90))
    fewer = await next_state(book_of(kraken, AT_KRAKEN, 30))

    assert len(all_of_it.bids) == 40
    assert len(fewer.bids) >= 30
    asked = [m["params"]["depth"] for _, m in server.live.heard if m["method"] == "subscribe"]
    assert asked == [100]


async def test_a_deeper_book_takes_the_place_of_a_shallower_one(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    shallow = book_of(kraken, AT_KRAKEN, 10)
    await next_state(shallow)

    deep = await next_state(book_of(kraken, AT_KRAKEN, 25))

    assert len(deep.bids) == 25
    with pytest.raises(ProviderUnavailable, match="more of it is wanted"):
        await next_state(shallow)
    assert len((await next_state(book_of(kraken, AT_KRAKEN, 10))).bids) >= 10


def test_the_depth_that_is_asked_for_is_one_on_offer() -> None:
    asked = {
        name: [depth_to_ask(name, depth) for depth in (1, 20, 100, 5000)]
        for name in ("kraken", "bybit", "okx", "binance", "bitstamp")
    }

    assert asked == {
        "kraken": [10, 25, 100, 1000],
        "bybit": [50, 50, 200, 1000],
        "okx": [400, 400, 400, 400],
        "binance": [1000, 1000, 1000, 1000],
        "bitstamp": [None, None, None, None],
    }


# Holes


async def test_a_hole_in_binance_s_numbers_begins_the_book_anew(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = book_of(binance, AT_BINANCE)
    await next_state(stream)

    await server.live.change("BTC/USDT", bids=[(1000.0, 0.0)], untold=True)
    await server.live.change("BTC/USDT", bids=[(999.5, 2.0)])
    states = await state_with(stream, (999.5, 2.0))

    assert all((1000.0, 1.0) not in state.bids for state in states)
    assert (states[-1].bids, states[-1].asks) == true_levels(server, "BTC/USDT")
    assert len(server.asked("depth")) == 2
    assert server.live.opened == 1


async def test_a_wrong_checksum_of_kraken_begins_the_book_anew(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    stream = book_of(kraken, AT_KRAKEN)
    await next_state(stream)

    server.live.wrong_checksums = 1
    await server.live.change("BTC/USD", bids=[(999.5, 2.0)])
    states = await state_with(stream, (999.5, 2.0))

    methods = [m["method"] for _, m in server.live.heard if m["method"] != "ping"]
    assert methods == ["subscribe", "unsubscribe", "subscribe"]
    assert (states[-1].bids, states[-1].asks) == true_levels(server, "BTC/USD")
    assert server.live.opened == 1


async def test_a_change_that_kraken_s_client_missed_shows_in_the_checksum(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    stream = book_of(kraken, AT_KRAKEN)
    await next_state(stream)
    exchange = await kraken._client.open()

    # The server believes that this was told.
    del exchange.orderbooks["BTC/USD"]["bids"]._index[0]
    del exchange.orderbooks["BTC/USD"]["bids"][0]
    await server.live.change("BTC/USD", bids=[(999.5, 2.0)])
    states = await state_with(stream, (999.5, 2.0))

    assert (states[-1].bids, states[-1].asks) == true_levels(server, "BTC/USD")
    assert (1000.0, 1.0) in states[-1].bids


@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_other_streams_go_on_while_a_book_begins_anew(
    server: ExchangeServer, exchange_id: str
) -> None:
    listing = LISTINGS[exchange_id]
    async with provider_at(server, exchange_id) as provider:
        ticker = provider.stream_ticker(listing)  # type: ignore[attr-defined]  # composed
        await told(ticker)
        stream = book_of(provider, listing)
        await next_state(stream)

        server.live.wrong_checksums = 1
        await server.live.change(listing.symbol, bids=[(1000.0, 2.0)], untold=True)
        await server.live.change(listing.symbol, bids=[(999.5, 2.0)])
        await state_with(stream, (999.5, 2.0))
        await server.live.ticker(listing.symbol, last=5.0)

        prices = await told(ticker)

    assert prices is not None
    assert prices.last == 5.0


async def test_a_book_that_never_adds_up_fails_its_stream(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    server.live.wrong_checksums = 99
    stream = book_of(kraken, AT_KRAKEN)

    with pytest.raises(ProviderUnavailable, match="does not add up"):
        await next_state(stream)

    subscribed = [m for _, m in server.live.heard if m["method"] == "subscribe"]
    assert len(subscribed) == 1 + REBUILDS


async def test_a_snapshot_that_cannot_be_had_fails_the_stream(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    server.faults.refuse(500, times=3, on="depth")

    with pytest.raises(ProviderUnavailable):
        await next_state(book_of(binance, AT_BINANCE))

    assert await next_state(book_of(binance, AT_BINANCE))


async def test_a_market_that_leaves_the_known_prices_begins_the_book_anew(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    levels = [(5000.0 - n, 1.0) for n in range(1100)]
    await server.live.change("BTC/USDT", bids=[(price - 4000.0, 0.0) for price, _ in levels])
    await server.live.change("BTC/USDT", bids=levels, asks=[(6000.0 + n, 1.0) for n in range(9)])
    stream = book_of(binance, AT_BINANCE)
    await next_state(stream)

    # 1000 levels are known; what comes after the last of them is not.
    await server.live.change("BTC/USDT", bids=[(price, 0.0) for price, _ in levels[:990]])
    still = await next_state(stream)
    await server.live.change("BTC/USDT", bids=[(price, 0.0) for price, _ in levels[990:997]])
    anew = await next_state(stream)

    assert still.bids == tuple(levels[990:995])
    assert anew.bids == tuple(levels[997:1002])
    assert len(server.asked("depth")) == 2


@pytest.mark.parametrize(
    ("levels", "limit", "known_to"),
    [(40, None, 961.0), (40, 40, 961.0), (40, 50, None), (19, None, None)],
)
async def test_a_snapshot_that_may_have_been_cut_is_known_to_its_worst_price_only(
    server: ExchangeServer,
    binance: CcxtProvider,
    levels: int,
    limit: int | None,
    known_to: float | None,
) -> None:
    await binance.symbols()
    gone = [(1000.0 - n, 0.0) for n in range(levels, 40)]
    await server.live.change("BTC/USDT", bids=gone)
    exchange = await binance._client.open()

    await exchange.fetch_rest_order_book_safe("BTC/USDT", limit)

    assert exchange.edges["BTC/USDT"][0] == known_to


async def test_states_that_nobody_read_give_way_to_the_newest(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    slow, fast = book_of(kraken, AT_KRAKEN), book_of(kraken, AT_KRAKEN)
    await next_state(slow)
    await next_state(fast)

    for n in range(1, 300):
        await server.live.change("BTC/USD", bids=[(1000.0, float(n))])
    await state_with(fast, (1000.0, 299.0))
    state = await told(slow)

    assert state is not None
    assert state.bids[0] == (1000.0, 299.0)


async def test_leaving_a_book_while_its_snapshot_is_awaited_leaves_nothing_behind(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await server.live.hold_snapshots()
    before = asyncio.all_tasks()
    stream = book_of(binance, AT_BINANCE)
    await told(stream)
    await server.live.until(lambda: bool(server.asked("depth")))

    await stream.aclose()
    await server.live.release_snapshots()
    again = book_of(binance, AT_BINANCE)

    assert (await next_state(again)).bids == true_levels(server, "BTC/USDT")[0]
    await again.aclose()
    await binance.aclose()
    assert asyncio.all_tasks() - before == set()


def test_kraken_s_checksum_is_that_of_its_documentation() -> None:
    # The worked example of docs.kraken.com, "Book checksum (WebSocket v2)".
    asks = [
        (45285.2, 0.00100000),
        (45286.4, 1.54571953),
        (45286.6, 1.54571109),
        (45289.6, 1.54560911),
        (45290.2, 0.15890660),
        (45291.8, 1.54553491),
        (45294.7, 0.04454749),
        (45296.1, 0.35380000),
        (45297.5, 0.09945542),
        (45299.5, 0.18772827),
    ]
    bids = [
        (45283.5, 0.10000000),
        (45283.4, 1.54582015),
        (45282.1, 0.10000000),
        (45281.0, 0.10000000),
        (45280.3, 1.54592586),
        (45279.0, 0.07990000),
        (45277.6, 0.03310103),
        (45277.5, 0.30000000),
        (45277.3, 1.54602737),
        (45276.6, 0.15445238),
    ]

    assert checksum(asks, bids, price_decimals=1, lot_decimals=8) == 3310070434
