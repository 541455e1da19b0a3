"""Try credentials at their venues, within bounds: so long, so many at once, and not while told off.

A `CredentialProbe` over whatever the plugins can ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from db.accounts.repositories.credentials import CredentialSecrets
from market.errors import ProviderUnavailable, UnknownName
from plugins.credentials import ChecksCredentials, KeyPermission, KeysRefused, VenueKeys
from resolvers.identity.failures import CredentialRefused

SECONDS = 20.0
"""How long one try may take."""
TURN_SECONDS = 5.0
"""How long it may wait for its turn before that."""
AT_ONCE = 2
"""Tries under way at one venue, which counts calls by our address whoever's keys they use."""


class VenueProbe:
    """Tries keys. Each try has a connection of its own, so it never meets another's keys."""

    def __init__(
        self,
        checks: Mapping[str, ChecksCredentials],
        *,
        seconds: float = SECONDS,
        turn_seconds: float = TURN_SECONDS,
        at_once: int = AT_ONCE,
    ) -> None:
        self._checks = checks
        self._seconds = seconds
        self._turn_seconds = turn_seconds
        self._turns = {service: asyncio.Semaphore(at_once) for service in checks}
        self._paused_until: dict[str, float] = {}

    @property
    def services(self) -> Collection[str]:
        return tuple(self._checks)

    async def probe(
        self, service: str, secrets: CredentialSecrets, *, testnet: bool
    ) -> Sequence[str]:
        """Return what the keys may do. Raises `CredentialRefused`, `ProviderUnavailable`,
        `UnknownName` for a venue that was taken out of the settings.
        """
        check = self._checks.get(service)
        if check is None:
            raise UnknownName("service", service, self._checks, field="service")
        keys = VenueKeys(secrets.key, secrets.secret, secrets.aux, testnet)
        turns = self._turns[service]
        try:
            async with asyncio.timeout(self._turn_seconds):
                await turns.acquire()
        except TimeoutError:
            raise ProviderUnavailable(service, "many others try theirs there just now") from None
        try:
            return await self._ask(service, check, keys)
        finally:
            turns.release()

    async def _ask(
        self, service: str, check: ChecksCredentials, keys: VenueKeys
    ) -> Sequence[KeyPermission]:
        self._check_pause(service)
        failure: CredentialRefused | ProviderUnavailable
        try:
            async with asyncio.timeout(self._seconds):
                return await check.check(keys)
        except TimeoutError:
            failure = ProviderUnavailable(service, "it did not answer in time")
        except KeysRefused as refused:
            failure = CredentialRefused(service, refused.reason)
        except ProviderUnavailable as unavailable:
            self._pause(service, unavailable.retry_after)
            failure = unavailable
        raise failure

    def _check_pause(self, service: str) -> None:
        left = self._paused_until.get(service, 0.0) - asyncio.get_running_loop().time()
        if left > 0:
            raise ProviderUnavailable(service, "rate limited", retry_after=left)

    def _pause(self, service: str, seconds: float | None) -> None:
        """Ask the venue nothing for so long, if it wants that."""
        if seconds is not None:
            until = asyncio.get_running_loop().time() + seconds
            self._paused_until[service] = max(self._paused_until.get(service, 0.0), until)
