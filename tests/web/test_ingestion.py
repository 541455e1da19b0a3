"""The whole application stores trades, and `dead-letters` shows what it could not store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import numpy as np
import pytest
from redis.asyncio import Redis

from datasources.ingest.entry import packed
from datasources.ingest.stream import TradeStream
from db.accounts.engine import open_engine
from db.accounts.schema import migrate_accounts
from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers
from db.pool import open_pool
from db.stored import SeriesKey
from market.bars import FROM_TRADES
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Window
from plugins.sim.provider import SimProvider
from tests.api import served, settings_over
from tests.datasources.chains import NOW
from tests.datasources.ingest.stage import eventually
from tests.db.minutes import T0, assert_views_exact, fresh_key, stored
from tests.db.trades import LATE, Deal, telling
from tests.fakes import TickingClock
from web.__main__ import main
from web.settings import Role

Command = Callable[..., "asyncio.Future[int]"]
embedded_store = pytest.mark.parametrize("server_url", ["embedded"], indirect=True, scope="session")
DEALS = [Deal.of("1", T0 + 5, 10.0), Deal.of("2", T0 + 6, 11.0)]


@pytest.fixture
async def fresh_pool(fresh_store_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(fresh_store_url) as pool:
        yield pool


@embedded_store
async def test_the_trades_of_sim_make_the_minutes_that_sim_itself_has(
    embedded: EmbeddedServers, fresh_store_url: str, fresh_pool: asyncpg.Pool
) -> None:
    settings = settings_over(embedded, fresh_store_url, ingest=("sim:BTC/USDT",))
    async with open_engine(fresh_store_url) as engine:
        await migrate_accounts(engine)
    begun = NOW // MINUTE * MINUTE
    clock = TickingClock(begun + 1, speed=60, stands=True)
    async with served(settings, clock=clock) as api:

        async def listens() -> bool:
            return any(task.get_name().startswith("upstream ") for task in asyncio.all_tasks())

        await eventually(listens, "the stream of its trades")
        clock.run()

        async def stored_all() -> bool:
            found = await fresh_pool.fetchrow(
                """
                SELECT count(*) AS count, extract(epoch FROM min("timestamp")) * 1000 AS first
                FROM ohlcv_data WHERE source = 'TRADES'
                """
            )
            return bool(found["count"] >= 4 and found["first"] == begun)

        await eventually(stored_all, "four minutes from the one in which it began")
        metrics = await api.text("/metrics")

    sim = SimProvider(clock=clock)
    key = SeriesKey(
        Listing("sim", "crypto", "BTC/USDT", dataset=sim.description.dataset), MINUTE_FRAME
    )
    bars = await stored(CandleStore(fresh_pool), key)
    since, until = int(bars.time[0]), int(bars.time[-1]) + MINUTE
    own = (await sim.bars(key.listing, MINUTE_FRAME, Window(since, until))).bars
    # The past of its trades tells what was missed of the minute in which it began.
    assert since == begun
    assert (bars.flags & FROM_TRADES).all()
    for name in ("time", "open", "high", "low", "close", "trades", "updated"):
        np.testing.assert_array_equal(getattr(bars, name), getattr(own, name), err_msg=name)
    for name in ("volume", "vwap"):
        np.testing.assert_allclose(getattr(bars, name), getattr(own, name), rtol=1e-12)
    await assert_views_exact(fresh_pool, key)
    assert 'bargraph_ingested_trades_total{what="stored"}' in metrics
    assert "bargraph_ingest_sources 1.0" in metrics
    assert "bargraph_ingest_bar_delay_seconds" in metrics


@embedded_store
async def test_a_process_that_only_answers_ingests_nothing(
    embedded: EmbeddedServers, fresh_store_url: str
) -> None:
    settings = settings_over(embedded, fresh_store_url, ingest=("sim:BTC/USDT",), role=Role.API)

    async with served(settings) as api:
        metrics = await api.text("/metrics")

    assert "bargraph_ingest_sources 0.0" in metrics
    assert not [task for task in asyncio.all_tasks() if "trades" in task.get_name()]


@pytest.fixture
def letters(redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`python -m web dead-letters` with these arguments, in a thread: it has a loop of its own."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("REDIS_PREFIX", redis_prefix)

    async def run(*arguments: str) -> int:
        return await asyncio.to_thread(main, ["dead-letters", *arguments])

    return run


async def buried(redis: Redis, prefix: str, *payloads: bytes) -> list[str]:
    """Leave dead letters, and return their ids."""
    stream = TradeStream(redis, prefix=prefix)
    await stream.join()
    await stream.add(payloads)
    for message in await stream.read("reader", most=100, wait_ms=10):
        await stream.bury(message, "InvalidBars: wrong")
    return [letter.id for letter in await stream.dead()]


async def test_dead_letters_are_listed_with_what_they_hold_and_why(
    redis: Redis, redis_prefix: str, letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    key = fresh_key()
    payload = packed(telling(key, DEALS, T0, T0 + MINUTE + LATE))
    first, second = await buried(redis, redis_prefix, payload, b"broken")

    assert await letters("list") == 0

    assert capsys.readouterr().out.splitlines() == [
        f"{first}  sim:{key.listing.symbol}  2 trades  InvalidBars: wrong",
        f"{second}  6 bytes  InvalidBars: wrong",
    ]


async def test_without_dead_letters_it_says_so(
    letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await letters("list") == 0
    assert capsys.readouterr().out == "No trades are left that could not be stored.\n"


async def test_one_is_put_back_and_another_dropped(
    redis: Redis, redis_prefix: str, letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = await buried(redis, redis_prefix, b"one", b"two")

    assert await letters("replay", first) == 0
    assert await letters("drop", second) == 0

    assert capsys.readouterr().out == f"{first}  put back\n{second}  dropped\n"
    stream = TradeStream(redis, prefix=redis_prefix)
    (message,) = await stream.read("reader", most=10, wait_ms=10)
    assert message.payload == b"one"
    assert await stream.dead() == []


async def test_all_are_dropped(
    redis: Redis, redis_prefix: str, letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        await buried(redis, redis_prefix, *[b"one"] * 50)

    assert await letters("list") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "And 50 newer ones."
    assert await letters("drop", "--all") == 0

    assert await TradeStream(redis, prefix=redis_prefix).dead() == []


async def test_one_that_is_not_there_is_named(
    letters: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await letters("replay", "1-0") == 1
    assert capsys.readouterr().out == "1-0  no such letter\n"


@pytest.mark.parametrize("wrong", [["replay"], ["drop", "abc"], ["drop", "1-0", "--all"], []])
async def test_what_to_do_must_be_clear(letters: Command, wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        await letters(*wrong)


async def test_a_redis_that_is_away_is_said(
    letters: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    assert await letters("list") == 1
    assert "does not answer" in capsys.readouterr().err
