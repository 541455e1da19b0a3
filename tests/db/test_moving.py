"""A store that moves to another server is the same one there, and nothing less."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import asyncpg
import numpy as np
import pytest

from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from db.moving import DERIVED, IDENTITY, MOVED, Moved, MovedWrong, MoveRefused, move
from db.pool import open_pool
from db.pruner import Pruner
from db.stored import SeriesFacts, SeriesKey, Write
from market.bars import CLOSED, Bars
from market.clock import FixedClock
from market.instrument import Adjustment, Listing
from market.retention import Retention
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans
from tests.conftest import scratch_database, timescale_server
from tests.db.embedded.processes import CHECKOUT
from tests.db.minutes import (
    AROUND,
    T0,
    VIEWS,
    as_aggregates,
    assert_same,
    assert_views_exact,
    minutes,
    put,
    recomputed,
    rows_of,
    stored,
)
from tests.db.timescale.kept import kept
from web.bootstrap import SQL

PAIR = SeriesKey(Listing("sim", "crypto", "BTC/USDT", dataset="1-1"), MINUTE_FRAME)
STOCK = SeriesKey(Listing("alpaca", "stocks", "SPY", Adjustment.SPLIT, "iex"), DAY_FRAME)
ONE_SERVER = pytest.mark.parametrize("server_url", ["embedded"], indirect=True, scope="session")


@pytest.fixture(params=["embedded", "timescale"])
def target_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database on a server that decides its own mode."""
    if request.param == "timescale":
        server = timescale_server()
    else:
        servers: EmbeddedServers = request.getfixturevalue("embedded")
        server = servers.postgres_url
    with scratch_database(server) as url:
        yield url


@pytest.fixture
def plain_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


def wild(count: int, *, seed: int = 7, since: int = T0) -> Bars:
    """Minutes with holes, whose numbers need every bit, some with vwap and trades."""
    draw = np.random.default_rng(seed)
    time = since + np.cumsum(draw.integers(1, 4, count)) * MINUTE
    open_, close = 100 * draw.random(count) + 1, 100 * draw.random(count) + 1
    return Bars.of(
        time,
        open_,
        np.maximum(open_, close) + draw.random(count),
        np.minimum(open_, close) - draw.random(count),
        close,
        draw.random(count) * 1e-3,
        vwap=np.where(draw.random(count) < 0.5, open_, np.nan),
        trades=np.where(draw.random(count) < 0.5, 3, -1),
        updated=time + MINUTE,
        flags=CLOSED,
    )


