"""Use the embedded PostgreSQL and Valkey of a directory, starting them if nobody has."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from db.embedded import postgres
from db.embedded.errors import ClusterVersionMismatch, EmbeddedServersLost, EmbeddedStartFailed
from db.embedded.layout import Failure, Layout
from db.embedded.lock import FileLock, is_held
from db.embedded.log import BoundedLog
from db.embedded.sockets import sockets

_CHECKOUT = Path(__file__).parents[2]
_PAUSE = 0.01  # seconds between two looks while starting
_WATCH_PAUSE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """Where both servers answer: a DSN for asyncpg and a URL for redis-py, over Unix sockets."""

    postgres_url: str
    redis_url: str
    layout: Layout

    async def watch(self) -> None:
        """Wait for as long as the servers have a keeper.

        A server that dies is started again by the keeper; the keeper itself by nobody. Raises
        `EmbeddedServersLost` once it has ended: the servers are gone, or soon will be, and a new
        start brings them back.
        """
        await _until(lambda: not is_held(self.layout.keeper_lock), pause=_WATCH_PAUSE)
        failure = Failure.read(self.layout)
        raise EmbeddedServersLost(f"{failure.server}: {failure.reason}", log=failure.log)


@asynccontextmanager
async def embedded_servers(
    directory: Path, *, start_timeout: float = 60
) -> AsyncIterator[EmbeddedServers]:
    """Have both servers of *directory* running and answering while inside.

    All users of a directory, in any process, share one pair of servers, which stops within 10
    seconds after the last of them has left or died. *start_timeout* is in seconds. Raises
    `EmbeddedStartFailed`, or of these `ClusterVersionMismatch`.
    """
    layout = _entered(directory)
    with FileLock(layout.users_lock) as user:
        yield await _start(layout, user, start_timeout)


def _entered(directory: Path) -> Layout:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = Layout(directory.resolve(strict=True))
        owner = layout.directory.stat().st_uid
        if os.geteuid() in (0, owner):
            for lock in (layout.users_lock, layout.start_lock, layout.keeper_lock):
                FileLock(lock).close()
    except OSError as error:
        log = Layout(directory).keeper_log
        raise EmbeddedStartFailed("servers", str(error), log=log) from error
    if os.geteuid() not in (0, owner):
        raise EmbeddedStartFailed(
            "servers",
            f"{layout.directory} belongs to user {owner}; run as that user, or choose another "
            "DATA_DIR",
            log=layout.keeper_log,
        )
    return layout


async def _start(layout: Layout, user: FileLock, start_timeout: float) -> EmbeddedServers:
    try:
        async with asyncio.timeout(start_timeout):
            with FileLock(layout.start_lock) as starting:
                await _until(starting.try_acquire)
                # Nobody holds the users' lock exclusively without the start lock.
                user.try_acquire(shared=True)
                if is_held(layout.keeper_lock) and (servers := await _answering(layout)):
                    return servers
                await _start_keeper(layout)
                if servers := await _answering(layout):
                    return servers
    except TimeoutError as error:
        reason = f"no answer within {start_timeout:g} s"
        raise EmbeddedStartFailed("servers", reason, log=layout.keeper_log) from error
    failure = Failure.read(layout)
    raise EmbeddedStartFailed(failure.server, failure.reason, log=failure.log)


async def _answering(layout: Layout) -> EmbeddedServers | None:
    """Return the servers once both answer, None if their keeper ends before that.

    Under the start lock, as the keeper removes the sockets' short names when it ends.
    """
    names = sockets(layout)
    servers = EmbeddedServers(
        f"postgresql://{postgres.USER}@/{postgres.DATABASE}"
        f"?host={quote(str(names.postgres_folder))}&port={postgres.PORT}",
        f"unix://{quote(str(names.valkey))}?db=0",
        layout,
    )
    while not (await _sql_answers(servers.postgres_url) and await _ping_answers(servers.redis_url)):
        if not is_held(layout.keeper_lock):
            return None
        await asyncio.sleep(_PAUSE)
    return servers


async def _start_keeper(layout: Layout) -> None:
    found = postgres.cluster_version(layout.postgres)
    if found is not None and found != postgres.MAJOR:
        raise ClusterVersionMismatch(
            layout.postgres, found=found, expected=postgres.MAJOR, log=layout.keeper_log
        )
    log = BoundedLog(layout.keeper_log)
    log.trim()
    launcher = _launch_keeper(layout, log)
    await _until(lambda: launcher.poll() is not None)
    if launcher.returncode != 0:
        raise EmbeddedStartFailed("keeper", log.tail(), log=layout.keeper_log)


def _launch_keeper(layout: Layout, log: BoundedLog) -> subprocess.Popen[bytes]:
    output = log.open()
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "db.embedded.keeper", str(layout.directory)],
            cwd=_CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)


async def _until(condition: Callable[[], bool], *, pause: float = _PAUSE) -> None:
    """Wait for what other processes do, of which no event tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(pause)


async def _sql_answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url)
        try:
            return bool(await connection.fetchval("SELECT true"))
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):
        return False  # not there yet, starting, or being restarted


async def _ping_answers(url: str) -> bool:
    client = Redis.from_url(url)
    try:
        return bool(await client.ping())
    except (RedisConnectionError, OSError):
        return False
    finally:
        await client.aclose()
