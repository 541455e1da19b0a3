"""Hold one stream of a provider open: join, notice when it falls silent, begin anew.

What was pushed comes in order through a bounded queue, between the words `JOINED` (from here on
nothing is missing) and `Lost` (from here on something may be). Whoever reads decides what to ask
of the past.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from datasources.live.pacing import Pacing
from market.calendars import calendar
from market.errors import BargraphError, ProviderUnavailable
from market.instrument import Instrument, Session
from market.window import Window
from plugins.base import Stream

log = logging.getLogger(__name__)
T = TypeVar("T")

_SILENCE_FACTOR = 20
"""A stream that was silent this many times longer than it usually is has stalled."""
_KNOWN_AFTER = 10
"""Batches after which it is known how often a stream speaks."""
_QUEUED = 1_000
_CLOSE_SECONDS = 5.0


class Joined(Enum):
    """The one value of its kind."""

    JOINED = "joined"


JOINED = Joined.JOINED


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream ended or stalled; another is opened after a pause."""

    reason: str
    stalled: bool = False
    retry_after: float = 0.0
    """Seconds for which the provider asks to be left alone."""


class _Stalled(Exception):
    """A stream that still stands and says nothing."""


class Upstream(Generic[T]):
    """Reads one stream at a time and opens the next when it fails; `run` does the work.

    *quiet* says whether silence means nothing now, because the exchange is closed. *wake* is set
    whenever something was put into `pushed`.
    """

    def __init__(
        self,
        name: str,
        opening: Callable[[], Stream[T]],
        *,
        quiet: Callable[[], bool],
        wake: asyncio.Event,
        pacing: Pacing,
    ) -> None:
        self._name = name
        self._opening = opening
        self._quiet = quiet
        self._wake = wake
        self._pacing = pacing
        self.pushed: asyncio.Queue[T | Joined | Lost] = asyncio.Queue(_QUEUED)

    async def run(self) -> None:
        """Go on until cancelled."""
        pause = first = self._pacing.reopen
        while True:
            lasted, lost = await self._one_stream()
            log.warning("%s: %s", self._name, lost.reason)
            await self._put(lost)
            pause = first if lasted else min(pause * 2, self._pacing.longest_reopen)
            # Spread out: a provider that drops all its streams is not met by all at once.
            spread = pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            await asyncio.sleep(max(spread, lost.retry_after))

    async def _one_stream(self) -> tuple[bool, Lost]:
        """Read a stream to its end; return whether it gave anything, and why it ended."""
        reading = Reading(self._pacing)
        stream: Stream[T] | None = None
        try:
            stream = self._opening()
            await self._read(stream, reading)
            return reading.lasted, Lost("the stream ended")
        except _Stalled as silence:
            return reading.lasted, Lost(str(silence), stalled=True)
        except ProviderUnavailable as failure:
            return reading.lasted, Lost(failure.reason, retry_after=failure.retry_after or 0.0)
        except (BargraphError, OSError) as failure:
            return reading.lasted, Lost(str(failure))
        finally:
            if stream is not None:
                await _close(self._name, stream)

    async def _put(self, pushed: T | Joined | Lost) -> None:
        await self.pushed.put(pushed)
        self._wake.set()

    async def _read(self, stream: Stream[T], reading: Reading) -> None:
        batches = aiter(stream)
        coming: asyncio.Future[T] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(batches))
                done, _ = await asyncio.wait([coming], timeout=reading.patience)
                if done:
                    batch, coming = coming.result(), None
                    reading.came()
                    if not reading.joined:
                        reading.joined = True
                        await self._put(JOINED)
                    await self._put(batch)
                elif not reading.joined:
                    # It may have joined without a word. When it speaks, the past is asked again.
                    await self._put(JOINED)
                    reading.wait_for_first()
                elif not self._quiet():
                    raise _Stalled(f"silent for {reading.patience:.0f} seconds")
        except StopAsyncIteration:
            return
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)


class Reading:
    """How often a stream speaks, and so how long its silence may last."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self.joined = False
        self.patience = pacing.join
        self._at = self._loop_time()
        self._usual = 0.0
        self._batches = 0

    @property
    def lasted(self) -> bool:
        """Whether more came than the word that it is joined."""
        return self._batches > 1

    def came(self) -> None:
        now = self._loop_time()
        if self._batches:
            # Slow to forget a long pause: nobody is reconnected for trading in bursts.
            self._usual = max(0.9 * self._usual, now - self._at)
        self._at = now
        self._batches += 1
        least, most = self._pacing.least_silence, self._pacing.most_silence
        self.patience = min(max(_SILENCE_FACTOR * self._usual, least), most)
        if self._batches < _KNOWN_AFTER:
            self.patience = most

    def wait_for_first(self) -> None:
        self.patience = self._pacing.most_silence

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()


def market_closed(instrument: Instrument, now: int) -> bool:
    """Whether nothing can be traded at *now*, so that silence means nothing."""
    rules = calendar(instrument.calendar)
    if rules.around_the_clock:
        return False
    return not rules.open_spans(Window(now, now + 1), Session.EXTENDED)


async def _close(name: str, stream: Stream[T]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await stream.aclose()
    except Exception:
        log.exception("%s did not close", name)
