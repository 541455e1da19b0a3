"""The embedded servers answer, are shared, keep what they are given, and end with their users."""

import asyncio
import hashlib
import os
import signal
import stat
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from db.embedded.errors import ClusterVersionMismatch, EmbeddedServersLost, EmbeddedStartFailed
from db.embedded.servers import embedded_servers
from tests.db.embedded.processes import eventually


async def fetchval(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_both_servers_answer(scratch):
    async with embedded_servers(scratch.directory) as servers:
        async with Redis.from_url(servers.redis_url, protocol=3) as redis:
            await redis.set("k", b"v")
            policy = await redis.config_get("maxmemory-policy")

            assert await redis.get("k") == b"v"
            assert policy in (
                {"maxmemory-policy": "volatile-lru"},
                {b"maxmemory-policy": b"volatile-lru"},
            )
        assert await fetchval(servers.postgres_url, "SELECT 6 * 7") == 42


async def test_postgresql_runs_with_our_settings(scratch):
    names = ("server_encoding", "TimeZone", "jit", "fsync", "listen_addresses", "max_connections")

    async with embedded_servers(scratch.directory) as servers:
        found = [await fetchval(servers.postgres_url, f"SHOW {name}") for name in names]
        collation = await fetchval(
            servers.postgres_url,
            "SELECT datlocprovider::text || datlocale || datcollate FROM pg_database "
            "WHERE datname = current_database()",
        )

    assert found == ["UTF8", "UTC", "off", "on", "", "60"]
    assert collation == "bC.UTF-8C"


async def test_nobody_else_can_reach_the_sockets(scratch):
    async with embedded_servers(scratch.directory) as servers:
        folder = Path(parse_qs(urlsplit(servers.postgres_url).query)["host"][0])
        socket = Path(urlsplit(servers.redis_url).path)

        assert stat.S_IMODE(scratch.directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700


async def test_two_users_share_one_pair_which_ends_with_the_last(scratch, start_user):
    first, second = start_user(), start_user()

    assert first.answered() == second.answered()
    first.leave()
    assert sorted(scratch.servers().values()) == ["postgres", "valkey-server"]
    async with embedded_servers(scratch.directory) as servers:
        assert await fetchval(servers.postgres_url, "SELECT 1") == 1
    second.leave()
    assert eventually(scratch.is_empty)


def test_users_that_start_at_once_make_one_pair(scratch, start_user):
    users = [start_user() for _ in range(5)]

    answers = [user.answered() for user in users]

    assert len(set(answers)) == 1
    assert len(scratch.keepers()) == 1
    assert scratch.servers() == {
        answers[0].postmaster: "postgres",
        answers[0].valkey: "valkey-server",
    }


def test_a_user_that_comes_as_the_last_one_leaves_is_served(scratch, start_user):
    for _ in range(3):
        leaving = start_user()
        leaving.answered()
        leaving.process.kill()

        coming = start_user()

        assert coming.answered().postmaster in scratch.servers()
        assert len(scratch.keepers()) == 1
        assert len(scratch.servers()) == 2
        coming.leave()


async def test_what_was_stored_survives_a_restart(scratch):
    async with embedded_servers(scratch.directory) as servers:
        await fetchval(servers.postgres_url, "CREATE TABLE kept AS SELECT 7 AS n")
        async with Redis.from_url(servers.redis_url) as redis:
            await redis.set("kept", 7)
    assert eventually(scratch.is_empty)

    async with embedded_servers(scratch.directory) as servers:
        assert await fetchval(servers.postgres_url, "SELECT n FROM kept") == 7
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.get("kept") == b"7"


@pytest.mark.parametrize("name", ["n" * 80, "a, b#?%20 c"])
async def test_a_path_that_is_no_address_gets_short_names_in_a_private_folder(
    make_scratch, tmp_path, name
):
    scratch = make_scratch(tmp_path / name / "servers")

    async with embedded_servers(scratch.directory) as servers:
        folder = Path(parse_qs(urlsplit(servers.postgres_url).query)["host"][0])
        assert await fetchval(servers.postgres_url, "SELECT 1") == 1
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.ping()

        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.parent == Path(tempfile.gettempdir())
    assert eventually(lambda: scratch.is_empty() and not folder.exists())


async def test_a_folder_of_short_names_that_others_can_enter_is_refused(make_scratch, tmp_path):
    scratch = make_scratch(tmp_path / ("n" * 80))
    digest = hashlib.sha256(bytes(scratch.directory)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"bargraph-{os.geteuid()}-{digest}"
    folder.mkdir()
    folder.chmod(0o755)

    with pytest.raises(EmbeddedStartFailed, match="not a folder that is ours alone"):
        async with embedded_servers(scratch.directory):
            pass

    folder.rmdir()


async def test_a_cluster_of_another_major_version_is_refused_with_what_to_do(scratch):
    cluster = scratch.directory / "postgres"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("16\n")

    with pytest.raises(ClusterVersionMismatch, match="pg_dumpall") as refusal:
        async with embedded_servers(scratch.directory):
            pass

    assert (refusal.value.found, refusal.value.expected) == ("16", "18")


async def test_a_server_that_cannot_start_says_why(scratch):
    async with embedded_servers(scratch.directory):
        pass
    assert eventually(scratch.is_empty)
    settings = scratch.directory / "postgres" / "postgresql.conf"
    settings.write_text(f"{settings.read_text()}\nno_such_setting = 1\n")

    with pytest.raises(EmbeddedStartFailed, match="no_such_setting") as refusal:
        async with embedded_servers(scratch.directory):
            pass

    assert refusal.value.server == "postgresql"
    assert refusal.value.log == scratch.directory / "postgres.log"
    assert eventually(scratch.is_empty)


async def test_a_start_that_takes_too_long_is_given_up_and_leaves_nothing(scratch):
    with pytest.raises(EmbeddedStartFailed, match=r"no answer within 0\.05 s"):
        async with embedded_servers(scratch.directory, start_timeout=0.05):
            pass

    assert eventually(scratch.is_empty)


async def test_users_are_told_when_the_keeper_ends(scratch):
    async with embedded_servers(scratch.directory) as servers:
        watching = asyncio.create_task(servers.watch())
        (keeper,) = scratch.keepers()

        keeper.send_signal(signal.SIGTERM)

        with pytest.raises(EmbeddedServersLost, match="told to stop by SIGTERM"):
            await asyncio.wait_for(watching, 10)
    assert eventually(scratch.is_empty)


async def test_a_directory_of_another_user_is_refused(scratch):
    if os.geteuid() == 0:
        pytest.skip("root may use any directory")

    with pytest.raises(EmbeddedStartFailed, match="belongs to user 0"):
        async with embedded_servers(Path("/")):
            pass
