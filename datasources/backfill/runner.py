"""Run one backfill job: hold it, close its holes, and write down how it ended.

The task engine calls `run` at least once for each job, in any process and as often as it likes:
the row says whether there is still something to do, and lets one runner at a time do it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import ClassVar
from uuid import UUID

from datasources.aggregates import key_of
from datasources.ask import Ask, ask_of
from datasources.backfill.filling import Filling, FillTools, Outcome, Superseded
from datasources.backfill.holes import without_trades
from datasources.found import Base
from db.backfills import Backfill, BackfillState, Claim
from db.stored import Wanted
from market.errors import BargraphError, ProviderUnavailable, StoreUnavailable, Unlisted
from market.instrument import Instrument
from market.window import Spans
from plugins.base import Provider
from plugins.registry import Registry

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""How long a job lies still after its process died."""
_BEAT_SECONDS = 1.0
"""How often a claim is renewed, and how soon a cancelled job is noticed."""
_AGAIN_SECONDS = 3_900.0
"""How long after a job recent empty time is looked at again: more than an hour."""
_GIVE_UP_LOOKS_SECONDS = 2 * 86_400.0
_LONGEST_MESSAGE = 500
INTERNAL = "INTERNAL"


class NotListed(BargraphError):
    """The provider does not list, or not any more, what a job is to fill."""

    code: ClassVar[str] = "NOT_LISTED"


class BackfillRunner:
    """Runs jobs in this process. Durations are seconds."""

    def __init__(
        self,
        registry: Registry,
        tools: FillTools,
        *,
        lease: float = LEASE_SECONDS,
        beat: float = _BEAT_SECONDS,
        again_in: float = _AGAIN_SECONDS,
    ) -> None:
        self._registry = registry
        self._tools = tools
        self._lease = lease
        self._beat = beat
        self._again_in = again_in
        self._running: dict[UUID, Filling | None] = {}
        self._bars = 0

    @property
    def running(self) -> int:
        """How many jobs run here."""
        return len(self._running)

    @property
    def bars(self) -> int:
        """How many bars were stored here, new or revised."""
        return self._bars + sum(filling.bars for filling in self._running.values() if filling)

    @property
    def holes_left(self) -> int:
        """Milliseconds that the jobs which run here still have to fill."""
        return sum(filling.left.total for filling in self._running.values() if filling)

    async def run(self, id: UUID) -> None:
        """Do what is left of the job, unless it is over, gone, resting or held by another runner.

        Raises `StoreUnavailable`; the job goes on when it is run again.
        """
        if id in self._running:
            return
        self._running[id] = None
        try:
            claim = await self._tools.backfills.claim(id, seconds=self._lease)
            if claim is not None:
                await self._hold(claim)
        finally:
            filling = self._running.pop(id)
            self._bars += filling.bars if filling else 0

    async def look_again(self) -> bool:
        """Take a look that is due at recent time that had no trades; return whether one was."""
        look = await self._tools.backfills.take_look(
            seconds=self._again_in, give_up_after=_GIVE_UP_LOOKS_SECONDS
        )
        if look is None:
            return False
        try:
            ask = await self._ask(look.backfill)
            (found,) = await self._tools.candles.snapshot([Wanted(key_of(ask.base), look.window)])
            known = found.state.known if found.state else Spans()
            empty = without_trades(ask, look.window, known, found.bars)
            for chunk in ask.chunks(empty):
                fetched = await self._tools.fetcher.look_again(ask, chunk, empty.clip(chunk))
                if fetched.failure is not None:
                    raise fetched.failure
        except StoreUnavailable:
            raise
        except BargraphError as failure:
            log.info("%s is looked at again later: %s", look.backfill.listing.symbol, failure)
        except Exception:
            # A bug, of a provider perhaps, shall not end the sweeper. In time it gives the look up.
            log.exception("%s could not be looked at again", look.backfill.listing.symbol)
        else:
            await self._tools.backfills.looked(look)
        return True

    async def _hold(self, claim: Claim) -> None:
        """Do the work of *claim*, and renew it meanwhile."""
        work = asyncio.create_task(self._work(claim), name=f"backfill {claim.backfill.id}")
        try:
            while not work.done():
                await asyncio.wait([work], timeout=self._beat)
                if not work.done() and not await self._renewed(claim):
                    break
            if work.done():
                await self._finish(claim, work.result())
        except Superseded:
            log.info("Backfill %s is over, or goes on elsewhere", claim.backfill.id)
        except ProviderUnavailable as failure:
            await self._put_off(claim, failure)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            with suppress(BargraphError):
                await self._tools.backfills.release(claim)

    async def _renewed(self, claim: Claim) -> bool:
        try:
            return await self._tools.backfills.renew(claim, seconds=self._lease)
        except StoreUnavailable:
            # The work meets it too, and whoever takes the job meanwhile is told by the fence.
            return True

    async def _work(self, claim: Claim) -> Outcome:
        try:
            ask = await self._ask(claim.backfill)
            filling = self._running[claim.backfill.id] = Filling(claim, ask, self._tools)
            return await filling.run()
        except Unlisted as gone:
            return Outcome(BackfillState.FAILED, NotListed.code, gone.reason[:_LONGEST_MESSAGE])
        except (Superseded, StoreUnavailable, ProviderUnavailable):
            raise
        except BargraphError as failure:
            return Outcome(BackfillState.FAILED, failure.code, str(failure)[:_LONGEST_MESSAGE])
        except Exception:
            # A bug: run again it would fail again, and for ever.
            log.exception("Backfill %s failed", claim.backfill.id)
            return Outcome(BackfillState.FAILED, INTERNAL, "An error of the server ended it.")

    async def _put_off(self, claim: Claim, failure: ProviderUnavailable) -> None:
        """Let the job rest while its provider fails, or end it if that has lasted long enough."""
        patience, told = self._tools.patience, str(failure)[:_LONGEST_MESSAGE]
        rests = await self._tools.backfills.put_off(
            claim,
            f"{told}. It is tried again.",
            least=patience.longest,
            most=patience.most,
            enough=patience.enough,
            retry_after=failure.retry_after,
        )
        if rests is None:
            await self._finish(claim, Outcome(BackfillState.FAILED, failure.code, told))
            return
        log.info("Backfill %s waits for its provider: %s", claim.backfill.id, failure)

    async def _finish(self, claim: Claim, outcome: Outcome) -> None:
        ended = await self._tools.backfills.finish(
            claim,
            outcome.state,
            reason=outcome.reason,
            message=outcome.message,
            again=outcome.again,
            again_in=self._again_in,
        )
        if ended is not None:
            reason = f" ({outcome.reason})" if outcome.reason else ""
            log.info("Backfill %s is %s%s: %d bars", ended.id, ended.state, reason, ended.bars)

    async def _ask(self, backfill: Backfill) -> Ask:
        """Return how the base of the job is asked for.

        Raises `NotListed`, and what the registry and the provider raise.
        """
        listing = backfill.listing
        provider = self._registry.get(listing.provider)
        if provider.description.dataset != listing.dataset:
            raise NotListed(f"{listing.provider} shows another dataset now.")
        base = Base(listing, backfill.timeframe, backfill.native)
        return ask_of(base, await _instrument(provider, backfill), provider)


async def _instrument(provider: Provider, backfill: Backfill) -> Instrument:
    listing = backfill.listing
    for instrument in await provider.symbols():
        if (instrument.market, instrument.symbol) == (listing.market, listing.symbol):
            return instrument
    raise NotListed(f"{listing.symbol} is not listed.")
