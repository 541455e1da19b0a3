"""Admit or refuse by rate, mostly without asking Redis.

A process counts some hits in advance, a lease, and spends them by itself. A lease doubles when it
is spent within its time and is halved when it is not, from 1 up to a twentieth of the rate. It is
never given back, so at worst each process admits that much more than the rate says, hits that were
counted a few seconds earlier: `LEASED_FOR`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from market.lru import LRU
from web.limits.rates import Group, Rate, RateLimited, Rates
from web.limits.windows import AWAY, Grant, LocalWindows, Want, Windows

log = logging.getLogger(__name__)

LEASED_FOR = 10.0
"""Seconds after which the rest of a lease is not spent any more; at most a sixth of a period."""
_PARTS = 20
_PAUSE = 1.0
"""Seconds for which Redis is not asked after it did not answer."""


@dataclass(slots=True)
class _Lease:
    """Hits of *group* that were counted and not spent yet. Times are those of the clock given."""

    key: str
    group: Group
    rate: Rate
    budget: int = 0
    size: int = 0
    expires: float = 0.0
    refused_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def covers(self, hits: int, now: float) -> bool:
        return self.budget >= hits and now < self.expires

    def want(self, hits: int, now: float) -> Want:
        most = max(1, self.rate.amount // _PARTS)
        spent = self.size > 0 and now < self.expires
        self.size = min(most, self.size * 2) if spent else max(1, self.size // 2)
        return Want(self.key, self.rate, hits - self._left(now), max(0, self.size - hits))

    def take(self, grant: Grant, hits: int, now: float) -> bool:
        """Add what was granted, and return whether the lease covers *hits* now."""
        if grant.hits:
            self.budget = self._left(now) + grant.hits
            self.expires = now + min(LEASED_FOR, self.rate.seconds / 6)
        if self.covers(hits, now):
            return True
        if hits == 1:  # of several at once fewer may still fit
            self.refused_until = now + grant.wait
        self.size = 1
        return False

    def _left(self, now: float) -> int:
        return self.budget if now < self.expires else 0


class RateLimits:
    """Counts what callers do, in *shared* windows, or in this process's own while these are away.

    *shared* is given *patience* seconds to answer. At most *max_count* leases are held.
    """

    def __init__(
        self,
        rates: Rates,
        shared: Windows,
        *,
        patience: float = 0.25,
        max_count: int = 50_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = rates
        self._shared = shared
        self._alone = LocalWindows(max_count=max_count, now=now)
        self._patience = patience
        self._now = now
        self._leases: LRU[str, _Lease] = LRU(max_count=max_count)
        self._away_until = 0.0
        self._answers = True

    async def admit(
        self,
        hits: Mapping[Group, int],
        *,
        address: str | None,
        user: str | None = None,
        account: str | None = None,
    ) -> None:
        """Count *hits* for whoever asks. Raises `RateLimited`, with nothing spent.

        A *user* who is signed in counts as such, everybody else by *address*; an address of None is
        not limited. *account* is the name of whom one tries to sign in as, counted besides.
        """
        needs: list[tuple[_Lease, int]] = []
        for group, count in hits.items():
            if (lease := self._lease_of(group, address, user)) is not None:
                needs.append((lease, count))
            if account is not None and (lease := self._lease_for(group, account)) is not None:
                needs.append((lease, count))
        now = self._now()
        for lease, count in needs:
            if not lease.covers(count, now):
                break
        else:
            for lease, count in needs:
                lease.budget -= count
            return
        async with AsyncExitStack() as stack:
            for lease, _ in sorted(needs, key=lambda need: need[0].key):
                await stack.enter_async_context(lease.lock)
            await self._fill(needs)
            for lease, count in needs:
                lease.budget -= count

    def spend(self, group: Group, *, address: str, user: str | None = None) -> bool:
        """Count one hit of *group* as `admit` does, if it was counted ahead: most were.

        Return False, with nothing counted, for one that was not.
        """
        lease = self._lease_of(group, address, user)
        if lease is None:
            return True  # not limited
        if not lease.covers(1, self._now()):
            return False
        lease.budget -= 1
        return True

    async def _fill(self, needs: Sequence[tuple[_Lease, int]]) -> None:
        """Make leases cover what is needed, by one call at most. Raises `RateLimited`."""
        now = self._now()
        lacking = [(lease, count) for lease, count in needs if not lease.covers(count, now)]
        waits = [(lease.refused_until - now, lease) for lease, _ in lacking]
        _refuse([wait for wait in waits if wait[0] > 0])
        if not lacking:
            return
        grants = await self._take([lease.want(count, now) for lease, count in lacking])
        waits = []
        for (lease, count), grant in zip(lacking, grants, strict=True):
            if not lease.take(grant, count, now):
                waits.append((grant.wait, lease))
        _refuse(waits)

    async def _take(self, wants: Sequence[Want]) -> list[Grant]:
        if self._now() >= self._away_until:
            try:
                async with asyncio.timeout(self._patience):
                    grants = await self._shared.take(wants)
            except AWAY as error:
                self._away_until = self._now() + _PAUSE
                self._note(error)
            else:
                self._note(None)
                return grants
        return await self._alone.take(wants)

    def _lease_of(self, group: Group, address: str | None, user: str | None) -> _Lease | None:
        """Return the lease of a *user* for what is counted by user, else that of an *address*."""
        if user is not None and (rate := self._rates.user.get(group)) is not None:
            return self._lease(f"{group}:user:{user}", group, rate)
        rate = self._rates.address.get(group)
        if address is None or rate is None:
            return None
        return self._lease(f"{group}:address:{address}", group, rate)

    def _lease_for(self, group: Group, account: str) -> _Lease | None:
        rate = self._rates.account.get(group)
        if rate is None:
            return None
        # Names stay out of Redis; what looks alike to a person counts as one.
        alike = account.strip().casefold().encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(alike).hexdigest()[:32]
        return self._lease(f"{group}:account:{digest}", group, rate)

    def _lease(self, key: str, group: Group, rate: Rate) -> _Lease | None:
        """Return the lease *key*, None for a *rate* that limits nothing."""
        lease = self._leases.get(key)
        if lease is None and rate.amount:
            lease = _Lease(key, group, rate)
            self._leases.put(key, lease)
        return lease

    def _note(self, error: Exception | None) -> None:
        """Log that Redis went away or came back, once each."""
        answers = error is None
        if answers != self._answers:
            self._answers = answers
            if answers:
                log.info("Redis answers again: rates are counted together.")
            else:
                log.warning("Redis is away: each process limits rates by itself (%r).", error)


def _refuse(waits: Sequence[tuple[float, _Lease]]) -> None:
    """Raise `RateLimited` for the longest of *waits*, if there is any."""
    if waits:
        wait, lease = max(waits, key=lambda each: each[0])
        raise RateLimited(lease.group, lease.rate, retry_after=wait)
