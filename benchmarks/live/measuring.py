"""One server and one number of sockets: what they cost, and how soon events arrive."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.asked import SUBSCRIBE, check_message
from benchmarks.live.feeds import Feed
from benchmarks.live.servers import OURS, Serving, Variant
from benchmarks.live.tallies import check_tallies, tallies_of
from benchmarks.live.viewers import Audience, LoadFailed

PATH = "/graphql"
WARMING = 20
"""Sockets that come and go before memory is looked at."""
WHOLE = 0.95
"""The share of its messages that a server delivers in time, unless it is saturated."""
GRACE = 0.25
"""Seconds after the last event's turn in which its messages are in time."""
_FIRST_PATIENCE, _LAST_PATIENCE = 0.2, 60.0
"""Seconds of silence after which an event that did not reach everybody is told anew."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What is measured: *rate* events a second, for *seconds*."""

    rate: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; latencies in seconds, ascending, of what was delivered in time."""

    latencies: NDArray[np.float64]
    expected: int
    cpu: float
    """Seconds of the server."""
    busy: float
    """The share of its core that the load used."""
    memory: float
    """Bytes of the server for each socket."""

    @property
    def delivered(self) -> float:
        """The share of what there was to deliver."""
        return len(self.latencies) / self.expected

    @property
    def saturated(self) -> bool:
        return self.delivered < WHOLE

    @property
    def cost(self) -> float:
        """Seconds of the server's CPU for each message that was delivered."""
        return self.cpu / max(1, len(self.latencies))

    def percentile(self, share: float) -> float:
        """Nearest rank."""
        count = len(self.latencies)
        return float(self.latencies[min(count - 1, int(share * count))]) if count else np.inf


async def measure(
    variant: Variant, serving: Serving, feed: Feed, *, size: int, timed: Sequence[Timed]
) -> list[Sample]:
    """Let *size* sockets watch, and return a sample of each of *timed*.

    Raises `LoadFailed`, `WrongMessage`, `WrongState`.
    """
    audience = Audience()
    try:
        await audience.grow(WARMING, serving.port, PATH, SUBSCRIBE)
        told = await _arrived(audience, feed)
        check_message(audience.message(), told)
        await audience.leave()
        await asyncio.sleep(0.5)
        empty = serving.resident()
        await audience.grow(size, serving.port, PATH, SUBSCRIBE)
        await _arrived(audience, feed)
        memory = (serving.resident() - empty) / size
        samples = []
        for one in timed:
            ours = variant.key == OURS
            before = await tallies_of(serving.port) if ours else None
            sample = await _sample(audience, serving, feed, one, memory)
            if before is not None:
                counted = await tallies_of(serving.port) - before
                check_tallies(
                    counted, events=round(one.rate * one.seconds), delivered=len(sample.latencies)
                )
            samples.append(sample)
        return samples
    finally:
        await audience.leave()


async def _arrived(audience: Audience, feed: Feed) -> bytes:
    """Tell events until one reaches every socket, and return its update. Raises `LoadFailed`.

    What is told before a server has subscribed somebody is lost: nothing says when it has.
    """
    await feed.join()
    patience = _FIRST_PATIENCE
    while patience < _LAST_PATIENCE:
        audience.begin(time.monotonic())
        told = await feed.tell()
        before = -1
        while before != (before := audience.heard):
            await asyncio.sleep(patience)
            audience.check()
        if not audience.awaited:
            return told
        # Not too often: a server that is busy subscribing would never get to what it must send.
        patience *= 2
    raise LoadFailed(f"{audience.awaited} of {len(audience)} sockets see nothing")


async def _sample(
    audience: Audience, serving: Serving, feed: Feed, timed: Timed, memory: float
) -> Sample:
    events = round(timed.rate * timed.seconds)
    expected = events * len(audience)
    gc.collect()
    gc.disable()
    try:
        cpu, busy, start = serving.cpu(), time.process_time(), time.monotonic()
        audience.begin(start)
        for number in range(events):
            await asyncio.sleep(start + number / timed.rate - time.monotonic())
            await feed.tell()
        await asyncio.sleep(start + timed.seconds - time.monotonic())
        while (
            len(audience.latencies) < expected and time.monotonic() < start + timed.seconds + GRACE
        ):
            await asyncio.sleep(0.005)
        latencies = np.sort(np.array(audience.latencies))
        cpu, busy = serving.cpu() - cpu, time.process_time() - busy
        busy /= time.monotonic() - start
    finally:
        gc.enable()
    audience.check()
    return Sample(latencies, expected, cpu, busy, memory)