async def fill(url: str, *, count: int = 2000) -> None:
    """Store two series with revisions, withdrawn bars, known time and a log of changes."""
    async with open_pool(url) as pool:
        store = CandleStore(pool)
        bars = wild(count)
        last = int(bars.time[-1])
        await put(store, PAIR, bars, settled=Spans.of(T0, last))
        some = bars.take(np.arange(count) % 50 == 0)
        await put(store, PAIR, some.with_columns(volume=some.volume + 1), T0 + DAY)
        # Asked for later and not told again: withdrawn.
        gone = Spans.of(int(bars.time[10]), int(bars.time[12]))
        await put(store, PAIR, Bars.empty(), T0 + 2 * DAY, covered=gone)
        (series,) = await store.ensure([(PAIR, AROUND)])
        await store.set_minutes_from(series, T0)
        days = minutes([T0 // DAY * DAY, T0 // DAY * DAY + DAY])
        await store.write([Write(STOCK, SeriesFacts("SPY", "USD"), days, T0)])
        await pool.execute(
            "INSERT INTO raw_trades VALUES (from_epoch_ms($1), 1.5, 2, $2, 'a'), "
            "(from_epoch_ms($1), 1.5, 2, $2, 'b')",
            T0,
            series,
        )


async def contents(url: str) -> dict[str, list[str]]:
    """Return every row of the tables that move as text, columns of one mode alone left out."""
    connection = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        held = {}
        for name in (IDENTITY, *(table.name for table in MOVED)):
            rows = await connection.fetch(f"SELECT to_jsonb(t) - 'rolled_up' AS row FROM {name} t")
            held[name] = sorted(row["row"] for row in rows)
        return held
    finally:
        await connection.close()


async def test_a_moved_store_holds_every_row_and_is_the_same_store(
    fresh_store_url: str, target_url: str
) -> None:
    await fill(fresh_store_url)
    before = await contents(fresh_store_url)

    moved = await move(fresh_store_url, target_url, SQL, piece=300)

    assert await contents(target_url) == before == await contents(fresh_store_url)
    assert moved.series == 2
    assert moved.copied == moved.rows == sum(len(rows) for rows in before.values()) - 1


async def test_the_aggregates_of_the_target_equal_the_recomputation(
    fresh_store_url: str, target_url: str
) -> None:
    await fill(fresh_store_url)

    await move(fresh_store_url, target_url, SQL, piece=300)

    async with open_pool(target_url) as pool:
        assert len(await rows_of(pool, PAIR)) == 2000
        await assert_views_exact(pool, PAIR)


async def test_a_moved_store_is_written_on_as_if_it_had_not_moved(
    fresh_store_url: str, target_url: str
) -> None:
    await fill(fresh_store_url)
    await move(fresh_store_url, target_url, SQL)
    other = SeriesKey(Listing("sim", "crypto", "new"), MINUTE_FRAME)
    changed = wild(2000).last(1)

    written = {}
    for url in (fresh_store_url, target_url):
        async with open_pool(url) as pool:
            store = CandleStore(pool)
            revised = await put(store, PAIR, changed, T0 + 3 * DAY)
            new = await put(store, other, minutes([T0]))
            written[url] = (revised.state, revised.changes, revised.bars, new.state, new.changes)
            log = await store.changes(revised.state.id, after=0, limit=100)
            written[url] += (log, await store.store_id())
            await assert_views_exact(pool, PAIR)

    assert written[fresh_store_url] == written[target_url]


@ONE_SERVER
async def test_what_the_target_has_already_is_not_copied_again(
    fresh_store_url: str, plain_url: str
) -> None:
    await fill(fresh_store_url)
    before = await contents(fresh_store_url)
    told: list[int] = []

    class Enough(Exception):
        pass

    def stop(rows: int) -> None:
        told.append(rows)
        if sum(told) > 1000:
            raise Enough

    with pytest.raises(Enough):
        await move(fresh_store_url, plain_url, SQL, piece=300, advanced=stop)
    moved = await move(fresh_store_url, plain_url, SQL, piece=300)

    assert moved.rows - moved.copied == sum(told)
    assert await contents(plain_url) == before


@ONE_SERVER
async def test_a_move_that_is_killed_goes_on_where_it_stopped(
    fresh_store_url: str, plain_url: str
) -> None:
    await fill(fresh_store_url, count=6000)
    before = await contents(fresh_store_url)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.db.moving_process", fresh_store_url, plain_url, "200"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
    )
    for _ in range(15):
        assert process.stdout.readline() == b"piece\n"
    process.kill()
    process.wait()

    moved = await _again(fresh_store_url, plain_url)

    assert 0 < moved.copied < moved.rows
    assert await contents(plain_url) == before
    async with open_pool(plain_url) as pool:
        await assert_views_exact(pool, PAIR)


async def _again(source: str, target: str) -> Moved:
    """Move once the server has noticed that the killed process is gone."""
    for _ in range(200):
        try:
            return await move(source, target, SQL, piece=200)
        except MoveRefused:
            await asyncio.sleep(0.05)
    raise AssertionError("the locks of a killed move are still held")


@ONE_SERVER
async def test_rows_that_changed_at_the_target_are_put_right_before_it_is_whole(
    fresh_store_url: str, plain_url: str
) -> None:
    await fill(fresh_store_url)
    before = await contents(fresh_store_url)

    class Enough(Exception):
        pass

    def stop(rows: int) -> None:
        if rows == 300:
            raise Enough

    with pytest.raises(Enough):
        await move(fresh_store_url, plain_url, SQL, piece=300, advanced=stop)
    connection = await asyncpg.connect(plain_url)
    await connection.execute("UPDATE bar SET close = high")
    await connection.close()
    await move(fresh_store_url, plain_url, SQL, piece=300)

    assert await contents(plain_url) == before
    async with open_pool(plain_url) as pool:
        await assert_views_exact(pool, PAIR)


@ONE_SERVER
async def test_a_row_that_does_not_arrive_as_it_left_stops_the_move(
    fresh_store_url: str, plain_url: str
) -> None:
    await fill(fresh_store_url)
    await migrate(plain_url, SQL)
    connection = await asyncpg.connect(plain_url)
    await connection.execute(
        """
        CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.volume := NEW.volume * 1.0000000000000002; RETURN NEW; END $$;
        CREATE TRIGGER spoil BEFORE INSERT ON bar FOR EACH ROW EXECUTE FUNCTION spoil();
        """
    )
    await connection.close()

    with pytest.raises(MovedWrong, match="table bar, series 1"):
        await move(fresh_store_url, plain_url, SQL, piece=300)

    assert (await contents(plain_url))["bar"] == []


@ONE_SERVER
async def test_a_target_with_bars_of_its_own_is_refused(
    fresh_store_url: str, plain_url: str
) -> None:
    await migrate(plain_url, SQL)
    async with open_pool(plain_url) as pool:
        await put(CandleStore(pool), PAIR, minutes([T0]))

    with pytest.raises(MoveRefused, match="holds series already"):
        await move(fresh_store_url, plain_url, SQL)


@ONE_SERVER
async def test_a_target_that_was_moved_to_already_is_refused(
    fresh_store_url: str, plain_url: str
) -> None:
    await fill(fresh_store_url)
    await move(fresh_store_url, plain_url, SQL)

    with pytest.raises(MoveRefused, match="holds series already"):
        await move(fresh_store_url, plain_url, SQL)


@ONE_SERVER
async def test_a_target_with_tables_of_another_application_is_left_alone(
    fresh_store_url: str, plain_url: str
) -> None:
    connection = await asyncpg.connect(plain_url)
    await connection.execute("CREATE TABLE invoices (id integer)")

    with pytest.raises(MoveRefused, match="such as invoices"):
        await move(fresh_store_url, plain_url, SQL)

    assert await connection.fetchval("SELECT to_regclass('series')") is None
    await connection.close()


@ONE_SERVER
async def test_a_store_that_servers_are_connected_to_does_not_move(
    fresh_store_url: str, plain_url: str
) -> None:
    await fill(fresh_store_url)

    async with open_pool(fresh_store_url) as pool:
        await pool.fetchval("SELECT 1")
        with pytest.raises(MoveRefused, match="Servers are connected to the store that moves"):
            await move(fresh_store_url, plain_url, SQL)


@ONE_SERVER
async def test_nobody_can_write_while_a_store_moves(fresh_store_url: str, plain_url: str) -> None:
    await fill(fresh_store_url)
    seen: list[str] = []

    def look(rows: int) -> None:
        if rows != 300 or seen:
            return
        for url in (fresh_store_url, plain_url):
            asked = subprocess.run(
                [sys.executable, "-c", _LOOK, url], capture_output=True, text=True, timeout=30
            )
            seen.append(asked.stdout.strip())

    await move(fresh_store_url, plain_url, SQL, piece=300, advanced=look)

    assert seen == ["LockNotAvailableError"] * 2


_LOOK = """
import asyncio, sys, asyncpg

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    try:
        await connection.execute("SET lock_timeout = '100ms'")
        await connection.execute("SELECT * FROM series FOR NO KEY UPDATE")
    except asyncpg.PostgresError as error:
        print(type(error).__name__)

asyncio.run(main())
"""


async def test_every_table_of_a_store_moves_or_is_made_anew(fresh_store_url: str) -> None:
    connection = await asyncpg.connect(fresh_store_url)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class c WHERE relnamespace = current_schema()::regnamespace "
        "AND relkind IN ('r', 'p') "
    )
    await connection.close()

    accounted = {table.name for table in MOVED} | DERIVED | {IDENTITY}
    assert {row["relname"] for row in rows} - accounted == set()


