"""Whatever is killed with -9, nothing stays behind and the next start is whole."""

import signal
import sys

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from db.embedded.servers import embedded_servers
from tests.db.embedded.processes import Answered, Scratch, eventually

PAIR = ["postgres", "valkey-server"]


async def store(answered: Answered, value: int) -> None:
    connection = await asyncpg.connect(answered.postgres_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()
    async with Redis.from_url(answered.redis_url) as redis:
        await redis.set("kept", value)


async def stored(scratch: Scratch) -> tuple[int, int]:
    """Start anew and return what both servers hold, having seen that they are one pair."""
    async with embedded_servers(scratch.directory) as servers:
        assert sorted(scratch.servers().values()) == PAIR
        assert len(scratch.keepers()) == 1
        connection = await asyncpg.connect(servers.postgres_url)
        kept = await connection.fetchval("SELECT max(n) FROM kept")
        await connection.close()
        async with Redis.from_url(servers.redis_url) as redis:
            return kept, int(await redis.get("kept"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_killed_user_leaves_nothing(scratch, start_user, number):
    user = start_user()
    await store(user.answered(), 1)

    user.process.send_signal(number)

    assert eventually(scratch.is_empty)
    assert await stored(scratch) == (1, 1)


def test_a_user_killed_while_it_starts_leaves_nothing(scratch, start_user):
    user = start_user()
    assert eventually(lambda: bool(scratch.keepers()))

    user.process.kill()

    assert eventually(scratch.is_empty)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_a_killed_keeper_takes_its_servers_along(scratch, start_user):
    user = start_user()
    await store(user.answered(), 2)
    (keeper,) = scratch.keepers()

    keeper.kill()

    assert eventually(scratch.is_empty)
    user.process.kill()
    assert await stored(scratch) == (2, 2)


async def test_a_start_right_after_the_keeper_was_killed_makes_one_pair(scratch, start_user):
    before = start_user()
    await store(before.answered(), 3)
    (keeper,) = scratch.keepers()

    keeper.kill()
    assert eventually(lambda: not scratch.keepers())

    assert await stored(scratch) == (3, 3)


async def test_everything_killed_at_once_starts_again(scratch, start_user):
    user = start_user()
    await store(user.answered(), 4)
    servers = [psutil.Process(number) for number in scratch.servers()]

    # The servers first: the keeper's death would let PostgreSQL remove its pid file.
    for process in (*servers, *scratch.keepers(), user.process):
        process.kill()

    assert eventually(scratch.is_empty)
    assert (scratch.directory / "postgres" / "postmaster.pid").exists()
    assert await stored(scratch) == (4, 4)


@pytest.mark.parametrize("name", PAIR)
async def test_a_killed_server_is_started_again_with_what_it_held(scratch, start_user, name):
    user = start_user()
    await store(user.answered(), 5)
    (victim,) = [number for number, found in scratch.servers().items() if found == name]

    psutil.Process(victim).kill()

    assert eventually(
        lambda: victim not in scratch.servers() and sorted(scratch.servers().values()) == PAIR
    )
    assert await stored(scratch) == (5, 5)
    user.leave()
    assert eventually(scratch.is_empty)


async def test_a_process_id_used_again_by_another_program_does_not_stop_the_start(
    scratch, start_user
):
    user = start_user()
    answered = user.answered()
    await store(answered, 6)
    (keeper,) = scratch.keepers()
    for process in (psutil.Process(answered.postmaster), keeper):
        process.kill()
    assert eventually(scratch.is_empty)
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        file = scratch.directory / "postgres" / name
        stale = file.read_text()
        file.write_text(stale.replace(str(answered.postmaster), str(user.process.pid)))

    held = await stored(scratch)

    assert held == (6, 6)
    assert user.process.poll() is None
