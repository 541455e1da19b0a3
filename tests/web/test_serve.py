"""`python -m web serve` and `make run`: what they say, what they share, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from redis import Redis

from plugins.registry import Entry, Registry
from tests.conftest import scratch_database
from tests.db.embedded.processes import Scratch, eventually
from tests.web.serving import (
    MAKE_RUN,
    SERVE,
    Serving,
    command_to_try,
    nothing_is_left,
    refused,
    serving,
    start,
)
from web.bootstrap import Wired
from web.serve import banner
from web.settings import Settings

PAIR = ["postgres", "valkey-server"]
QUERY = """{ candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1h"}, last: 2) {
    candles { close } } }"""
REPLAYED = """{ candles(series: {provider: "replay", symbol: "TEST", timeframe: "1m"}, last: 9) {
    candles { close } } }"""

# Notes whatever could reach the network: ccxt, the HTTP client under it, names looked up.
WATCH = """
import os, sys
def watch(event, arguments):
    imported = event == "import" and arguments[0].partition(".")[0] == "ccxt"
    if imported or event == "socket.getaddrinfo" or (
        event == "socket.connect" and not isinstance(arguments[1], (str, bytes))
    ):
        with open(os.environ["WATCHED"], "a") as notes:
            notes.write(f"{event} {arguments[:2]}\\n")
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers start: nothing of a developer's `.env`, and three minutes to replay."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "replay").mkdir()
    rows = [f"{1735689600000 + 60000 * n},1,{3 + n},1,{2 + n},10" for n in range(3)]
    header = "timestamp_ms,open,high,low,close,volume"
    (folder / "replay" / "TEST_1m.csv").write_text("\n".join([header, *rows, ""]))
    return folder


@pytest.fixture(scope="module")
def scratch(folder: Path) -> Scratch:
    return Scratch((folder / "shared").resolve())


@pytest.fixture(scope="module")
def shared(folder: Path, scratch: Scratch) -> Iterator[Serving]:
    """A server that the tests which end none have in common."""
    process = start(
        folder,
        data_dir=scratch.directory,
        replay_dir=folder / "replay",
        ccxt_exchanges="kraken,nosuch",
    )
    try:
        yield serving(process)
    finally:
        process.terminate()
        process.communicate()
    assert eventually(scratch.is_empty)


