"""Several processes as one server: feeds that are killed, and API processes that are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from db.embedded.servers import embedded_servers
from tests.db.embedded.processes import Scratch
from tests.web.live.viewers import Viewer, eventually
from tests.web.serving import environment

CHAOS = bool(os.environ.get("BARGRAPH_CHAOS"))
KILLS = 20 if CHAOS else 3
# The keeper gives up on a server that dies more than five times a minute.
CUTS = 4 if CHAOS else 1
VIEWERS = 500
START = 1_735_689_600_000
MINUTE = 60_000
SPEED = 120
CLUSTER = (sys.executable, "-m", "web", "cluster")
SERVE = (sys.executable, "-m", "web", "serve")
SERIES = {"provider": "replay", "symbol": "TEST", "timeframe": "1m"}


class Cluster:
    """Processes under one supervisor, and the stores they share."""

    def __init__(
        self, process: subprocess.Popen[str], url: str, redis: Redis, scratch: Scratch
    ) -> None:
        self.process = process
        self.url = url
        self.redis = redis
        self.scratch = scratch

    @property
    def socket_url(self) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/graphql"

    async def holder(self, *, other_than: int | None = None) -> int:
        """Return the one process that holds leases, once there is one."""
        async with asyncio.timeout(60):
            while len(holders := await self.holders()) != 1 or other_than in holders:
                await asyncio.sleep(0.05)
        return holders.pop()

    async def holders(self) -> set[int]:
        keys = [key async for key in self.redis.scan_iter("*lease:*", count=1000)]
        values = [await self.redis.get(key) for key in keys]
        return {
            int(value.decode().rsplit("-", 2)[1]) for value in values if value and b"-" in value
        }

    async def candles(self, series: dict[str, str], since: int, until: int) -> dict[int, tuple]:
        """Return the closed bars that a query gives."""
        query = """query ($series: SeriesInput!, $since: Timestamp, $until: Timestamp) {
          candles(series: $series, since: $since, until: $until, last: 10000) { candles {
            time open high low close volume revision isClosed } } }"""
        variables = {"series": series, "since": since, "until": until}
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}
            )
        names = ("open", "high", "low", "close", "volume", "revision")
        return {
            row["time"]: tuple(row[name] for name in names)
            for row in answer.json()["data"]["candles"]["candles"]
            if row["isClosed"]
        }


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of minutes of one symbol, every seventh of them missing."""
    folder = tmp_path_factory.mktemp("cluster-replay")
    rows = ["timestamp_ms,open,high,low,close,volume"]
    for n in range(3 * 1440):
        if n % 7 != 3:
            price = 100 + n % 50
            rows.append(
                f"{START + n * MINUTE},{price},{price + 3},{price - 2},{price + 1},{1 + n % 9}"
            )
    (folder / "TEST_1m.csv").write_text("\n".join([*rows, ""]))
    return folder


@asynccontextmanager
async def cluster(folder: Path, recordings: Path, command: Sequence[str] = CLUSTER, **more: object):
    settings = environment(
        data_dir=folder / "shared",
        replay_dir=recordings,
        replay_from="2025-01-02T00:00:00Z",
        replay_speed=SPEED,
        log_level="warning",
        **more,
    )
    async with embedded_servers(folder / "shared") as servers:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=settings,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            line = await asyncio.to_thread(process.stdout.readline)
            url = line.removeprefix("Bargraph serves ").strip().removesuffix("/graphql")
            async with Redis.from_url(servers.redis_url) as redis:
                yield Cluster(process, url, redis, Scratch((folder / "shared").resolve()))
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 30)
            process.stdout.close()


@asynccontextmanager
async def watching(viewers: list[Viewer]):
    tasks = [asyncio.create_task(viewer.run()) for viewer in viewers]
    try:
        await eventually(lambda: all(viewer.bars for viewer in viewers))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settled_until(viewers: list[Viewer], bars: int) -> None:
    """Wait until each viewer has seen *bars* more bars close."""
    goals = [(viewer, viewer.newest_closed + bars * MINUTE) for viewer in viewers]
    await eventually(lambda: all(viewer.newest_closed >= goal for viewer, goal in goals))


