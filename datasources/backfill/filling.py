"""Close the holes of one job, chunk by chunk, the newest first.

What is missing is read from the store before each chunk: whatever was stored meanwhile, by this
job before it was interrupted or by anybody else, is not asked for again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from datasources.aggregates import head_of, key_of
from datasources.ask import Ask
from datasources.backfill.holes import (
    fillable,
    has_minutes,
    missing_of,
    stored_new,
    told_from,
    whole_day,
    without_trades,
)
from datasources.backfill.patience import PATIENCE, Insistence, Patience
from datasources.beginnings import NEVER, Beginnings
from datasources.fetching import Fetched, Fetcher
from datasources.found import Base, Head
from db.backfills import BackfillState, BackfillStore, Claim
from db.candles import CandleStore
from db.stored import SeriesState, Wanted
from market.bars import Bars
from market.errors import ImpossibleAnswer, InvalidBars, ProviderUnavailable
from market.window import DAY, Spans, Window

NEWEST_ONLY = "NEWEST_ONLY"
"""The provider offers no bars as old as the rest of the window."""
BEFORE_FIRST = "BEFORE_FIRST"
"""The window begins before the listing does."""
NOT_OFFERED = "NOT_OFFERED"
"""The provider offers older bars, and not those of a part of the window."""
NOT_KEPT = "NOT_KEPT"
"""The window begins before the time of which bars are kept."""
INCOMPLETE = "INCOMPLETE"
"""The provider answered, and said nothing of a part of the window however often it was asked."""
_LOOKS = 2
"""How often a chunk is asked for of which the provider leaves something out or says nonsense."""
RECENT = DAY
"""An empty bar is looked at once more if it closed no longer ago than this."""


class Superseded(Exception):
    """The job is over, or another runner has it."""


@dataclass(frozen=True, slots=True)
class FillTools:
    """What all jobs of a process share. *settle* in ms.

    *announce* tells other processes where a base stands.
    """

    candles: CandleStore
    backfills: BackfillStore
    fetcher: Fetcher
    beginnings: Beginnings
    announce: Callable[[Mapping[Base, Head]], Awaitable[None]]
    settle: int
    parallel: int = 2
    patience: Patience = PATIENCE


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, and the recent time that is to be looked at once more."""

    state: BackfillState
    reason: str | None = None
    message: str | None = None
    again: Window | None = None