@pytest.fixture
def launch(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def launch(*command: str, **settings: object) -> subprocess.Popen[str]:
        started.append(start(folder, command or SERVE, **settings))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def own(folder: Path) -> Scratch:
    """A directory for servers that tests end; what one leaves behind, the next one finds."""
    return Scratch((folder / "own").resolve())


@pytest.fixture
def alone(launch, own) -> Serving:
    """A server that the test may end, on one pair of its own."""
    served = serving(launch(data_dir=own.directory))
    assert sorted(own.servers().values()) == PAIR
    return served


def test_it_says_in_a_dozen_lines_what_it_serves(shared):
    said = "\n".join(shared.banner)

    assert len(shared.banner) <= 12
    for path in ("/graphql", "/graphiql", "/readyz", "/metrics"):
        assert f"{shared.url}{path}" in said
    assert "candles embedded, cache embedded" in said
    assert "Ready      replay, sim, kraken\n" in said
    assert "Disabled   nosuch: Unknown ccxt exchange 'nosuch'." in said


def test_a_reason_of_many_lines_takes_one_of_the_dozen():
    wordy = Entry("wordy", None, "ValueError: three wrong\nfirst\nsecond\nthird")
    wired = Wired(Settings(_env_file=None), None, None, None, Registry([wordy]), *[None] * 7)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        lines = banner(wired, listener).splitlines()

    assert "Disabled   wordy: ValueError: three wrong" in lines
    assert "first" not in lines


def test_the_command_it_proposes_works(shared):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    tried = subprocess.run(["sh", "-c", command_to_try(shared)], capture_output=True, text=True)

    candles = json.loads(tried.stdout)["data"]["candles"]["candles"]
    assert len(candles) == 3
    assert all(set(candle) == {"time", "open", "high", "low", "close"} for candle in candles)


def test_the_recordings_are_served(shared):
    answer = shared.query(REPLAYED)

    assert [candle["close"] for candle in answer["data"]["candles"]["candles"]] == [2, 3, 4]


def test_a_second_server_shares_the_pair_and_leaves_it_to_the_first(shared, scratch, launch):
    before = scratch.servers()

    second = serving(launch(data_dir=scratch.directory))
    answer = second.query(QUERY)
    during = scratch.servers()
    second.send(signal.SIGTERM)
    second.end()

    assert len(answer["data"]["candles"]["candles"]) == 2
    assert sorted(before.values()) == PAIR
    assert before == during == scratch.servers()
    assert len(scratch.keepers()) == 1
    assert httpx.get(f"{shared.url}/readyz").json()["status"] == "ok"


def test_a_port_in_use_is_told_in_one_line(shared, folder, tmp_path):
    port = httpx.URL(shared.url).port

    ended = refused(folder, port=port, data_dir=tmp_path / "other")

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert f"HOST=127.0.0.1 PORT={port}: " in ended.stderr
    assert not (tmp_path / "other").exists()


def test_nothing_touches_the_network_before_a_query(launch, own, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    notes = tmp_path / "notes"
    watched = [f"PYTHONPATH={tmp_path}:{Path(__file__).parents[2]}", f"WATCHED={notes}"]

    served = serving(
        launch("env", *watched, *SERVE, data_dir=own.directory, ccxt_exchanges="binance,kraken")
    )
    health = httpx.get(f"{served.url}/readyz").json()
    before = notes.read_text() if notes.exists() else ""
    with suppress(httpx.ReadTimeout):  # the answer does not matter, and may take its time
        served.query('{ symbols(provider: "kraken") { edges { cursor } } }', timeout=0.1)

    assert health["providers"] == 3
    assert before == ""
    assert eventually(lambda: notes.exists() and "import ('ccxt" in notes.read_text())
    served.send(signal.SIGTERM)
    assert nothing_is_left(own, served)


@pytest.mark.parametrize(
    ("command", "number", "group"),
    [
        pytest.param(SERVE, signal.SIGINT, True, id="serve-ctrl-c"),
        pytest.param(SERVE, signal.SIGTERM, False, id="serve-terminate"),
        pytest.param(SERVE, signal.SIGKILL, False, id="serve-kill"),
        pytest.param(MAKE_RUN, signal.SIGINT, True, id="make-ctrl-c"),
        pytest.param(MAKE_RUN, signal.SIGTERM, False, id="make-terminate"),
        pytest.param(MAKE_RUN, signal.SIGKILL, False, id="make-kill"),
    ],
)
def test_however_it_is_ended_nothing_is_left(launch, own, command, number, group):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    served = serving(launch(*command, data_dir=own.directory))
    assert sorted(own.servers().values()) == PAIR
    assert len(own.keepers()) == 1

    served.send(number, group=group)

    assert nothing_is_left(own, served)
    _, errors = served.end()
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_starts_it_ends_well(launch, tmp_path, number):
    fresh = Scratch((tmp_path / "fresh").resolve())
    process = launch(data_dir=fresh.directory)
    assert eventually(lambda: bool(fresh.keepers()))

    process.send_signal(number)
    said, errors = process.communicate()

    assert (process.returncode, said, errors) == (0, "", "")
    assert eventually(fresh.is_empty)


@pytest.mark.parametrize("name", PAIR)
def test_it_goes_on_when_an_embedded_server_is_killed(alone, own, name):
    (victim,) = [number for number, found in own.servers().items() if found == name]

    psutil.Process(victim).kill()

    assert eventually(
        lambda: victim not in own.servers() and sorted(own.servers().values()) == PAIR
    )
    assert eventually(lambda: httpx.get(f"{alone.url}/readyz").json()["status"] == "ok")
    assert len(alone.query(QUERY)["data"]["candles"]["candles"]) == 2
    alone.send(signal.SIGTERM)
    assert nothing_is_left(own, alone)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_ends_when_the_keeper_is_killed_and_says_so(alone, own):
    (keeper,) = own.keepers()

    keeper.kill()
    status, errors = alone.end()

    assert status == 1
    assert "Bargraph cannot run: The embedded servers ended" in errors
    assert "Traceback" not in errors
    assert nothing_is_left(own, alone)


def test_a_request_under_way_is_answered_when_it_is_told_to_stop(alone, own):
    url = httpx.URL(alone.url)
    body = json.dumps({"query": QUERY}).encode()
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
        "Expect: 100-continue\r\n"  # so that we are told when it waits for the body
    )
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")

        alone.send(signal.SIGTERM)
        assert eventually(lambda: not _listens(url))
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"close"' in answer
    assert alone.end() == (0, "")
    assert nothing_is_left(own, alone)


def test_with_external_stores_nothing_is_embedded(launch, external, tmp_path):
    database_url, redis_url, prefix = external
    unused = Scratch(tmp_path / "unused")

    served = serving(
        launch(
            data_dir=unused.directory,
            database_url=database_url,
            redis_url=redis_url,
            redis_prefix=prefix,
        )
    )
    health = httpx.get(f"{served.url}/readyz").json()
    answer = served.query(QUERY)
    served.send(signal.SIGTERM)
    served.end()

    assert "Stores     candles external, cache external" in served.banner
    assert health["status"] == "ok"
    assert len(answer["data"]["candles"]["candles"]) == 2
    assert unused.is_empty()
    # Keys that no setting gives are all that is kept there.
    assert {path.name for path in unused.directory.iterdir()} == {"token.keys", "encryption.keys"}


def test_an_external_store_that_is_down_is_told_without_its_password(folder, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        port = closed.getsockname()[1]
        ended = refused(
            folder,
            data_dir=tmp_path / "data",
            database_url=f"postgresql://someone:hunter2@127.0.0.1:{port}/candles",
        )

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("Bargraph cannot run: DATABASE_URL=***: ")
    assert "hunter2" not in ended.stderr
    assert eventually(Scratch((tmp_path / "data").resolve()).is_empty)


def test_a_wrong_setting_stops_the_start(folder, tmp_path):
    ended = refused(folder, port="80000", data_dir=tmp_path / "data")

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("Bargraph cannot run: PORT=80000: ")
    assert not (tmp_path / "data").exists()


def _listens(url: httpx.URL) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((url.host, url.port)) == 0


@pytest.fixture
def external(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, str]]:
    """A database and a prefix of our own on external servers."""
    postgres, redis = os.environ.get("TEST_POSTGRES_URL"), os.environ.get("TEST_REDIS_URL")
    if not (postgres and redis):
        pytest.skip("TEST_POSTGRES_URL and TEST_REDIS_URL do not both name a server")
    prefix = f"bargraph-test-{uuid4().hex}:"
    with scratch_database(postgres) as address:
        yield address, redis, prefix
    with Redis.from_url(redis) as client:
        for key in client.scan_iter(f"{prefix}*", count=1000):
            client.delete(key)
