"""Over the real ccxt client and a local exchange that misbehaves, answers stay right or say so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from datasources.found import Answer, GapReason
from db.candles import CandleStore
from market.bars import NATIVE
from market.clock import FixedClock
from market.errors import ProviderUnavailable
from market.window import DAY, HOUR, MINUTE
from plugins.ccxt_exchange import CcxtProvider
from tests.datasources.chains import Opened, on_embedded, opened_chain
from tests.exchange_server import ExchangeServer, Faults, Market, exchange_server

pytestmark = on_embedded

NOW = 1_700_000_020_000
"""40 seconds into a minute."""
RUNNING = NOW // MINUTE * MINUTE
HOUR_NOW = NOW // HOUR * HOUR
PAST = {"since": HOUR_NOW - 30 * HOUR, "until": HOUR_NOW - HOUR}


class Exchange(CcxtProvider):
    """A ccxt provider that knows its instruments by symbol, as the chains of tests ask."""

    markets: dict[str, Any]

    async def ready(self, symbol: str) -> None:
        self.markets = {symbol: None}
        self._instruments = {one.symbol: one for one in await self.symbols()}

    def instrument(self, symbol: str) -> Any:
        return self._instruments[symbol]


async def paused(_: float) -> None:
    """Sleep no longer than it takes others to run."""
    await asyncio.sleep(0)


@asynccontextmanager
async def chain_over(
    server: ExchangeServer,
    store: CandleStore,
    redis: Redis,
    prefix: str,
    *,
    name: str = "binance",
    symbol: str,
    **settings: Any,
) -> AsyncIterator[Opened]:
    provider = Exchange(
        name, clock=FixedClock(server.now), configure=server.configure, timeout=2, sleep=paused
    )
    try:
        await provider.ready(symbol)
        async with opened_chain(provider, store, redis, prefix, **settings) as opened:
            yield opened
    finally:
        await provider.aclose()


@pytest.fixture
async def server() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as running:
        yield running


def listed(server: ExchangeServer, base: str, **options: Any) -> Market:
    """Let the exchange list a market that no other test stores."""
    market = Market(base, "USDT", **options)
    server.markets[market.symbol] = market
    return market


def assert_right(answer: Answer, market: Market, step: int, since: int, until: int) -> None:
    """Fail unless *answer* holds every closed bar of *market* in [since, until)."""
    candles = market.candles(since, until, step=step)
    assert answer.bars.time.tolist() == candles.time.tolist()
    for column in ("open", "high", "low", "close"):
        assert getattr(answer.bars, column).tolist() == getattr(candles, column).tolist()
    assert answer.bars.volume == pytest.approx(candles.volume, rel=1e-6)


@pytest.mark.parametrize(
    ("base", "faults"),
    [
        ("BUSY", lambda faults: faults.refuse(429, retry_after=1, on="klines")),
        ("DOWN", lambda faults: faults.refuse(503, on="klines")),
        ("CUT", lambda faults: setattr(faults, "truncate_pages", 2)),
        ("CAPPED", lambda faults: setattr(faults, "page_cap", 300)),
        ("TWICE", lambda faults: setattr(faults, "repeats_rows", True)),
        ("MIXED", lambda faults: setattr(faults, "shuffles_rows", True)),
        ("SPARSE", lambda faults: None),
    ],
    ids=["429", "503", "truncated", "capped", "repeated", "shuffled", "sparse"],
)
async def test_a_fault_that_passes_leaves_the_answer_right(
    server: ExchangeServer,
    store: CandleStore,
    redis: Redis,
    redis_prefix: str,
    base: str,
    faults: Any,
) -> None:
    sparse = {"trades_in": lambda minutes: minutes % 7 == 3} if base == "SPARSE" else {}
    market = listed(server, base, **sparse)
    async with chain_over(server, store, redis, redis_prefix, symbol=market.symbol) as opened:
        faults(server.faults)
        minutes = await opened.get("1m", **PAST)
        hours = await opened.get("1h", **PAST)

    for answer, step in ((minutes, MINUTE), (hours, HOUR)):
        assert_right(answer, market, step, **PAST)
        assert {gap.reason for gap in answer.gaps} <= {GapReason.NO_TRADES}


async def test_an_exchange_that_stays_away_is_an_error_until_it_is_back(
    server: ExchangeServer, store: CandleStore, redis: Redis, redis_prefix: str
) -> None:
    market = listed(server, "AWAY")
    async with chain_over(server, store, redis, redis_prefix, symbol=market.symbol) as opened:
        await opened.get("1h", since=HOUR_NOW - 3 * HOUR, until=HOUR_NOW - HOUR)
        server.faults.refuse(503, times=1000, on="klines")
        failed = await opened.try_get("1d", last=3)
        server.faults = Faults()
        back = await opened.get("1d", last=3)

    assert isinstance(failed, ProviderUnavailable)
    assert len(back.bars) == 3


async def test_an_exchange_that_ignores_since_never_gives_wrong_bars(
    server: ExchangeServer, store: CandleStore, redis: Redis, redis_prefix: str
) -> None:
    market = listed(server, "IGNORES")
    server.faults.ignores_since = True
    async with chain_over(server, store, redis, redis_prefix, symbol=market.symbol) as opened:
        answer = await opened.try_get("1m", **PAST)
        newest = await opened.get("1m", last=5)

    truth = {time: close for time, *_, close, _ in market.candles(**PAST).rows()}
    if isinstance(answer, Answer):
        shown = dict(zip(answer.bars.time.tolist(), answer.bars.close.tolist(), strict=True))
        assert shown.items() <= truth.items()
        assert len(shown) == len(truth) or answer.gaps
    assert newest.bars.time.tolist() == list(range(RUNNING - 4 * MINUTE, NOW, MINUTE))
    assert newest.bars.is_closed.tolist() == [True] * 4 + [False]


async def test_kraken_has_its_newest_720_minutes_and_native_bars_before(
    server: ExchangeServer, store: CandleStore, redis: Redis, redis_prefix: str
) -> None:
    market = Market("BTC", "USD")
    async with chain_over(
        server, store, redis, redis_prefix, name="kraken", symbol="BTC/USD"
    ) as opened:
        since = HOUR_NOW - 30 * HOUR
        minutes = await opened.get("1m", since=since)
        hours = await opened.get("1h", since=since)
        days = await opened.get("1d", since=NOW // DAY * DAY - 5 * DAY)
        (state,) = await opened.store.states([opened.key])

    assert len(minutes.bars) == 720
    assert state is not None and state.minutes_from == minutes.bars.time[0]
    assert minutes.gaps[0].since == since
    assert minutes.gaps[-1].until == minutes.bars.time[0]
    native = (hours.bars.flags & NATIVE) != 0
    assert native.tolist() == (hours.bars.time < state.minutes_from).tolist()
    assert_right(
        Answer(hours.series, hours.bars.closed(), (), False, 0, {}), market, HOUR, since, HOUR_NOW
    )
    assert len(days.bars) == 6
    # Today opened before the minutes began: its own bar is the exchange's.
    assert (days.bars.flags & NATIVE != 0).all()


PROCESS = """
import asyncio, sys
from tests.datasources.test_exchanges import ask_from_a_process
asyncio.run(ask_from_a_process(*sys.argv[1:]))
"""


async def ask_from_a_process(
    url: str, store_url: str, redis_url: str, prefix: str, symbol: str
) -> None:
    """Answer one request and print how many bars came."""
    from db.pool import open_pool
    from web.bootstrap import open_redis

    server = ExchangeServer(now=NOW, markets={}, url=url)
    async with (
        open_pool(store_url, max_size=2) as pool,
        open_redis(redis_url, 5) as redis,
        chain_over(server, CandleStore(pool), redis, prefix, symbol=symbol) as opened,
    ):
        print("ready", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        answer = await opened.get("1m", since=NOW - 5 * HOUR, until=HOUR_NOW - HOUR)
        print(len(answer.bars))  # noqa: T201


async def test_two_operating_system_processes_ask_the_exchange_once(
    server: ExchangeServer, store_url: str, redis_url: str, redis_prefix: str
) -> None:
    market = listed(server, "PROCESSES")
    arguments = (server.url, store_url, redis_url, redis_prefix, market.symbol)
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, *arguments, **pipes)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    counts = {int(out) for out, _ in outputs}
    assert counts == {len(market.candles(NOW - 5 * HOUR, HOUR_NOW - HOUR).time)}
    assert len(server.asked("klines")) == 1
