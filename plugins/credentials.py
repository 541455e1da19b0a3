"""What a venue is asked about a user's own keys: do they count, and what may they do.

Apart from providers of market data: a user's keys are tried where the server itself has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pydantic import SecretStr

from market.errors import BargraphError


class KeyPermission(StrEnum):
    """What a key may do at its venue, as far as the venue tells."""

    READ = "read"
    TRADE = "trade"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class VenueKeys:
    """A user's key at a venue, none of it ever shown.

    *aux* is what else some venues want: a passphrase, a user's number. *testnet* chooses the
    venue's world without real money: a testnet, a sandbox, a paper account.
    """

    key: SecretStr
    secret: SecretStr
    aux: SecretStr | None = None
    testnet: bool = False


class KeysRefused(BargraphError):
    """A venue did not take keys. *reason* is our own word for why, it never quotes the venue."""

    code = "CREDENTIAL_REFUSED"

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service} did not take the keys: {reason}")
        self.service = service
        self.reason = reason


class ChecksCredentials(Protocol):
    """Asks one venue for the account that keys open, by a connection of these keys alone."""

    async def check(self, keys: VenueKeys) -> tuple[KeyPermission, ...]:
        """Return what *keys* may do. Raises `KeysRefused`, `ProviderUnavailable`.

        Whoever calls bounds the time.
        """
        ...


@runtime_checkable
class SharesTurns(Protocol):
    """A provider whose venue counts calls by address, those with users' keys among them."""

    async def turn(self, cost: float | None = None) -> None:
        """Wait until one more call of *cost*, by the venue's own measure, may be made.

        Raises `ProviderUnavailable` while the venue wants none.
        """
        ...
