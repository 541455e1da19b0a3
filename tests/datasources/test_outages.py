"""Without Redis, or without PostgreSQL, the chain goes on and says so once."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from db.candles import CandleStore
from db.pool import open_pool
from market.clock import FixedClock
from market.window import HOUR, MINUTE
from tests.datasources.chains import NOW, RUNNING, Opened, on_embedded, opened_chain
from tests.datasources.recount import assert_says, bars_of
from tests.fakes import FakeProvider, Market, days_before, minutes_between, row
from web.bootstrap import open_redis

pytestmark = on_embedded

LISTED = days_before(NOW, 3)
RECENT = {"since": RUNNING - 5 * HOUR}
PAST = {"since": RUNNING - 10 * HOUR, "until": RUNNING - HOUR}


class Door:
    """A socket in front of a server that a test can shut and open again."""

    def __init__(self, target: str, path: Path) -> None:
        self.path = path
        self._target = target
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*self._serving, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        upstream, onward = await asyncio.open_unix_connection(self._target)
        try:
            await asyncio.gather(_pump(reader, onward), _pump(upstream, writer))
        finally:
            del self._serving[task]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while some := await reader.read(1 << 16):
            writer.write(some)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def door_to(target: str, path: Path) -> AsyncIterator[Door]:
    door = Door(target, path)
    await door.open()
    try:
        yield door
    finally:
        await door.shut()


def listed() -> FakeProvider:
    market = Market.of(minutes_between(LISTED, NOW + 5 * HOUR))
    return FakeProvider(
        FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, page_limit=10_000
    )


def expected(opened: Opened, timeframe: str, since: int, until: int | None = None) -> list:
    now = opened.clock.now()
    rows = opened.provider.markets[opened.symbol].seen_at(now)
    bars = bars_of(rows, timeframe, "UTC", now=now, minutes_from=LISTED)
    return [b for b in bars if since <= b.time and (until is None or b.time < until)]


def warnings(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and word in record.getMessage()
    ]


async def test_without_redis_answers_go_on_and_it_is_said_once(
    store: CandleStore, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}"
    provider = listed()
    async with (
        open_redis(url, 5) as redis,
        opened_chain(provider, store, redis, redis_prefix) as opened,
    ):
        for _ in range(3):
            assert_says(await opened.get("1h", **RECENT), expected(opened, "1h", **RECENT))
            assert_says(await opened.get("7m", **PAST), expected(opened, "7m", **PAST))
        (state,) = await store.states([opened.key])

    assert state is not None and state.known
    assert len(warnings(caplog, "Redis")) == 1


async def test_redis_may_go_away_and_come_back(
    store: CandleStore,
    redis_url: str,
    redis_prefix: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = listed()
    target = redis_url.removeprefix("unix://").partition("?")[0]
    async with (
        door_to(target, tmp_path / "redis.sock") as door,
        open_redis(f"unix://{door.path}", 5) as redis,
        opened_chain(provider, store, redis, redis_prefix) as opened,
    ):
        await opened.get("1h", **PAST)
        await door.shut()
        for _ in range(2):
            provider.clock.at += HOUR // 4
            assert_says(await opened.get("1h", **RECENT), expected(opened, "1h", **RECENT))
        await door.open()
        provider.calls.clear()

        assert_says(await opened.get("1h", **PAST), expected(opened, "1h", **PAST))

    assert provider.calls == []
    assert warnings(caplog, "Redis is away") == warnings(caplog, "Redis is away")[:1] != []
    assert len(warnings(caplog, "Redis is back")) == 1


async def test_without_the_store_candles_come_from_provider_and_cache_unrevised(
    store: CandleStore,
    store_url: str,
    redis: Redis,
    redis_prefix: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = listed()
    # asyncpg looks for a socket of this name in the folder that the URL gives as the host.
    folder = store_url.partition("host=")[2].partition("&")[0]
    async with (
        door_to(f"{folder}/.s.PGSQL.5432", tmp_path / ".s.PGSQL.5432") as door,
        open_pool(store_url.replace(folder, str(tmp_path)), max_size=4) as pool,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        await door.shut()
        for timeframe in ("1m", "7m", "1h", "1d"):
            answer = await opened.get(timeframe, **PAST)
            assert_says(answer, expected(opened, timeframe, **PAST))
            assert set(answer.bars.revision.tolist()) <= {0}
        assert_says(await opened.get("1h", **RECENT), expected(opened, "1h", **RECENT))
        asked = len(provider.calls)
        assert_says(await opened.get("1h", **PAST), expected(opened, "1h", **PAST))
        assert len(provider.calls) == asked
        assert len(warnings(caplog, "store is away")) == 1

        await door.open()
        await opened.flush()
        provider.clock.at += HOUR
        answer = await opened.get("1h", **PAST)

        assert_says(answer, expected(opened, "1h", **PAST))
        assert (answer.bars.revision > 0).all()
        (state,) = await store.states([opened.key])
        assert state is not None and state.known

    assert len(warnings(caplog, "store is back")) == 1


async def test_without_both_the_provider_alone_answers(
    store_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    provider = listed()
    nowhere = f"postgresql://nobody@/nothing?host={tmp_path}"
    async with (
        open_pool(nowhere, max_size=2) as pool,
        open_redis(f"unix://{tmp_path}/no.sock", 2) as redis,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        for timeframe in ("1m", "7m", "1h", "1d"):
            answer = await opened.get(timeframe, **RECENT)

            assert_says(answer, expected(opened, timeframe, **RECENT))


async def test_a_revision_made_while_redis_is_away_is_announced_once_it_is_back(
    store: CandleStore, redis: Redis, redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    provider = listed()
    other = uuid4().hex
    provider.markets[other] = Market.of(minutes_between(LISTED, NOW))
    target = redis_url.removeprefix("unix://").partition("?")[0]
    wrong = RUNNING - 5 * HOUR
    async with (
        door_to(target, tmp_path / "redis.sock") as door,
        open_redis(f"unix://{door.path}", 5) as behind_door,
        opened_chain(provider, store, behind_door, redis_prefix) as writer,
        opened_chain(provider, store, redis, redis_prefix) as reader,
    ):
        await reader.get("1h", **PAST)
        await door.shut()
        await writer.correct(wrong, row(wrong, version=1))
        await door.open()
        await writer.get("1m", symbol=other, last=3)

        assert_says(await reader.get("1h", **PAST), expected(reader, "1h", **PAST))


async def test_what_the_store_could_not_take_in_is_not_cached_as_if_it_had(
    store_url: str, redis: Redis, redis_prefix: str, tmp_path: Path
) -> None:
    provider = listed()
    folder = store_url.partition("host=")[2].partition("&")[0]
    new = {"since": RUNNING + HOUR, "until": RUNNING + 2 * HOUR}
    async with (
        door_to(f"{folder}/.s.PGSQL.5432", tmp_path / ".s.PGSQL.5432") as door,
        open_pool(store_url.replace(folder, str(tmp_path)), max_size=4) as pool,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        # Now Redis knows where the base stands.
        await opened.get("1m", last=5)
        provider.clock.at += 4 * HOUR
        await door.shut()
        unrevised = await opened.get("1m", **new)
        lasting = [await redis.ttl(key) async for key in redis.scan_iter(f"{redis_prefix}chunk:*")]

        assert_says(unrevised, expected(opened, "1m", **new))
        assert set(unrevised.bars.revision.tolist()) == {0}
        assert max(lasting) <= 60

        await door.open()
        async for key in redis.scan_iter(f"{redis_prefix}chunk:*"):
            if await redis.ttl(key) <= 60:
                await redis.delete(key)
        provider.clock.at += MINUTE
        assert set((await opened.get("1m", **new)).bars.revision.tolist()) == {1}


async def test_what_only_the_store_knew_is_asked_for_when_it_goes_away(
    store_url: str, redis: Redis, redis_prefix: str, tmp_path: Path
) -> None:
    provider = listed()
    folder = store_url.partition("host=")[2].partition("&")[0]
    async with (
        door_to(f"{folder}/.s.PGSQL.5432", tmp_path / ".s.PGSQL.5432") as door,
        open_pool(store_url.replace(folder, str(tmp_path)), max_size=4) as pool,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        await opened.get("1m", **RECENT)
        provider.clock.at += 1500
        # This asks for the youngest minutes alone.
        await opened.get("1m", **RECENT)
        provider.clock.at += 500
        await door.shut()
        await opened.flush()

        assert_says(await opened.get("1m", **RECENT), expected(opened, "1m", **RECENT))


async def test_a_database_made_anew_is_filled_again(
    fresh_store_url: str, redis: Redis, redis_prefix: str
) -> None:
    provider = listed()
    async with (
        open_pool(fresh_store_url) as pool,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        await opened.get("1h", **PAST)
        await pool.execute("TRUNCATE series, bar, rollup, change RESTART IDENTITY")
        await pool.execute("UPDATE store SET id = gen_random_uuid()")
        await opened.flush()

        assert_says(await opened.get("1h", **PAST), expected(opened, "1h", **PAST))


async def test_a_redis_that_takes_nothing_in_is_told_of_once(
    redis: Redis, store: CandleStore, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = listed()
    before = await redis.config_get("maxmemory", "maxmemory-policy")
    async with opened_chain(provider, store, redis, redis_prefix) as opened:
        await redis.config_set("maxmemory-policy", "noeviction", "maxmemory", 1)
        try:
            for _ in range(3):
                provider.clock.at += HOUR // 4
                assert_says(await opened.get("1h", **RECENT), expected(opened, "1h", **RECENT))
        finally:
            await redis.config_set(*(part for pair in before.items() for part in pair))

    assert len(warnings(caplog, "Redis")) == 1
