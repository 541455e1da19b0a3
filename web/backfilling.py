"""One backfill for whoever waits at a terminal: started, run or left to a server, and shown.

The job is one like those of the API: a row in the store that one process at a time works on. Where
a server runs jobs over the same stores, it runs there: only then does all that is asked of the
provider share one budget, with charts going first. Where none does, it runs here.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError
from tqdm import tqdm

from datasources.backfill.service import HistoryNotOffered, NothingToFill
from db.backfills import Backfill, BackfillRunning, BackfillState, TooManyBackfills
from market.errors import BadInput, ProviderUnavailable, StoreUnavailable
from resolvers.backfills import LiveProgress, Progress, percent_of, start_backfill
from resolvers.candles import Asked
from web.bootstrap import Wired, wire
from web.clock import SystemClock
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings

_INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C ended."""
_PAUSE = 1.0
"""Seconds until it is looked again whether the job is to be run here."""
_HEARD_MS = 20_000
"""A process that runs jobs says so every few seconds; one that was silent for so long is dead."""


async def backfill(settings: Settings, asked: Asked, *, since: int, until: int | None) -> int:
    """Fill the holes of a series and return the exit code. Times are ms; None is now."""
    async with wire(settings, clock=SystemClock(), meter=ChainMeter(Metrics())) as wired:
        own = True
        try:
            started = await start_backfill(
                wired.shared.directory,
                wired.shared.backfills,
                asked,
                since=since,
                until=until,
                idempotency_key=f"command line {uuid4()}",
            )
        except NothingToFill as nothing:
            _say(nothing)
            return 0
        except BackfillRunning as other:
            own, started = False, other.running
            _complain(f"{other} This shows how far it is.")
        except TooManyBackfills as full:
            _complain(f"{full} Cancel one, or try again when one is over.")
            return 1
        except (BadInput, HistoryNotOffered, ProviderUnavailable) as failure:
            _complain(failure)
            return 1
        return await _Attendance(wired, started, own=own).run()


class _Attendance:
    """One backfill, run here if no server does, and shown until it is over or Ctrl-C."""

    def __init__(self, wired: Wired, backfill: Backfill, *, own: bool) -> None:
        self._wired = wired
        self._service = wired.shared.backfills
        self._backfill = backfill
        self._own = own

    async def run(self) -> int:
        """Return the exit code."""
        wired = self._wired
        showing = asyncio.create_task(self._show(), name="progress")
        ends: list[asyncio.Task[Any]] = [
            showing,
            asyncio.create_task(self._work(), name="backfill"),
            asyncio.create_task(wired.background.watch(), name="background"),
        ]
        if wired.embedded is not None:
            ends.append(asyncio.create_task(wired.embedded.watch(), name="embedded servers"))
        try:
            with _interruptible() as interrupted:
                ends.append(asyncio.create_task(interrupted.wait(), name="Ctrl-C"))
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if interrupted.is_set():
                showing.cancel()  # so that the bar ends its line
                await asyncio.wait([showing])
                return await self._leave()
            for end in ends:
                if end.done():
                    end.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        return _told(self._backfill)

    async def _work(self) -> None:
        while True:
            if not await self._is_served():
                # While the store is away the row keeps where it stood.
                with suppress(StoreUnavailable):
                    await self._wired.backfills.runner.run(self._backfill.id)
            await asyncio.sleep(_PAUSE)  # whoever has the job may die

    async def _is_served(self) -> bool:
        """Whether some server runs jobs; for all we know none does while Redis is away."""
        try:
            workers = await self._wired.jobs.workers.listed()
        except (RedisError, OSError):
            return False
        return any(worker.silent_ms < _HEARD_MS for worker in workers)

    async def _show(self) -> None:
        listing, timeframe = self._backfill.listing, self._backfill.timeframe
        with tqdm(
            total=100.0,
            desc=f"{listing.symbol} {timeframe}",
            bar_format="{desc} {percentage:5.1f}% |{bar}| {unit}",
            disable=None,  # where nobody looks at a terminal
        ) as bar:
            async for progress in LiveProgress(self._service, self._backfill.id):
                self._backfill = progress.backfill
                bar.unit = _words(progress)  # a postfix would begin with a comma
                bar.n = percent_of(progress.backfill)
                bar.refresh()

    async def _leave(self) -> int:
        if not self._own:
            _complain(
                "Not cancelled, as it was not started here: a server that runs jobs goes on with "
                "it, or the same command."
            )
            return _INTERRUPTED
        cancelled = await self._service.cancel(self._backfill.id)
        if cancelled is not None and cancelled.state is not BackfillState.CANCELLED:
            return _told(cancelled)
        stored = cancelled.bars if cancelled else self._backfill.bars
        _complain(
            f"Cancelled. {stored:,} bars are stored and stay; the same command fills the rest."
        )
        return _INTERRUPTED


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Yield what Ctrl-C sets. Pressed once more afterwards, it ends the process."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _words(progress: Progress) -> str:
    if progress.backfill.state is BackfillState.QUEUED:
        failing = progress.backfill.failing_since is not None
        return "waits for the provider" if failing else "waits for its turn"
    words = [f"{progress.backfill.bars:,} bars"]
    if progress.rate is not None:
        words.append(f"{progress.rate:,.0f}/s")
    if progress.time_left is not None and not progress.backfill.state.over:
        words.append(f"{_duration(progress.time_left)} left")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _told(ended: Backfill) -> int:
    """Say how a backfill ended, and return the exit code."""
    name = f"{ended.listing.provider} {ended.listing.symbol} {ended.timeframe}"
    reason = f" {ended.reason}: {ended.message or ''}".rstrip(": ") if ended.reason else ""
    if ended.state is BackfillState.DONE:
        _say(f"{name} is filled, {ended.bars:,} bars stored.{reason}")
        return 0
    _complain(f"{name} is not filled, {ended.bars:,} bars stored: {ended.state}.{reason}")
    return 1


def _say(words: object) -> None:
    print(words)  # noqa: T201 - it is for people to read


def _complain(words: object) -> None:
    print(words, file=sys.stderr)  # noqa: T201 - it is for people to read