async def assert_viewers_hold_what_is_stored(running: Cluster, viewers: list[Viewer]) -> None:
    for viewer in viewers:
        held = viewer.closed
        since, until = min(held), max(held) + 1
        truth = await running.candles(viewer.series, since, until)
        assert held == truth
        assert viewer.repeated == []
        assert viewer.resets == []
        assert viewer.errors == []


async def test_killed_holders_of_a_feed_lose_and_double_nothing(tmp_path, recordings):
    async with cluster(tmp_path, recordings) as running:
        frames = ("1m", "5m", "7m", "1h")
        viewers = [
            Viewer(lambda: running.socket_url, {**SERIES, "timeframe": frame}) for frame in frames
        ]
        async with watching(viewers):
            for _ in range(KILLS):
                await settled_until(viewers[:1], 5)
                holder = await running.holder()

                os.kill(holder, signal.SIGKILL)

                assert await running.holder(other_than=holder) != holder
            await settled_until(viewers[:1], 5)

        await assert_viewers_hold_what_is_stored(running, viewers)


@pytest.mark.parametrize("server", ["valkey-server", "postgres"])
async def test_a_killed_store_loses_and_doubles_nothing(tmp_path, recordings, server):
    async with cluster(tmp_path, recordings) as running:
        viewers = [
            Viewer(lambda: running.socket_url, {**SERIES, "timeframe": frame})
            for frame in ("1m", "5m")
        ]
        async with watching(viewers):
            for _ in range(CUTS):
                await settled_until(viewers[:1], 3)

                # Its keeper starts it again.
                (pid,) = [pid for pid, name in running.scratch.servers().items() if name == server]
                os.kill(pid, signal.SIGKILL)

                await settled_until(viewers[:1], 3)

        await assert_viewers_hold_what_is_stored(running, viewers)


async def test_a_killed_server_is_resumed_by_cursor_without_loss(tmp_path, recordings):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    viewer = Viewer(lambda: f"ws://127.0.0.1:{port}/graphql", SERIES)
    async with cluster(tmp_path, recordings, SERVE, port=port) as first, watching([viewer]):
        await settled_until([viewer], 3)

        first.process.kill()
        async with cluster(tmp_path, recordings, SERVE, port=port) as second:
            await eventually(lambda: viewer.connections >= 2)
            await settled_until([viewer], 5)

            await assert_viewers_hold_what_is_stored(second, [viewer])


async def test_a_rolling_restart_under_many_viewers_loses_and_doubles_nothing(tmp_path, recordings):
    async with cluster(tmp_path, recordings) as running:
        viewers = [Viewer(lambda: running.socket_url, SERIES) for _ in range(VIEWERS)]
        async with watching(viewers):
            await settled_until(viewers, 3)

            running.process.send_signal(signal.SIGUSR1)

            await eventually(lambda: all(viewer.connections >= 2 for viewer in viewers))
            await settled_until(viewers, 5)

        since = min(min(viewer.closed) for viewer in viewers)
        until = max(max(viewer.closed) for viewer in viewers) + 1
        truth = await running.candles(SERIES, since, until)
        for viewer in viewers:
            held = viewer.closed
            assert held == {time: truth[time] for time in truth if min(held) <= time <= max(held)}
        assert [viewer.repeated for viewer in viewers if viewer.repeated] == []
        assert [viewer.resets for viewer in viewers if viewer.resets] == []


async def test_a_process_that_feeds_tells_of_itself_and_answers_no_clients(tmp_path, recordings):
    command = (*SERVE, "--role", "feeds")
    async with (
        cluster(tmp_path, recordings, command, port=0) as running,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        metrics = await client.get("/metrics")
        answer = await client.post("/graphql", json={"query": "{ __typename }"})

    assert 'bargraph_live{what="feeds"}' in metrics.text
    assert answer.status_code == 404


async def test_workers_share_one_address_and_one_upstream(tmp_path, recordings):
    async with cluster(tmp_path, recordings, (*SERVE, "--workers", "2"), port=0) as running:
        viewers = [Viewer(lambda: running.socket_url, SERIES) for _ in range(8)]
        async with watching(viewers):
            await settled_until(viewers, 3)

            assert len(await running.holders()) == 1

        await assert_viewers_hold_what_is_stored(running, viewers)