class Filling:
    """One job under way in this process."""

    def __init__(self, claim: Claim, ask: Ask, tools: FillTools) -> None:
        self._claim = claim
        self._ask = ask
        self._tools = tools
        self._window = fillable(ask, claim.backfill.window, settle=tools.settle)
        self._open = missing_of(ask, self._window, Spans())
        """The time of the window in which a trade can have been."""
        failing = claim.backfill.failing_since is not None
        self._insistence = Insistence(tools.patience, failing=failing)
        self._holes = claim.backfill.holes
        self._known = Spans()
        self._dropped = Spans()
        """Time whose bars are not kept: its holes are none."""
        self._refused = Spans()
        self._silent = Spans()
        """Time the provider left out of its answers."""
        self._impossible = Spans()
        """Time of which the provider said what cannot be."""
        self._nonsense = ""
        """What it last was."""
        self._reach = self._window.since
        """Nothing older is asked for."""
        self.bars = 0
        """Bars stored by this run, new or revised."""

    @property
    def left(self) -> Spans:
        """The time that is still to be told."""
        return self._open - self._known - self._dropped - self._withheld - self._silent

    async def run(self) -> Outcome:
        """Close what can be closed.

        Raises `Superseded`, `StoreUnavailable`, and `ProviderUnavailable` if the provider fails
        for longer than is waited for in place, `Unlisted` if asking is of no use any more. What
        was stored by then stays.
        """
        await self._begin()
        await self._work_through(deque(self._ask.chunks(self.left)))
        await self._note(0)
        await self._move_minutes_from()
        again = await self._look_again_at()
        if self._impossible - self._known - self._dropped:
            provider = self._ask.base.listing.provider
            told = f"{provider} gave no bars that can be true for a part: {self._nonsense}"
            return Outcome(BackfillState.FAILED, InvalidBars.code, told, again)
        reason, message = await self._shortfall()
        return Outcome(BackfillState.DONE, reason, message, again)

    @property
    def _withheld(self) -> Spans:
        """The time that the provider is known not to offer."""
        return self._refused | Spans.of(self._window.since, self._reach)

    async def _begin(self) -> None:
        """Count the holes, and find out how far back asking is of use."""
        if has_minutes(self._ask):
            # Settled first: where minutes begin otherwise must not depend on this job.
            await self._insistence.call(lambda: self._tools.beginnings.minutes_from(self._ask))
        await self._read_known()
        self._holes = max(self._holes, self.left.total)
        await self._note(0)
        if self.left:
            await self._find_reach(self._window.until)

    async def _find_reach(self, until: int) -> None:
        """Learn from the provider since when it offers bars, as far as that is before *until*."""
        if self._ask.from_trades:
            return
        first = await self._insistence.call(
            lambda: self._tools.beginnings.first_since(self._ask, self._window.since)
        )
        if first is None or first >= until:
            self._reach = max(self._reach, until)
        elif first > self._window.since:
            # The chunk is asked for as a whole: it may hold time without trades before the first.
            (chunk,) = self._ask.chunks(Spans.of(first, first + 1))
            self._reach = max(self._reach, min(chunk.since, until))

    async def _work_through(self, chunks: deque[Window]) -> None:
        while chunks and self._insistence.failing:
            # One at a time: a single call shall tell that the provider is not back yet.
            await self._fill_next(chunks)
        workers = [asyncio.create_task(self._work(chunks)) for _ in range(self._tools.parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, chunks: deque[Window]) -> None:
        while chunks:
            await self._fill_next(chunks)

    async def _fill_next(self, chunks: deque[Window]) -> None:
        chunk = chunks.popleft()
        if chunk.until <= self._reach:
            chunks.clear()
            return
        await self._fill(chunk)

    async def _fill(self, chunk: Window) -> None:
        for look in range(1, _LOOKS + 1):
            (found,) = await self._tools.candles.snapshot([Wanted(key_of(self._ask.base), chunk)])
            self._learn(found.state)
            asked = self.left.clip(chunk)
            if not asked:
                await self._note(0)
                return
            fetched = await self._insistence.call(
                partial(self._fetch, chunk, self._known | self._dropped, found.bars)
            )
            self._refused |= fetched.not_offered.clip(chunk)
            await self._read_known()
            await self._note(
                stored_new(found.bars, fetched.bars.closed()),
                answered=bool(asked - self.left.clip(chunk)),
            )
            if not asked - self._refused:
                await self._find_reach(chunk.until)
            if not self.left.clip(chunk):
                return
            self._insistence.pause(look)
        if fetched.failure is not None:
            self._impossible |= self.left.clip(chunk)
            self._nonsense = fetched.failure.reason
        self._silent |= self.left.clip(chunk)

    async def _fetch(self, chunk: Window, known: Spans, stored: Bars) -> Fetched:
        """Return what came, with a `failure` only if the provider says what cannot be.

        That is an answer like silence: it need not keep the rest from being filled.
        """
        fetched = await self._tools.fetcher.fetch(self._ask, chunk, known, stored, patient=True)
        if fetched.failure is None or isinstance(fetched.failure, ImpossibleAnswer):
            return fetched
        raise fetched.failure

    async def _read_known(self) -> None:
        (state,) = await self._tools.candles.states([key_of(self._ask.base)])
        self._learn(state)

    def _learn(self, state: SeriesState | None) -> None:
        # Answers of the store may overtake each other, and what is done with only grows.
        if state is not None:
            self._known |= state.known
            self._dropped |= state.dropped

    async def _note(self, bars: int, *, answered: bool = False) -> None:
        untold = self._open - self._known - self._dropped - self._withheld
        done = max(0, self._holes - untold.total)
        noted = await self._tools.backfills.progress(
            self._claim, holes=self._holes, done=done, bars=bars, answered=answered
        )
        if noted is None:
            raise Superseded
        if noted.failing_since is None:
            self._insistence.answered()
        self.bars += bars

    async def _move_minutes_from(self) -> None:
        """Let coarser bars be made of all minutes that are told up to those that make them now."""
        if not has_minutes(self._ask):
            return
        (state,) = await self._tools.candles.states([key_of(self._ask.base)])
        if state is None or state.minutes_from is None or state.minutes_from >= NEVER:
            return
        since = told_from(whole_day(self._ask), state.known, state.minutes_from)
        if since < state.minutes_from:
            moved = await self._tools.candles.set_minutes_from(state.id, since)
            await self._tools.announce({self._ask.base: head_of(moved)})

    async def _shortfall(self) -> tuple[str | None, str | None]:
        """Return why a part of the window is not told, if one is not."""
        missing = self._open - self._known - self._dropped
        provider = self._ask.base.listing.provider
        older = missing & Spans.of(self._window.since, self._oldest_offered())
        if older and await self._lists_since(older.hull.until):
            return BEFORE_FIRST, f"{provider} lists nothing older."
        if older:
            return NEWEST_ONLY, f"{provider} offers no bars older than its newest ones."
        if missing & self._refused:
            return NOT_OFFERED, f"{provider} does not offer a part of the window."
        if missing:
            return INCOMPLETE, f"{provider} said nothing of a part of the window."
        if past := self._open & self._dropped:
            return NOT_KEPT, f"Bars before {_date(past.hull.until)} are not kept."
        return None, None

    async def _lists_since(self, until: int) -> bool:
        """Whether the listing began when, at *until*, its bars do: then none are withheld."""
        offer = self._ask.offer
        if offer is None or offer.whole:
            return True
        length = self._ask.base.timeframe.nominal
        if not any(length < frame.timeframe.nominal <= DAY for frame in offer.frames):
            return False
        try:
            first = await self._tools.beginnings.first_bar(self._ask)
        except ProviderUnavailable:
            return False
        # Its first day opens at midnight, its first minute may come hours later.
        return first is not None and until <= first + DAY

    def _oldest_offered(self) -> int:
        """Return before when nothing of the window was offered."""
        offered = Spans((self._window,)) - self._withheld
        return offered.hull.since if offered else self._window.until

    async def _look_again_at(self) -> Window | None:
        """Return the recent time of the window that holds bars without trades."""
        now = self._ask.provider.clock.now()
        recent = Window(max(self._window.since, now - RECENT), self._window.until)
        if recent.empty or self._ask.whole:
            return None
        (found,) = await self._tools.candles.snapshot([Wanted(key_of(self._ask.base), recent)])
        self._learn(found.state)
        empty = without_trades(self._ask, recent, self._known, found.bars)
        return empty.hull if empty else None


def _date(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
