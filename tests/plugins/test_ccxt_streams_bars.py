"""Bars and trades as the real ccxt.pro client pushes them: whole, in order, each trade once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.bars import CLOSED, Bars
from market.errors import ProviderUnavailable
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE
from plugins.base import Stream, StreamsBars, StreamsTrades, Trade
from plugins.ccxt_exchange import CcxtProvider
from plugins.ccxt_exchange.unread import BARS_KEPT, TRADES_KEPT, NewestOfEachBar
from tests.exchange_server import Dealt, ExchangeServer, exchange_server
from tests.exchange_server.streaming import provider_at, told, told_until

NOW = 1_700_000_020_000
FORMING = NOW // MINUTE * MINUTE
AT_BINANCE = Listing("binance", "crypto", "BTC/USDT")
AT_KRAKEN = Listing("kraken", "crypto", "BTC/USD")


@pytest.fixture
async def server() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as running:
        yield running


@pytest.fixture
async def binance(server: ExchangeServer) -> AsyncIterator[CcxtProvider]:
    async with provider_at(server, "binance") as provider:
        yield provider


@pytest.fixture
async def kraken(server: ExchangeServer) -> AsyncIterator[CcxtProvider]:
    async with provider_at(server, "kraken") as provider:
        yield provider


async def bars_of(provider: Any, listing: Listing) -> Stream[Bars]:
    """Return a stream that has begun."""
    assert isinstance(provider, StreamsBars)
    stream = provider.stream_bars(listing, MINUTE_FRAME)
    await told(stream)
    return stream


async def trades_of(provider: Any, listing: Listing) -> Stream[Any]:
    assert isinstance(provider, StreamsTrades)
    stream = provider.stream_trades(listing)
    await told(stream)
    return stream


def minute(n: int, close: float = 1.5) -> tuple[int, float, float, float, float, float]:
    """Return a bar *n* minutes after the forming one."""
    return (FORMING + n * MINUTE, 1.0, 9.0, 0.5, close, 10.0)


def rows(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# Bars


async def test_a_bar_grows_and_is_closed_when_binance_calls_it_final(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = await bars_of(binance, AT_BINANCE)

    await server.live.bar("BTC/USDT", "1m", minute(0, 1.5))
    growing = await told(stream)
    await server.live.bar("BTC/USDT", "1m", minute(0, 2.5), final=True)
    final = await told(stream)
    await server.live.bar("BTC/USDT", "1m", minute(1))
    after = await told(stream)

    assert (rows(growing), growing.flags.tolist()) == ([minute(0, 1.5)], [0])
    assert (rows(final), final.flags.tolist()) == ([minute(0, 2.5)], [CLOSED])
    assert (rows(after), after.flags.tolist()) == ([minute(1)], [0])


async def test_no_bar_of_kraken_is_called_closed_since_kraken_does_not_say(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    stream = await bars_of(kraken, AT_KRAKEN)

    for n in range(3):
        await server.live.bar("BTC/USD", "1m", minute(n), final=True)
    batches = await told_until(stream, lambda bars: minute(2) in rows(bars))

    assert [row for bars in batches for row in rows(bars)] == [minute(n) for n in range(3)]
    assert not any(bars.flags.any() for bars in batches)


async def test_a_bar_is_updated_when_it_arrives_and_at_its_close_at_the_latest(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = await bars_of(binance, AT_BINANCE)

    await server.live.bar("BTC/USDT", "1m", minute(-2))
    past = await told(stream)
    await server.live.bar("BTC/USDT", "1m", minute(0))
    running = await told(stream)

    assert past.updated.tolist() == [FORMING - MINUTE]
    assert running.updated.tolist() == [NOW]


async def test_a_late_correction_comes_through_behind_a_newer_bar(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = await bars_of(binance, AT_BINANCE)
    for n in range(4):
        await server.live.bar("BTC/USDT", "1m", minute(n), final=n < 3)
        await told(stream)

    await server.live.bar("BTC/USDT", "1m", minute(1, 7.0), final=True)
    late = await told(stream)

    assert rows(late) == [minute(1, 7.0)]
    assert late.flags.tolist() == [CLOSED]


async def test_states_that_nobody_read_are_drawn_together_and_the_final_one_is_kept(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    slow = await bars_of(binance, AT_BINANCE)
    fast = await bars_of(binance, AT_BINANCE)

    for n in range(3):
        for close in (1.0, 2.0, 3.0):
            await server.live.bar("BTC/USDT", "1m", minute(n, close), final=close == 3.0)
    await told_until(fast, lambda bars: minute(2, 3.0) in rows(bars))
    bars = await told(slow)

    assert rows(bars) == [minute(n, 3.0) for n in range(3)]
    assert bars.flags.tolist() == [CLOSED] * 3


async def test_the_half_bar_that_a_subscription_may_begin_with_is_not_called_closed(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    server.live.halves_first_bars = True
    stream = await bars_of(binance, AT_BINANCE)

    await server.live.bar("BTC/USDT", "1m", minute(0))
    half = await told(stream)
    await server.live.bar("BTC/USDT", "1m", minute(1), final=True)
    whole = await told(stream)

    assert half.volume.tolist() == [5.0]
    assert half.flags.tolist() == [0]
    assert rows(whole) == [minute(1)]


@pytest.mark.parametrize("column", [1, 4, 5])
@pytest.mark.parametrize("exchange_id", ["binance", "kraken"])
async def test_a_bar_with_a_value_missing_is_left_out_and_never_zero(
    server: ExchangeServer, exchange_id: str, column: int
) -> None:
    listing = {"binance": AT_BINANCE, "kraken": AT_KRAKEN}[exchange_id]
    partial: Any = list(minute(0))
    partial[column] = None
    async with provider_at(server, exchange_id) as provider:
        stream = await bars_of(provider, listing)

        await server.live.bar(listing.symbol, "1m", tuple(partial))
        await server.live.bar(listing.symbol, "1m", minute(1))

        assert rows(await told(stream)) == [minute(1)]


async def test_a_known_bar_that_loses_a_value_fails_the_stream(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = await bars_of(binance, AT_BINANCE)
    await server.live.bar("BTC/USDT", "1m", minute(0))
    await told(stream)
    partial: Any = (*minute(0)[:5], None)

    await server.live.bar("BTC/USDT", "1m", partial, final=True)

    with pytest.raises(ProviderUnavailable, match="a value missing"):
        await told(stream)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((FORMING + 1, 1.0, 2.0, 0.5, 1.5, 3.0), "grid"),
        ((FORMING, 1.0, 0.4, 0.5, 1.5, 3.0), "high below low"),
        ((FORMING, 1.0, 2.0, 0.5, 1.5, -3.0), "volume"),
    ],
)
async def test_bars_that_cannot_be_true_fail_the_stream(
    server: ExchangeServer,
    binance: CcxtProvider,
    row: tuple[int, float, float, float, float, float],
    reason: str,
) -> None:
    stream = await bars_of(binance, AT_BINANCE)

    await server.live.bar("BTC/USDT", "1m", row)

    with pytest.raises(ProviderUnavailable, match=reason):
        await told(stream)


async def test_a_new_stream_does_not_begin_with_what_an_older_one_left_behind(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    await trades_of(kraken, AT_KRAKEN)
    stream = await bars_of(kraken, AT_KRAKEN)
    await server.live.bar("BTC/USD", "1m", minute(0))
    await told(stream)
    await stream.aclose()

    again = await bars_of(kraken, AT_KRAKEN)
    await server.live.bar("BTC/USD", "1m", minute(1))

    assert rows(await told(again)) == [minute(1)]


States = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([0, CLOSED]), st.floats(1, 9)), min_size=1
)


@given(states=States)
def test_unread_bars_are_the_newest_of_the_highest_rank(
    states: list[tuple[int, int, float]],
) -> None:
    unread = NewestOfEachBar()
    expected: dict[int, tuple[int, float]] = {}
    for n, flag, close in states:
        bar = Bars.of([n * MINUTE], [1], [9], [0.5], [close], [1], flags=flag, updated=n * MINUTE)
        assert unread.add(bar)
        if flag >= expected.get(n, (0, 0.0))[0]:
            expected[n] = (flag, close)

    bars = unread.take()

    columns = ((bars.time // MINUTE).tolist(), bars.flags.tolist(), bars.close.tolist())
    taken = {n: (flag, close) for n, flag, close in zip(*columns, strict=True)}
    assert taken == expected
    assert not unread


def test_unread_bars_are_bounded() -> None:
    unread = NewestOfEachBar()

    fits = [
        unread.add(Bars.of([n * MINUTE], [1], [1], [1], [1], [1])) for n in range(BARS_KEPT + 1)
    ]

    assert fits == [True] * BARS_KEPT + [False]


# Trades


@pytest.mark.parametrize("exchange_id", ["binance", "kraken"])
async def test_every_trade_comes_once_and_in_order_through_a_burst(
    server: ExchangeServer, exchange_id: str
) -> None:
    listing = {"binance": AT_BINANCE, "kraken": AT_KRAKEN}[exchange_id]
    dealt = [Dealt(n, NOW + n // 7, 100.0 + n / 100, 0.001 * n) for n in range(1, 3001)]
    async with provider_at(server, exchange_id) as provider:
        stream = await trades_of(provider, listing)

        batches = []
        for n in range(500, 3001, 500):
            # More than are kept at once only if nobody reads them.
            await server.live.trade(listing.symbol, *dealt[n - 500 : n])
            batches += await told_until(stream, lambda batch, n=n: batch[-1].id == f"{n}")

    trades = [trade for batch in batches for trade in batch]
    assert trades == [
        Trade(str(d.id), d.time, pytest.approx(d.price), pytest.approx(d.amount)) for d in dealt
    ]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        # Names say nothing of the order; numbers do.
        (["x9", "x10", "x8"], ["x9", "x10", "x8"]),
        ([11, 10, 9], ["9", "10", "11"]),
    ],
)
async def test_trades_of_one_millisecond_are_in_the_order_of_the_exchange(
    server: ExchangeServer, kraken: CcxtProvider, sent: list[int | str], expected: list[str]
) -> None:
    stream = await trades_of(kraken, AT_KRAKEN)

    await server.live.trade("BTC/USD", *(Dealt(name, NOW, 1.0, 1.0) for name in sent))

    assert [trade.id for trade in await told(stream)] == expected


async def test_more_trades_at_once_than_ccxt_keeps_fail_the_stream(
    server: ExchangeServer,
) -> None:
    def forgetful(exchange: Any) -> None:
        exchange.options["tradesLimit"] = 10

    async with provider_at(server, "kraken", forgetful) as kraken:
        stream = await trades_of(kraken, AT_KRAKEN)
        await server.live.trade("BTC/USD", *(Dealt(n, NOW, 1.0, 1.0) for n in range(9)))
        assert len(await told(stream)) == 9

        await server.live.trade("BTC/USD", *(Dealt(n, NOW, 1.0, 1.0) for n in range(11)))

        with pytest.raises(ProviderUnavailable, match="more was pushed at once"):
            await told(stream)


async def test_trades_that_are_not_read_in_time_fail_their_listener_and_nobody_else(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    slow = await trades_of(kraken, AT_KRAKEN)
    fast = await trades_of(kraken, AT_KRAKEN)
    heard = 0
    for n in range(TRADES_KEPT // 900 + 1):
        await server.live.trade("BTC/USD", *(Dealt(n, NOW, 1.0, 1.0) for _ in range(900)))
        heard += len(await told(fast))

    kept = await told(slow)
    with pytest.raises(ProviderUnavailable, match="not read in time"):
        await told(slow)
    await server.live.trade("BTC/USD", Dealt(1, NOW, 1.0, 1.0))

    assert heard > TRADES_KEPT >= len(kept) > TRADES_KEPT - 1800
    assert len(await told(fast)) == 1


async def test_kraken_s_first_trades_may_reach_back_and_nothing_is_missing_after_them(
    server: ExchangeServer, kraken: CcxtProvider
) -> None:
    first = await trades_of(kraken, AT_KRAKEN)
    await server.live.trade("BTC/USD", *(Dealt(n, NOW + n, 1.0, 1.0) for n in range(1, 4)))
    await told(first)
    await first.aclose()

    second = kraken.stream_trades(AT_KRAKEN)  # type: ignore[attr-defined]  # composed
    batches = await told_until(second, lambda batch: len(batch) > 0)
    await server.live.trade("BTC/USD", Dealt(4, NOW + 4, 1.0, 1.0))
    batches.append(await told(second))

    assert [trade.id for batch in batches for trade in batch] == ["1", "2", "3", "4"]


async def test_a_trade_without_a_price_fails_the_stream(
    server: ExchangeServer, binance: CcxtProvider
) -> None:
    stream = await trades_of(binance, AT_BINANCE)

    await server.live.say('{"e":"trade","E":1,"s":"BTCUSDT","t":1,"q":"1.0","T":1700000020000}')

    with pytest.raises(ProviderUnavailable, match="cannot be read"):
        await told(stream)
