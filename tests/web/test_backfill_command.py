"""`python -m web backfill`: what it understands, where the job runs, and what Ctrl-C does."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from db.backfills import MOST_UNFINISHED, Backfill, BackfillState, BackfillStore, NewBackfill
from db.embedded.servers import EmbeddedServers
from db.migrations import migrate
from db.pool import open_pool
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import DAY, Window
from plugins.sim.provider import SimProvider
from resolvers.candles import Asked
from tests.conftest import scratch_database
from tests.db.embedded.processes import Scratch
from tests.web.serving import environment, nothing_is_left, serving, start
from web.bootstrap import SQL
from web.clock import SystemClock
from web.commands.words import instant, series_named

PATIENCE = 240.0
"""Seconds after which what a test waits for will not come."""
SINCE = "2026-01-01"
MIDNIGHT = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
A_DAY = ("--since", SINCE, "--until", "2026-01-02")
YEARS = ("--since", "2016-01-01", "--until", SINCE)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("binance:BTC/USDT:1m", Asked("binance", "BTC/USDT", "1m")),
        ("binance:BTC/USDT:USDT:1m", Asked("binance", "BTC/USDT:USDT", "1m")),
        ("sim:AAPL:1M", Asked("sim", "AAPL", "1M")),
    ],
)
def test_a_series_is_a_provider_a_symbol_and_a_timeframe(text: str, named: Asked) -> None:
    assert series_named(text) == named


@pytest.mark.parametrize("text", ["", "sim", "sim:BTC", "sim::1m", ":BTC:1m", "sim:BTC:", "a:b:1x"])
def test_anything_else_is_no_series(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        series_named(text)


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-01", "20260101", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00"),
        *("2025-12-31T19:00-05:00", "1767225600000"),
    ],
)
def test_an_instant_is_a_date_a_time_with_its_zone_or_milliseconds(text: str) -> None:
    assert instant(text) == MIDNIGHT


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026-01-01T00:00:00", "2026-02-30", "2026", "2026-W01", "1e12"),
        *("9" * 20, "12345", "\uff12\uff10\uff12\uff16-01-01"),
    ],
)
def test_anything_else_is_no_instant(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        instant(text)


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    for read in (series_named, instant):
        try:
            read(text)
        except argparse.ArgumentTypeError as refusal:
            assert "must be" in str(refusal) or "Unknown timeframe" in str(refusal)


@dataclass
class Desk:
    """Where the command is given: a folder, settings, and the jobs that it leaves."""

    folder: Path
    settings: dict[str, str]
    pool: asyncpg.Pool

    @property
    def jobs(self) -> BackfillStore:
        return BackfillStore(self.pool)

    async def job(self) -> Backfill:
        """Return the only job there is."""
        (job,) = await self.jobs.page(first=2)
        return job

    def begin(self, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "web", "backfill", *arguments],
            cwd=self.folder,
            env=environment(**self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    async def give(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit code, and what was said on stdout and stderr."""
        return await ended(self.begin(*arguments))

    async def until_bars_are_stored(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(job.bars for job in await self.jobs.page(first=1)):
                await asyncio.sleep(0.02)

    async def stored(self) -> int:
        return int(await self.pool.fetchval("SELECT count(*) FROM bar"))


async def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    return process.returncode, out or "", err or ""


@pytest.fixture
def empty_store(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        asyncio.run(migrate(url, SQL))
        yield url


@pytest.fixture
async def desk(embedded: EmbeddedServers, empty_store: str, tmp_path: Path) -> AsyncIterator[Desk]:
    settings = {
        "database_url": empty_store,
        "redis_url": embedded.redis_url,
        "redis_prefix": f"bargraph-test-{uuid4().hex}:",
    }
    async with open_pool(empty_store) as pool:
        yield Desk(tmp_path, settings, pool)


async def test_without_a_server_the_job_is_done_by_the_command(desk: Desk) -> None:
    code, out, err = await desk.give("sim:BTC/USDT:1h", *A_DAY)

    job = await desk.job()
    assert (code, job.state) == (0, BackfillState.DONE)
    assert job.window == Window(MIDNIGHT, MIDNIGHT + DAY)
    assert out == f"sim BTC/USDT 1m is filled, {job.bars:,} bars stored.\n"
    assert job.bars == await desk.stored() >= 1440
    assert err == ""


async def test_where_nothing_is_missing_it_says_so(desk: Desk) -> None:
    await desk.give("sim:BTC/USDT:1m", *A_DAY)

    code, out, _ = await desk.give("sim:BTC/USDT:1m", *A_DAY)

    assert code == 0
    nothing = "Everything in the window is stored, known not to exist, or older than is kept."
    assert out == f"{nothing}\n"


async def test_an_unknown_symbol_comes_with_the_nearest(desk: Desk) -> None:
    code, out, err = await desk.give("sim:BTC/USD:1m", *A_DAY)

    assert (code, out) == (1, "")
    assert err == "Unknown symbol 'BTC/USD'. Did you mean BTC/USDT, ETH/USDT, XRP/USDT?\n"


async def test_a_window_that_cannot_be_is_refused(desk: Desk) -> None:
    code, _, err = await desk.give("sim:BTC/USDT:1m", "--since", SINCE, "--until", "2025-01-01")

    assert (code, err) == (1, "since must be before until.\n")


async def test_where_too_many_are_under_way_it_says_what_to_do(desk: Desk) -> None:
    window = Window(MIDNIGHT - DAY, MIDNIGHT)
    for number in range(MOST_UNFINISHED):
        new = NewBackfill(Listing("sim", "crypto", f"S{number}"), MINUTE_FRAME, False, window, "")
        await desk.jobs.add(new, key=uuid4().hex)

    code, out, err = await desk.give("sim:BTC/USDT:1m", *A_DAY)

    assert (code, out) == (1, "")
    assert err == (
        "At most 200 backfills may wait or run at a time. Cancel one, or try again when one is "
        "over.\n"
    )


@pytest.mark.parametrize("arguments", [("sim:BTC/USDT:1m",), ("sim:BTC/USDT:1m", "--since", "x")])
async def test_what_cannot_be_read_is_explained(desk: Desk, arguments: tuple[str, ...]) -> None:
    code, _, err = await desk.give(*arguments)

    assert code == 2
    assert "usage: python -m web backfill" in err
    assert "--since" in err


async def test_ctrl_c_cancels_the_job_and_keeps_what_is_stored(desk: Desk) -> None:
    process = desk.begin("sim:BTC/USDT:1m", *YEARS)
    await desk.until_bars_are_stored()

    process.send_signal(signal.SIGINT)
    code, _, err = await ended(process)

    job = await desk.job()
    assert (code, job.state) == (130, BackfillState.CANCELLED)
    assert err.startswith("Cancelled. ")
    assert await desk.stored() >= job.bars > 0


async def test_after_ctrl_c_the_same_command_asks_only_for_the_rest(desk: Desk) -> None:
    process = desk.begin("sim:BTC/USDT:1m", "--since", "2025-10-01", "--until", SINCE)
    await desk.until_bars_are_stored()
    process.send_signal(signal.SIGINT)
    await ended(process)
    before = await desk.stored()

    code, _, _ = await desk.give("sim:BTC/USDT:1m", "--since", "2025-10-01", "--until", SINCE)

    done, _ = await desk.jobs.page(first=2)
    assert (code, done.state) == (0, BackfillState.DONE)
    assert done.bars == await desk.stored() - before


async def test_a_store_that_was_away_for_a_moment_does_not_end_it(desk: Desk) -> None:
    process = desk.begin("sim:BTC/USDT:1m", "--since", "2025-07-01", "--until", SINCE)
    await desk.until_bars_are_stored()

    await desk.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    code, _, err = await ended(process)

    assert (code, err) == (0, "")
    assert (await desk.job()).state is BackfillState.DONE


async def queued_elsewhere(desk: Desk, length: int) -> Backfill:
    """Add a job that nobody runs yet, of a window that ends when the others begin."""
    dataset = SimProvider(clock=SystemClock(), seed=1).description.dataset
    listing = Listing("sim", "crypto", "BTC/USDT", dataset=dataset)
    window = Window(MIDNIGHT - length, MIDNIGHT)
    new = NewBackfill(listing, MINUTE_FRAME, native=False, window=window, asked="")
    return await desk.jobs.add(new, key=uuid4().hex)


async def test_a_job_that_is_there_already_is_shown_and_done(desk: Desk) -> None:
    other = await queued_elsewhere(desk, DAY)

    code, out, err = await desk.give("sim:BTC/USDT:1m", *A_DAY)

    job = await desk.job()
    assert (code, job.id, job.state) == (0, other.id, BackfillState.DONE)
    assert err == "BTC/USDT 1m of sim is being filled already. This shows how far it is.\n"
    assert out == f"sim BTC/USDT 1m is filled, {job.bars:,} bars stored.\n"


async def test_ctrl_c_leaves_a_job_that_was_started_elsewhere(desk: Desk) -> None:
    await queued_elsewhere(desk, 3_000 * DAY)
    process = desk.begin("sim:BTC/USDT:1m", *A_DAY)
    await desk.until_bars_are_stored()

    process.send_signal(signal.SIGINT)
    code, _, err = await ended(process)

    assert (code, (await desk.job()).state) == (130, BackfillState.RUNNING)
    assert "Not cancelled, as it was not started here" in err


async def test_a_terminal_shows_a_bar(desk: Desk) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = desk.begin("sim:BTC/USDT:1m", *A_DAY, stderr=theirs)
    os.close(theirs)

    shown = (await asyncio.to_thread(read_to_the_end, ours)).decode()
    code, _, _ = await ended(process)

    assert code == 0
    last = shown.replace("\n", "\r").rstrip("\r").rpartition("\r")[2]
    assert last.startswith("BTC/USDT 1m 100.0% |")
    assert f"{(await desk.job()).bars:,} bars" in last


def read_to_the_end(descriptor: int) -> bytes:
    """Return what is written to a terminal until nobody has it open any more."""
    read = b""
    with open(descriptor, "rb", buffering=0) as terminal:
        try:
            while chunk := terminal.read(4096):
                read += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
    return read


def test_where_a_server_runs_jobs_the_job_is_done_there(tmp_path: Path) -> None:
    served = serving(start(tmp_path))
    try:
        given = subprocess.run(
            [sys.executable, "-m", "web", "backfill", "sim:BTC/USDT:1m", *A_DAY],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        metrics = httpx.get(f"{served.url}/metrics").text
    finally:
        served.send(signal.SIGTERM)
        served.end()

    assert given.returncode == 0, given.stderr
    assert given.stdout.startswith("sim BTC/USDT 1m is filled, ")
    calls = {
        sample.labels["provider"]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "bargraph_provider_calls_total"
    }
    assert calls.get("sim", 0) > 0
    assert nothing_is_left(Scratch(tmp_path / ".bargraph"), served)
