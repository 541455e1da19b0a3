"""Try credentials at their venues, within bounds that hold for everybody together.

A `CredentialProbe` over whatever the plugins can ask. A venue counts calls by our address, whoever
has the keys, and may shut out an address that shows it wrong ones. So a user has one try under way,
tries of a venue have a budget, and who was refused several times waits. Each process counts alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

from db.accounts.repositories.credentials import CredentialSecrets
from market.clock import Clock
from market.errors import ProviderUnavailable
from market.lru import LRU
from plugins.budget import Budget, Sleep
from plugins.credentials import ChecksCredentials, KeyPermission, KeysRefused, VenueKeys
from resolvers.identity.failures import CredentialRefused

SECONDS = 20.0
"""How long one try may take."""
TURN_SECONDS = 5.0
"""How long it may wait for its turn before that."""
AT_ONCE = 2
"""Tries under way at one venue."""
A_MINUTE = 60
"""Tries at one venue in any minute."""
FREE_REFUSALS = 3
"""How often in a row a venue may refuse the keys of one user before that user has to wait."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
"""Seconds that the user waits then; twice as many after each further refusal."""
_FORGOTTEN_MS = 3_600_000
_MOST_USERS = 10_000


@dataclass(frozen=True, slots=True)
class _Venue:
    check: ChecksCredentials
    turns: asyncio.Semaphore
    budget: Budget


@dataclass(frozen=True, slots=True)
class _Refusals:
    """How often in a row a venue refused the keys of one user, the last time at *at*, in ms."""

    count: int
    at: int

    @property
    def again_at(self) -> int:
        """When the user may try again."""
        if self.count < FREE_REFUSALS:
            return self.at
        doubled = FIRST_PAUSE * 2 ** min(self.count - FREE_REFUSALS, 10)
        return self.at + int(1000 * min(doubled, LONGEST_PAUSE))


class VenueProbe:
    """Tries keys. Each try has a connection of its own, so it never meets another's keys."""

    def __init__(
        self,
        checks: Mapping[str, ChecksCredentials],
        *,
        clock: Clock,
        seconds: float = SECONDS,
        turn_seconds: float = TURN_SECONDS,
        at_once: int = AT_ONCE,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._turn_seconds = turn_seconds
        self._venues = {
            service: _Venue(
                check,
                asyncio.Semaphore(at_once),
                Budget(service, A_MINUTE, clock=clock, sleep=sleep, longest_wait=turn_seconds),
            )
            for service, check in checks.items()
        }
        self._trying: LRU[UUID, asyncio.Lock] = LRU(max_count=_MOST_USERS)
        self._refused: LRU[tuple[UUID, str], _Refusals] = LRU(max_count=_MOST_USERS)

    @property
    def services(self) -> Collection[str]:
        return tuple(self._venues)

    async def probe(
        self, service: str, secrets: CredentialSecrets, *, testnet: bool, user_id: UUID
    ) -> Sequence[str]:
        """Return what the keys of a user may do. Raises `CredentialRefused`, and
        `ProviderUnavailable`, also for a venue that was taken out of the settings.
        """
        venue = self._venues.get(service)
        if venue is None:
            raise ProviderUnavailable(service, "this server does not ask it any more")
        keys = VenueKeys(secrets.key, secrets.secret, secrets.aux, testnet)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._turn_seconds):
                    await stack.enter_async_context(self._turn_of(user_id))
                    self._check_refusals(service, user_id)
                    await stack.enter_async_context(venue.turns)
                    await venue.budget.take()
            except TimeoutError:
                raise ProviderUnavailable(service, "other tries there are under way") from None
            return await self._ask(service, venue, keys, user_id)

    async def _ask(
        self, service: str, venue: _Venue, keys: VenueKeys, user_id: UUID
    ) -> Sequence[KeyPermission]:
        failure: CredentialRefused | ProviderUnavailable
        try:
            async with asyncio.timeout(self._seconds):
                permissions = await venue.check.check(keys)
        except TimeoutError:
            failure = ProviderUnavailable(service, "it did not answer in time")
        except KeysRefused as refused:
            self._note_refusal(service, user_id)
            failure = CredentialRefused(service, refused.reason)
        except ProviderUnavailable as unavailable:
            if unavailable.retry_after is not None:
                venue.budget.pause(unavailable.retry_after)
            failure = unavailable
        else:
            self._refused.pop((user_id, service))
            return permissions
        raise failure

    def _turn_of(self, user_id: UUID) -> asyncio.Lock:
        lock = self._trying.get(user_id)
        if lock is None:
            lock = asyncio.Lock()
            self._trying.put(user_id, lock)
        return lock

    def _refusals(self, service: str, user_id: UUID) -> _Refusals | None:
        known = self._refused.get((user_id, service))
        if known is None or self._clock.now() - known.at > _FORGOTTEN_MS:
            return None
        return known

    def _check_refusals(self, service: str, user_id: UUID) -> None:
        """Return if the user may show the venue keys. Raises `ProviderUnavailable`."""
        known = self._refusals(service, user_id)
        left = 0.0 if known is None else (known.again_at - self._clock.now()) / 1000
        if left > 0:
            raise ProviderUnavailable(
                service, "it refused your keys several times; wait a while", retry_after=left
            )

    def _note_refusal(self, service: str, user_id: UUID) -> None:
        known = self._refusals(service, user_id)
        count = 1 if known is None else known.count + 1
        self._refused.put((user_id, service), _Refusals(count, self._clock.now()))
