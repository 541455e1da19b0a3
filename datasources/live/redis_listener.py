"""The one connection of a process on which everything it listens to arrives.

It is made like those of the pool and is none of them: a subscription occupies its connection for
good, and must not take a place from commands. redis-py's own `PubSub` is not used because it
connects again by itself and tells nobody, so its listeners take a hole for silence.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Coroutine
from typing import NoReturn

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from datasources.live.redis_subscriptions import Subscriptions

log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds that connecting, or handing over what is written, may take."""
_AT_A_TIME = 100
"""Messages after which listeners get a turn: reading does not wait while there is more at hand."""
_UNANSWERED_PINGS = 2
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_STEADY = 5.0
"""Seconds after which a connection counts as one that worked, and pauses are short again."""


class Listener:
    """Keeps a connection subscribed to what *subscriptions* wants, for as long as it runs."""

    def __init__(
        self, pool: ConnectionPool, subscriptions: Subscriptions, *, ping_every: float
    ) -> None:
        """*ping_every* in seconds; a connection silent for three times as long is lost."""
        self._pool = pool
        self._subscriptions = subscriptions
        self._ping_every = ping_every
        self._unanswered = 0
        self._away = False
        self.connected = False

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._unanswered = 0
            began = loop.time()
            try:
                await self._serve()
            except (RedisError, OSError) as error:
                self._lost(error)
            except Exception as error:
                # A bug of ours. Listeners are told of a break, which is true, and go on.
                log.exception("What listens to Redis failed")
                self._lost(error)
            failures = 0 if loop.time() - began >= _STEADY else failures + 1
            await asyncio.sleep(_pause(failures))

    async def _serve(self) -> NoReturn:
        connection = self._connection()
        try:
            async with asyncio.timeout(_PATIENCE):
                await connection.connect()  # type: ignore[no-untyped-call] # it is, in redis-py
            self._found()
            await _until_one_fails(self._read(connection), self._write(connection))
        finally:
            await connection.disconnect(nowait=True)

    def _connection(self) -> AbstractConnection:
        made = {
            **self._pool.connection_kwargs,
            "protocol": 3,
            "decode_responses": False,
            # It may not connect again, or read an answer, behind our back.
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
            # With a timeout of its own it writes under `asyncio.wait_for`, which on Python 3.11 can
            # swallow a cancellation.
            "socket_timeout": None,
        }
        connection: AbstractConnection = self._pool.connection_class(**made)
        return connection

    async def _read(self, connection: AbstractConnection) -> None:
        read = 0
        while True:
            read += 1
            if read % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            answer = await connection.read_response(timeout=math.inf, push_request=True)
            self._unanswered = 0
            match answer:
                case [b"message", channel, message]:
                    self._subscriptions.deliver(channel, message)
                case [b"subscribe", channel, _]:
                    self._subscriptions.confirm(channel)

    async def _write(self, connection: AbstractConnection) -> None:
        """Tell Redis who joins and leaves, and ping it."""
        loop = asyncio.get_running_loop()
        next_ping = loop.time() + self._ping_every
        while True:
            batch = self._subscriptions.next_batch()
            async with asyncio.timeout(_PATIENCE):
                if batch.subscribe:
                    await connection.send_command("SUBSCRIBE", *batch.subscribe)
                if batch.unsubscribe:
                    await connection.send_command("UNSUBSCRIBE", *batch.unsubscribe)
            try:
                async with asyncio.timeout_at(next_ping):
                    await self._subscriptions.changed.wait()
            except TimeoutError:
                await self._ping(connection)
                next_ping = loop.time() + self._ping_every

    async def _ping(self, connection: AbstractConnection) -> None:
        """Ping, unless earlier ones were not answered.

        Pings are counted and not seconds, so a process that stood still for a while does not blame
        Redis for it.
        """
        if self._unanswered >= _UNANSWERED_PINGS:
            raise RedisConnectionError("no answer to pings")
        self._unanswered += 1
        async with asyncio.timeout(_PATIENCE):
            await connection.send_command("PING")

    def _found(self) -> None:
        if self._away:
            log.warning("Redis is back, live feeds go on")
        self._away = False
        self.connected = True
        self._subscriptions.connected()

    def _lost(self, error: Exception) -> None:
        if not self._away:
            log.warning("Redis is away, live feeds wait for it: %s", type(error).__name__)
        self._away = True
        self.connected = False
        self._subscriptions.lost()


async def _until_one_fails(*endless: Coroutine[None, None, None]) -> NoReturn:
    tasks = [asyncio.create_task(one, name="speak with Redis") for one in endless]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failure = next((result for result in results if isinstance(result, Exception)), None)
    raise failure or RedisConnectionError("ended without a failure")


def _pause(failures: int) -> float:
    longest: float = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(failures, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # spreads retries, keeps no secret