async def test_what_moved_reads_the_same(fresh_store_url: str, target_url: str) -> None:
    await fill(fresh_store_url)
    await move(fresh_store_url, target_url, SQL, piece=300)

    read = []
    for url in (fresh_store_url, target_url):
        async with open_pool(url) as pool:
            store = CandleStore(pool)
            states = await store.states([PAIR, STOCK])
            read.append((await stored(store, PAIR), await stored(store, STOCK), states))

    assert read[0] == read[1]


@ONE_SERVER
@pytest.mark.parametrize("held", [False, True])
async def test_a_move_tells_whether_accounts_stayed_behind(
    fresh_store_url: str, plain_url: str, held: bool
) -> None:
    if held:
        connection = await asyncpg.connect(fresh_store_url)
        await connection.execute("CREATE SCHEMA accounts")
        await connection.close()

    moved = await move(fresh_store_url, plain_url, SQL)

    assert moved.accounts_stay is held


async def test_aggregates_of_dropped_minutes_move_along_and_their_minutes_stay_dropped(
    fresh_store_url: str, target_url: str
) -> None:
    line = T0 // DAY * DAY + 20 * DAY
    async with open_pool(fresh_store_url) as pool:
        source = await kept(fresh_store_url, pool)
        times = [T0 + n * 7 * HOUR for n in range(200)]
        settled = Spans.of(T0, times[-1])
        await put(source.store, PAIR, minutes(times), settled=settled)
        await source.refresh(onward=True)
        before = await rows_of(pool, PAIR)
        retention = Retention(((MINUTE_FRAME, 10 * DAY),))
        clock = FixedClock(line + 10 * DAY)
        assert await Pruner(fresh_store_url, retention, clock=clock, ages=lambda _: True).prune()

    moved = await move(fresh_store_url, target_url, SQL, piece=50)

    async with open_pool(target_url) as pool:
        target = await kept(target_url, pool)
        assert min(await rows_of(pool, PAIR)) >= line
        for turn in range(2):
            for view, name in VIEWS.items():
                read = await stored(target.store, PAIR, Timeframe.parse(view))
                assert_same(recomputed(before, view), as_aggregates(read))
                shown = await pool.fetch(f"SELECT revision FROM {name} ORDER BY timestamp")
                assert [row["revision"] for row in shown] == read.revision.tolist()
            if not turn:
                await target.refresh(onward=True)
        late = await put(target.store, PAIR, minutes([line - MINUTE]), 2**41)
        assert late.too_old == 1
    assert moved.copied == moved.rows
