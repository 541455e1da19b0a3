"""What the functions of identity work with, as one thing that the wiring hands to requests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import Enum
from typing import Protocol
from uuid import UUID

from db.accounts.accounts import Accounts, Transaction
from db.accounts.columns import instant_of
from db.accounts.repositories.audit import OK, NewEntry
from db.accounts.repositories.credentials import CredentialSecrets
from market.clock import Clock
from market.lru import LRU
from resolvers.identity.checking import Checks
from resolvers.identity.errands import Errands
from resolvers.identity.passwords import Passwords
from resolvers.identity.principal import AccessTokens, Claims, Mailer, Origin, Principal
from resolvers.identity.rules import Rules

_MOST_TOLD = 10_000


class CredentialProbe(Protocol):
    """Asks a venue what a key is good for."""

    @property
    def services(self) -> Collection[str]:
        """The venues that credentials may be for."""
        ...

    async def probe(
        self, service: str, secrets: CredentialSecrets, *, testnet: bool, user_id: UUID
    ) -> Sequence[str]:
        """Return what the key of a user may do at the venue. Raises `CredentialRefused`,
        `ProviderUnavailable`.
        """
        ...


class CredentialUsers(Protocol):
    """Knows what needs a credential: open orders, running bots.

    It is asked while the credential's row is locked, just before the keys go or change. So whoever
    begins to need a credential locks its row first, by `Credentials.find` with *lock*, in the
    transaction that makes the need known. Then either the need is seen here, or the credential is
    seen to be gone there. Whoever also locks the user's row, or adds one that refers to it, locks
    the user's first.
    """

    async def users_of(
        self, transaction: Transaction, user_id: UUID, credential_id: UUID
    ) -> Sequence[str]:
        """Return a name for each, none if the credential may go.

        Whoever reads from accounts does it by *transaction*, which holds a connection already.
        """
        ...


class Actor(Enum):
    """Who did something, where nobody else is named."""

    USER = "the user it is about"


class Identity:
    """Everything about who asks. The other functions of this folder take it first.

    Whoever makes one runs its *errands* too.
    """

    def __init__(
        self,
        accounts: Accounts,
        *,
        passwords: Passwords,
        tokens: AccessTokens,
        mailer: Mailer,
        clock: Clock,
        rules: Rules,
        probe: CredentialProbe,
        credential_users: Sequence[CredentialUsers] = (),
    ) -> None:
        self.accounts = accounts
        self.passwords = passwords
        self.tokens = tokens
        self.mailer = mailer
        self.rules = rules
        self.probe = probe
        self.credential_users = credential_users
        self.told_owners: LRU[str, datetime] = LRU(max_count=_MOST_TOLD)
        """When the owner of an address was told that somebody tried to register with it."""
        self.errands = Errands()
        self.checks = Checks(accounts, tokens, clock)
        self._clock = clock

    async def aclose(self) -> None:
        await self.checks.aclose()
        self.passwords.close()

    def now(self) -> datetime:
        return instant_of(self._clock.now())

    async def authenticate(self, bearer: str) -> Principal:
        """Return who shows a token. Raises `Unauthenticated`, `AccountsUnavailable`."""
        return await self.checks.authenticate(bearer)

    async def check(self, claims: Claims) -> Principal:
        """Return what a token read earlier amounts to now; for open sockets.

        Raises `Unauthenticated`, `AccountsUnavailable`.
        """
        return await self.checks.check(claims)

    def entry(
        self,
        action: str,
        origin: Origin,
        *,
        user_id: UUID | None,
        actor_id: UUID | Actor | None = Actor.USER,
        result: str = OK,
        target: str | None = None,
    ) -> NewEntry:
        """Return a line of the audit log about *user_id*.

        *actor_id* None stands for nobody with an account: whoever runs a command. Of what the user
        failed to do, nobody knows whether it was they who tried.
        """
        if actor_id is Actor.USER:
            actor_id = user_id if result == OK else None
        return NewEntry(
            at=self.now(),
            action=action,
            result=result,
            user_id=user_id,
            actor_id=actor_id,
            target=clipped(target, 120),
            address=clipped(origin.address, 64),
            request_id=clipped(origin.request_id, 64),
        )


def clipped(text: str | None, longest: int) -> str | None:
    """Return what a column of *longest* characters can hold of what a client sent."""
    if text is None:
        return None
    return "".join(c for c in text if c.isprintable())[:longest]
