"""What every stream of the real ccxt.pro client does: begin, share, leave, never lose silently."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import WSMessage, WSMsgType

from market.clock import FixedClock
from market.errors import ProviderUnavailable, UnknownName
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME, SECOND_FRAME, Timeframe
from market.window import MINUTE
from plugins.base import Stream, StreamsBars, StreamsBooks, StreamsTickers, StreamsTrades
from plugins.ccxt_exchange import CcxtProvider
from plugins.ccxt_exchange.catalogue import Pushed, exchange_ids, family_of, pushed_by
from plugins.ccxt_exchange.wire import Wired
from tests.exchange_server import Dealt, ExchangeServer, exchange_server
from tests.exchange_server.streaming import provider_at, told, told_until

NOW = 1_700_000_020_000
FORMING = NOW // MINUTE * MINUTE
AT_BINANCE = Listing("binance", "crypto", "BTC/USDT")
ETHER = Listing("binance", "crypto", "ETH/USDT")
AT_KRAKEN = Listing("kraken", "crypto", "BTC/USD")
LISTINGS = {"binance": AT_BINANCE, "kraken": AT_KRAKEN}
EXCHANGES = ["binance", "kraken"]
KINDS = ["bars", "trades", "book", "ticker"]


@pytest.fixture
async def server() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as running:
        for listing in (*LISTINGS.values(), ETHER):
            levels = [(float(i), 1.0) for i in range(1, 31)]
            await running.live.change(listing.symbol, bids=levels)
            await running.live.change(listing.symbol, asks=[(100 + p, a) for p, a in levels])
        yield running


@pytest.fixture
async def binance(server: ExchangeServer) -> AsyncIterator[CcxtProvider]:
    async with provider_at(server, "binance") as provider:
        yield provider


@pytest.fixture
async def kraken(server: ExchangeServer) -> AsyncIterator[CcxtProvider]:
    async with provider_at(server, "kraken") as provider:
        yield provider


def stream_of(provider: Any, kind: str, listing: Listing) -> Stream[Any]:
    match kind:
        case "bars":
            return provider.stream_bars(listing, MINUTE_FRAME)
        case "trades":
            return provider.stream_trades(listing)
        case "book":
            return provider.stream_book(listing, 5)
        case _:
            return provider.stream_ticker(listing)


async def push(server: ExchangeServer, kind: str, symbol: str) -> None:
    match kind:
        case "bars":
            await server.live.bar(symbol, "1m", (FORMING, 1.0, 2.0, 0.5, 1.5, 3.0))
        case "trades":
            await server.live.trade(symbol, Dealt(1, NOW, 100.0, 1.0))
        case "book":
            await server.live.change(symbol, bids=[(30.0, 9.0)])
        case _:
            await server.live.ticker(symbol, last=100.0, bid=99.0, ask=101.0)


def says_something(batch: Any) -> bool:
    return batch is not None and (not hasattr(batch, "__len__") or len(batch) > 0)


# What an exchange claims


def test_what_an_exchange_pushes_is_known_without_importing_ccxt() -> None:
    code = (
        "import sys\n"
        "from market.clock import FixedClock\n"
        "from plugins.base import StreamsBars, StreamsTrades\n"
        "from plugins.ccxt_exchange import CcxtProvider\n"
        "made = [CcxtProvider(name, clock=FixedClock(0)) for name in ('kraken', 'coinbase')]\n"
        "print(*(isinstance(one, StreamsBars) for one in made), 'ccxt' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["True", "False", "False"]


def test_what_is_claimed_of_every_exchange_is_what_ccxt_says_of_it() -> None:
    import ccxt.pro

    made = {name: getattr(ccxt.pro, name)() for name in ccxt.pro.exchanges}
    expected = {
        name: frozenset(
            one for one in Pushed if name in made and made[name].has.get(one.value) is True
        )
        for name in exchange_ids()
    }

    assert {name: pushed_by(name) for name in exchange_ids()} == expected
    assert {name for name in exchange_ids() if family_of(name)} == set(made)
    assert family_of("binanceusdm") == "binance"


async def test_every_exchange_that_pushes_can_be_loaded() -> None:
    async def loaded(name: str) -> bool:
        provider = CcxtProvider(name, clock=FixedClock(NOW))
        exchange = await provider._client.open()
        await provider.aclose()
        return exchange.id == name and isinstance(exchange, Wired)

    names = [name for name in exchange_ids() if pushed_by(name)]

    assert len(names) > 70
    assert all(await asyncio.gather(*map(loaded, names)))


def test_a_provider_has_only_the_capabilities_of_its_exchange() -> None:
    protocols = (StreamsBars, StreamsTrades, StreamsBooks, StreamsTickers)
    claims = {
        name: [isinstance(CcxtProvider(name, clock=FixedClock(0)), one) for one in protocols]
        for name in ("binance", "coinbase", "bitstamp", "onetrading", "bitflyer")
    }

    assert claims == {
        "binance": [True, True, True, True],
        "coinbase": [False, True, True, True],
        "bitstamp": [False, True, True, False],
        "onetrading": [True, False, True, True],
        "bitflyer": [False, False, False, False],
    }


async def test_minutes_are_pushed_and_seconds_where_the_exchange_has_them(
    binance: CcxtProvider, kraken: CcxtProvider
) -> None:
    frames = []
    for provider in (binance, kraken):
        assert isinstance(provider, StreamsBars)
        frames.append(provider.streamed_frames((await provider.symbols())[0]))

    assert frames == [(SECOND_FRAME, MINUTE_FRAME), (MINUTE_FRAME,)]


async def test_a_symbol_that_is_not_listed_is_refused_at_the_first_reading(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = stream_of(binance, "trades", Listing("binance", "crypto", "BTC/USDD"))

    with pytest.raises(UnknownName) as refused:
        await told(stream)

    assert "BTC/USDT" in refused.value.suggestions
    assert server.live.opened == 0


async def test_a_timeframe_that_is_not_pushed_is_refused(binance: CcxtProvider) -> None:
    assert isinstance(binance, StreamsBars)

    with pytest.raises(UnknownName, match="timeframe"):
        await told(binance.stream_bars(AT_BINANCE, Timeframe.parse("1h")))


async def test_nothing_is_connected_before_a_stream_is_read(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = stream_of(binance, "trades", AT_BINANCE)

    await stream.aclose()

    assert server.calls == []
    assert server.live.opened == 0


# What comes


@pytest.mark.parametrize("kind", ["bars", "trades", "ticker"])
@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_the_first_batch_of_a_quiet_market_is_empty_and_confirms(
    server: ExchangeServer, exchange_id: str, kind: str
) -> None:
    async with provider_at(server, exchange_id) as provider:
        stream = stream_of(provider, kind, LISTINGS[exchange_id])

        first = await told(stream)
        await push(server, kind, LISTINGS[exchange_id].symbol)
        second = await told(stream)

    assert not says_something(first)
    assert says_something(second)


@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_a_ticker_has_the_best_prices_and_nothing_that_was_not_told(
    server: ExchangeServer, exchange_id: str
) -> None:
    listing = LISTINGS[exchange_id]
    async with provider_at(server, exchange_id) as provider:
        stream = stream_of(provider, "ticker", listing)
        await told(stream)

        await server.live.ticker(
            listing.symbol, last=100.5, bid=100.0, bid_size=0.5, ask=101.0, volume=7.25
        )
        ticker = await told(stream)

    assert (ticker.last, ticker.bid, ticker.bid_size) == (100.5, 100.0, 0.5)
    assert (ticker.ask, ticker.ask_size, ticker.volume) == (101.0, None, 7.25)
    assert abs(ticker.time - NOW) <= 1


async def test_of_tickers_that_nobody_read_only_the_newest_is_kept(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    slow, fast = (stream_of(kraken, "ticker", AT_KRAKEN) for _ in range(2))
    await told(slow)
    await told(fast)

    for n in range(500):
        await server.live.ticker("BTC/USD", last=float(n))
    await told_until(fast, lambda ticker: ticker.last == 499)
    ticker = await told(slow)

    assert ticker.last == 499


# Sharing


@pytest.mark.parametrize("kind", KINDS)
async def test_who_asks_for_the_same_shares_one_subscription(
    server: ExchangeServer, kraken: CcxtProvider, kind: str
) -> None:
    one, other = (stream_of(kraken, kind, AT_KRAKEN) for _ in range(2))
    await told(one)
    await told(other)

    await push(server, kind, "BTC/USD")
    both = await asyncio.gather(told_until(one, says_something), told_until(other, says_something))

    assert both[0][-1] == both[1][-1]
    assert [m["method"] for _, m in server.live.heard].count("subscribe") == 1


async def test_a_late_listener_begins_with_the_newest_state(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    early = stream_of(kraken, "ticker", AT_KRAKEN)
    await told(early)
    await server.live.ticker("BTC/USD", last=100.0)
    await told(early)

    late = await told(stream_of(kraken, "ticker", AT_KRAKEN))

    assert late is not None
    assert late.last == 100.0


# Leaving


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_the_last_listener_to_leave_closes_the_connection(
    server: ExchangeServer, exchange_id: str, kind: str
) -> None:
    async with provider_at(server, exchange_id) as provider:
        stream = stream_of(provider, kind, LISTINGS[exchange_id])
        await told(stream)

        await stream.aclose()

        await server.live.until(lambda: not server.live.sockets)
        with pytest.raises(StopAsyncIteration):
            await told(stream)


async def test_binance_is_told_when_one_of_several_on_a_connection_leaves(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    leaving, staying = (stream_of(binance, "bars", one) for one in (AT_BINANCE, ETHER))
    await told(leaving)
    await told(staying)
    assert server.live.opened == 1

    await leaving.aclose()

    assert [m["params"] for _, m in server.live.heard if m["method"] == "UNSUBSCRIBE"] == [
        ["btcusdt@kline_1m"]
    ]
    await push(server, "bars", "ETH/USDT")
    assert says_something(await told(staying))


@pytest.mark.parametrize("kind", KINDS)
async def test_kraken_is_told_when_one_of_several_on_a_connection_leaves(
    server: ExchangeServer, kraken: CcxtProvider, kind: str
) -> None:
    other = "ticker" if kind == "bars" else "bars"
    leaving, staying = (stream_of(kraken, one, AT_KRAKEN) for one in (kind, other))
    await told(leaving)
    await told(staying)

    await leaving.aclose()

    await server.live.subscribed(kind, "BTC/USD", times=0)
    await push(server, other, "BTC/USD")
    assert says_something(await told(staying))
    assert server.live.opened == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_left_can_be_opened_again_on_the_same_connection(
    server: ExchangeServer, kraken: CcxtProvider, kind: str
) -> None:
    other = "ticker" if kind == "bars" else "bars"
    staying = stream_of(kraken, other, AT_KRAKEN)
    await told(staying)
    for _ in range(3):
        stream = stream_of(kraken, kind, AT_KRAKEN)
        await told(stream)
        await push(server, kind, "BTC/USD")
        await told_until(stream, says_something)
        await stream.aclose()

    assert server.live.opened == 1


async def test_what_cannot_be_left_is_no_longer_delivered_and_can_be_listened_to_again(
    server: ExchangeServer,
) -> None:
    def cannot_leave(exchange: Any) -> None:
        exchange.has = {**exchange.has, "unWatchTrades": False, "unWatchOrderBook": False}

    async with provider_at(server, "kraken", cannot_leave) as kraken:
        staying = stream_of(kraken, "bars", AT_KRAKEN)
        await told(staying)
        for kind in ("trades", "book"):
            stream = stream_of(kraken, kind, AT_KRAKEN)
            await told(stream)
            await stream.aclose()
        await server.live.trade("BTC/USD", Dealt(1, NOW, 100.0, 1.0))
        await server.live.change("BTC/USD", bids=[(30.0, 7.0)])
        # Once this has come, what was sent before it has come too.
        await push(server, "bars", "BTC/USD")
        await told_until(staying, says_something)

        trades = asyncio.create_task(told(stream_of(kraken, "trades", AT_KRAKEN)))
        book = stream_of(kraken, "book", AT_KRAKEN)
        states = asyncio.create_task(told_until(book, says_something))
        await asyncio.sleep(0)
        await server.live.trade("BTC/USD", Dealt(2, NOW, 100.0, 1.0))
        await server.live.change("BTC/USD", bids=[(31.0, 5.0)])

        assert [one.id for one in await trades] == ["2"]
        assert (await states)[-1].bids[:2] == ((31.0, 5.0), (30.0, 7.0))
    assert server.live.opened == 1


async def test_closing_wakes_up_whoever_reads(binance: CcxtProvider) -> None:
    stream = stream_of(binance, "trades", AT_BINANCE)
    await told(stream)
    reading = asyncio.create_task(told(stream))
    await asyncio.sleep(0)

    await stream.aclose()

    with pytest.raises(StopAsyncIteration):
        await asyncio.shield(_outcome(reading))


async def _outcome(task: asyncio.Task[Any]) -> Any:
    done, _ = await asyncio.wait({task}, timeout=20)
    assert done
    if isinstance(task.exception(), StopAsyncIteration | RuntimeError):
        raise StopAsyncIteration
    return task.result()


@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_a_provider_that_is_closed_ends_its_streams_and_leaves_nothing_behind(
    server: ExchangeServer, exchange_id: str
) -> None:
    before = asyncio.all_tasks()
    async with provider_at(server, exchange_id) as provider:
        streams = [stream_of(provider, kind, LISTINGS[exchange_id]) for kind in KINDS]
        for stream in streams:
            await told_until(stream, lambda _: True)

    for stream in streams:
        with pytest.raises(ProviderUnavailable, match="closed"):
            await told_until(stream, lambda _: False)
        await stream.aclose()
    await server.live.until(lambda: not server.live.sockets)
    assert asyncio.all_tasks() - before == set()


async def test_a_stream_that_is_left_while_it_is_dialled_leaves_no_connection(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    stream = stream_of(binance, "trades", AT_BINANCE)
    reading = asyncio.create_task(told(stream))
    while not server.asked("/ws/"):
        await asyncio.sleep(0)

    reading.cancel()
    await stream.aclose()

    await server.live.until(lambda: server.live.opened == 1 and not server.live.sockets)


# Losses


Fault = Callable[[ExchangeServer], Any]
FAULTS: dict[str, Fault] = {
    "cut off": lambda server: server.live.drop(),
    "closed": lambda server: server.live.close(1001),
    "half a message": lambda server: server.live.say('{"e":"kline","k":{"t":17'),
    "a message of another shape": lambda server: server.live.say(
        '{"e":"trade","channel":"trade","data":"none"}'
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_a_lost_connection_is_an_error_never_a_silent_reconnect(
    server: ExchangeServer, exchange_id: str, kind: str, fault: str
) -> None:
    async with provider_at(server, exchange_id) as provider:
        stream = stream_of(provider, kind, LISTINGS[exchange_id])
        await told(stream)
        opened = server.live.opened

        await FAULTS[fault](server)

        with pytest.raises(ProviderUnavailable, match="connection was lost"):
            await told_until(stream, lambda _: False)
        assert server.live.opened == opened == 1
        await stream.aclose()

        again = stream_of(provider, kind, LISTINGS[exchange_id])
        await told(again)
        await push(server, kind, LISTINGS[exchange_id].symbol)
        assert says_something((await told_until(again, says_something))[-1])


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "cut off"])
@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_a_loss_that_arrives_together_with_a_message_is_not_hidden_by_it(
    server: ExchangeServer, exchange_id: str, fault: str
) -> None:
    listing = LISTINGS[exchange_id]

    async def both() -> None:
        await push(server, "trades", listing.symbol)
        await FAULTS[fault](server)

    async with provider_at(server, exchange_id) as provider:
        stream = stream_of(provider, "trades", listing)
        await told(stream)

        # This loop stands still meanwhile, so it reads the two at once.
        elsewhere = threading.Thread(target=lambda: asyncio.run(both()))
        elsewhere.start()
        elsewhere.join()

        assert [one.id for one in await told(stream)] == ["1"]
        with pytest.raises(ProviderUnavailable, match="connection was lost"):
            await told(stream)
        assert server.live.opened == 1


async def test_a_connection_that_ccxt_gave_up_reading_is_not_used_again(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    from ccxt.base.errors import NetworkError

    streams = [stream_of(kraken, kind, AT_KRAKEN) for kind in ("trades", "ticker")]
    for stream in streams:
        await told(stream)
    (client,) = (await kraken._client.open()).clients.values()

    # So it does when reading fails; the connection stays where it finds it the next time.
    client.reject(NetworkError("reading failed"))

    for stream in streams:
        with pytest.raises(ProviderUnavailable, match="connection was lost"):
            await told(stream)
        await stream.aclose()
    await told(stream_of(kraken, "trades", AT_KRAKEN))
    assert server.live.opened == 2


async def test_what_an_abandoned_connection_still_says_does_not_reach_the_next_one(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    stream = stream_of(kraken, "book", AT_KRAKEN)
    await told_until(stream, says_something)
    exchange = await kraken._client.open()
    (abandoned,) = exchange.clients.values()
    exchange.drop(abandoned)
    with pytest.raises(ProviderUnavailable):
        await told_until(stream, lambda _: False)
    again = stream_of(kraken, "book", AT_KRAKEN)
    await told_until(again, says_something)

    late = {"symbol": "BTC/USD", "bids": [{"price": 50.0, "qty": 1.0}], "asks": []}
    text = json.dumps({"channel": "book", "type": "update", "data": [late]})
    abandoned.handle_message(WSMessage(WSMsgType.TEXT, text, ""))
    await push(server, "book", "BTC/USD")

    state = (await told_until(again, says_something))[-1]
    assert state.bids[0] == (30.0, 9.0)
    assert [m["method"] for _, m in server.live.heard].count("subscribe") == 2


async def test_a_connection_that_ccxt_closes_by_itself_is_lost(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    stream = stream_of(kraken, "trades", AT_KRAKEN)
    await told(stream)
    (client,) = (await kraken._client.open()).clients.values()

    # So it does to all streams of a connection when the snapshot of one book cannot be had.
    await client.close()

    with pytest.raises(ProviderUnavailable, match="connection was lost"):
        await told(stream)


async def test_all_streams_of_a_lost_connection_fail_and_come_back_on_one(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    streams = [stream_of(kraken, kind, AT_KRAKEN) for kind in KINDS]
    for stream in streams:
        await told(stream)

    await server.live.drop()

    for stream in streams:
        with pytest.raises(ProviderUnavailable):
            await told_until(stream, lambda _: False)
        await stream.aclose()
    for kind in KINDS:
        await told(stream_of(kraken, kind, AT_KRAKEN))
    assert server.live.opened == 2


@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_an_exchange_that_falls_silent_is_noticed(
    server: ExchangeServer, exchange_id: str
) -> None:
    def impatient(exchange: Any) -> None:
        exchange.streaming = {**exchange.streaming, "keepAlive": 500}

    async with provider_at(server, exchange_id, impatient) as provider:
        stream = stream_of(provider, "trades", LISTINGS[exchange_id])
        await told(stream)

        server.live.silent = True

        with pytest.raises(ProviderUnavailable, match="connection was lost"):
            await told(stream)


async def test_binance_is_pinged_often_enough_to_notice_within_a_minute(
    binance: CcxtProvider,
) -> None:
    exchange = await binance._client.open()

    assert exchange.streaming["keepAlive"] * (exchange.streaming["maxPingPongMisses"] + 1) <= 60_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange_id", EXCHANGES)
async def test_a_refused_subscription_is_an_error_and_not_an_endless_wait(
    server: ExchangeServer, exchange_id: str, kind: str
) -> None:
    server.live.refuses.add(LISTINGS[exchange_id].symbol)
    async with provider_at(server, exchange_id) as provider:
        for _ in range(2):
            stream = stream_of(provider, kind, LISTINGS[exchange_id])
            with pytest.raises(ProviderUnavailable, match="refused"):
                await told(stream)
            await stream.aclose()


async def test_a_refusal_on_a_shared_connection_is_told_each_time_and_to_nobody_else(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    staying = stream_of(binance, "bars", ETHER)
    await told(staying)
    server.live.refuses.add("BTC/USDT")

    for _ in range(2):
        with pytest.raises(ProviderUnavailable, match="refused"):
            await told(stream_of(binance, "bars", AT_BINANCE))
    await push(server, "bars", "ETH/USDT")

    assert says_something(await told(staying))
    assert server.live.opened == 1


async def test_an_exchange_that_does_not_answer_the_call_is_an_error_with_a_pause(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    server.faults.refuse(503, times=2, on="/ws/")

    with pytest.raises(ProviderUnavailable):
        await told(stream_of(binance, "trades", AT_BINANCE))
    with pytest.raises(ProviderUnavailable) as soon:
        await told(stream_of(binance, "trades", AT_BINANCE))

    assert soon.value.retry_after is not None
    assert len(server.asked("/ws/")) == 1


async def test_an_exchange_that_says_too_many_is_left_alone_as_long_as_told(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    await binance.symbols()
    server.faults.refuse(429, times=3, retry_after=99, on="depth")

    with pytest.raises(ProviderUnavailable, match="rate limited") as first:
        await told_until(stream_of(binance, "book", AT_BINANCE), lambda _: False)
    with pytest.raises(ProviderUnavailable, match="rate limited") as second:
        await told(stream_of(binance, "book", AT_BINANCE))

    assert first.value.retry_after == 99
    assert second.value.retry_after == pytest.approx(99)
    assert len(server.asked("depth")) == 3


async def test_errors_of_a_stream_do_not_quote_the_exchange(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    stream = stream_of(kraken, "trades", AT_KRAKEN)
    await told(stream)

    await server.live.drop()

    with pytest.raises(ProviderUnavailable) as lost:
        await told(stream)
    assert str(lost.value) == "kraken is unavailable: the connection was lost"


async def test_many_losses_leave_nothing_behind(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    await kraken.symbols()
    before = len(asyncio.all_tasks())
    for _ in range(40):
        stream = stream_of(kraken, "book", AT_KRAKEN)
        await told(stream)
        await server.live.drop()
        with pytest.raises(ProviderUnavailable):
            await told_until(stream, lambda _: False)
        await stream.aclose()
    gc.collect()

    exchange = await kraken._client.open()
    assert exchange.clients == {}
    assert exchange.lines == set()
    # Something below us holds on to the newest few connections.
    assert len(exchange._asked) < 20
    assert len(asyncio.all_tasks()) == before
