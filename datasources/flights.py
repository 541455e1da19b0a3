"""Do a piece of work once however many ask for it at the same time, here and in other processes.

The work runs in a task of its own: whoever leaves early does not take it from the others.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
T = TypeVar("T")

_BUSY_SECONDS = 5.0
"""How long a lane counts as busy for other processes, unless it is said earlier that it is not."""
_LONGEST_REST = 5.0
_LOOK_SECONDS = 0.25
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""


class _Lane:
    """Who flies or waits in one lane, and the room there is."""

    def __init__(self, limit: int, patient_limit: int) -> None:
        self.room = asyncio.Semaphore(limit)
        self.urgent = 0
        """Flights that wait or are under way, those of the patient left out."""
        self.patient = 0
        """Patient flights under way."""
        self._patient_limit = patient_limit
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def idle(self) -> bool:
        """Whether a patient flight may start."""
        return not self.urgent and self.patient < self._patient_limit

    async def changed(self) -> None:
        """Wait until somebody landed, or became urgent."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


@dataclass(slots=True)
class _Flight:
    """Work of one key. A *patient* one that somebody urgent joins before it starts is urgent."""

    lane: _Lane
    patient: bool
    task: asyncio.Task[object] | None = None
    started: bool = False
    passengers: int = 0


class Flights:
    """Work under way by key, at most *limit* pieces of a lane at once; the rest wait their turn.

    A lane is a provider: one that hangs keeps nobody else waiting. Patient work starts only while
    no other of its lane waits or is under way, and at most *patient_limit* pieces at once.
    """

    def __init__(self, limit: int, *, patient_limit: int = 2) -> None:
        self._under_way: dict[Hashable, _Flight] = {}
        self._lanes = defaultdict[str, _Lane](lambda: _Lane(limit, patient_limit))

    async def join(
        self, key: Hashable, work: Callable[[], Awaitable[T]], *, lane: str, patient: bool = False
    ) -> T:
        """Return what *work* returns, starting it only if nobody's for *key* is under way."""
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = self._begin(key, work, self._lanes[lane], patient)
        elif flight.patient and not patient and not flight.started:
            flight.patient = False
            flight.lane.urgent += 1
            flight.lane.tell()
        assert flight.task is not None
        flight.passengers += 1
        try:
            # Kept by key whatever they return; one key always stands for one kind of work.
            return cast(T, await asyncio.shield(flight.task))
        finally:
            flight.passengers -= 1
            if flight.patient and not flight.started and not flight.passengers:
                # Nobody waits for it any more, and who comes now shall not be told of its end.
                self._forget(key, flight)
                flight.task.cancel()

    async def aclose(self) -> None:
        """Cancel what is under way and wait for it."""
        tasks = [flight.task for flight in self._under_way.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(
        self, key: Hashable, work: Callable[[], Awaitable[T]], lane: _Lane, patient: bool
    ) -> _Flight:
        flight = _Flight(lane, patient)
        lane.urgent += not patient
        flight.task = asyncio.create_task(_run(flight, work), name=f"flight {key}")
        flight.task.add_done_callback(lambda done: self._landed(key, flight, done))
        return flight

    def _landed(self, key: Hashable, flight: _Flight, task: asyncio.Task[object]) -> None:
        self._forget(key, flight)
        if flight.patient:
            flight.lane.patient -= flight.started
        else:
            flight.lane.urgent -= 1
        flight.lane.tell()
        # Everyone who waited may have left; the failure must still be seen.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("flight %s failed: %s", key, error)

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]


async def _run(flight: _Flight, work: Callable[[], Awaitable[T]]) -> T:
    lane = flight.lane
    while flight.patient and not lane.idle:
        await lane.changed()
    flight.started = True
    if flight.patient:
        lane.patient += 1
        return await work()
    async with lane.room:
        return await work()


class Handover:
    """Lets one process fetch while the others wait, and hands them what it fetched.

    It saves calls and nothing else: if Redis is away, or the holder takes longer than *ttl*
    seconds, the work is done twice and comes out the same. It also lets patient work of one
    process wait for what is urgent in another, as far as that can be had without a round trip.
    """

    def __init__(self, redis: Redis, *, prefix: str, ttl: float) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl = ttl
        self._own = secrets.token_hex(8)
        self._holding: dict[str, int] = {}
        """How many hold, or want to, by busy lane."""
        self._told_busy: dict[str, float] = {}

    @asynccontextmanager
    async def hold(self, name: str, *, busy: str | None = None) -> AsyncIterator[None]:
        """Hold the lock *name* inside the block, or go on without after *ttl* seconds.

        Inside it the lane *busy* counts as busy for other processes.
        """
        key, token = f"{self._prefix}lock:{name}", secrets.token_hex(8)
        held = False
        self._enter(busy)
        try:
            held = await self._acquire(key, token, busy)
            yield
        finally:
            if self._leave(busy):
                await self._release(self._busy(busy), self._own)
            if held:
                await self._release(key, token)

    async def give(self, name: str, value: bytes, *, milliseconds: int) -> None:
        """Leave *value* for whoever asks for *name* in the next *milliseconds*."""
        try:
            await self._redis.set(f"{self._prefix}fetched:{name}", value, px=milliseconds)
        except (RedisError, OSError):
            log.debug("could not hand over %s", name)

    async def rest(self, lane: str) -> None:
        """Wait until nobody waits for *lane* in another process, or for some seconds.

        It ends, because a lane that many poll is never free and patient work shall end as well.
        """
        for _ in range(int(_LONGEST_REST / _LOOK_SECONDS)):
            try:
                if await self._redis.get(self._busy(lane)) in (None, self._own.encode()):
                    return
            except (RedisError, OSError):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def take(self, name: str) -> bytes | None:
        try:
            value = await self._redis.get(f"{self._prefix}fetched:{name}")
        except (RedisError, OSError):
            return None
        return value if isinstance(value, bytes) else None

    def _busy(self, lane: str | None) -> str:
        return f"{self._prefix}busy:{lane}"

    def _enter(self, lane: str | None) -> None:
        if lane is not None:
            self._holding[lane] = self._holding.get(lane, 0) + 1

    def _leave(self, lane: str | None) -> bool:
        """Return whether the lane is busy no more, and others were told that it was."""
        if lane is None:
            return False
        self._holding[lane] -= 1
        return not self._holding[lane] and self._told_busy.pop(lane, None) is not None

    async def _acquire(self, key: str, token: str, busy: str | None) -> bool:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._ttl, 0.01
        try:
            while not await self._try(key, token, busy):
                if loop.time() >= deadline:
                    return False
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.2)
        except (RedisError, OSError):
            return False
        return True

    async def _try(self, key: str, token: str, busy: str | None) -> bool:
        """Return whether the lock was free. Now and then say by the way that a lane is busy."""
        now, lasting = asyncio.get_running_loop().time(), int(self._ttl * 1000)
        told = None if busy is None else self._told_busy.get(busy)
        if busy is None or (told is not None and now - told < _BUSY_SECONDS / 2):
            return bool(await self._redis.set(key, token, nx=True, px=lasting))
        self._told_busy[busy] = now
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(key, token, nx=True, px=lasting)
            pipe.set(self._busy(busy), self._own, px=int(_BUSY_SECONDS * 1000))
            free, _ = await pipe.execute()
        return bool(free)

    async def _release(self, key: str, token: str) -> None:
        try:
            await self._redis.eval(_RELEASE, 1, key, token)
        except (RedisError, OSError):
            log.debug("could not release %s; it ends by itself", key)
