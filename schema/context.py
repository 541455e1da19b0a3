"""What resolvers of one GraphQL request share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import strawberry
from pydantic import SecretStr
from strawberry.dataloader import DataLoader

from datasources.backfill.service import BackfillService
from datasources.found import Answer, Request
from datasources.health import HealthBoard
from datasources.recent import RecentAnswers
from db.candles import CandleStore
from market.errors import BargraphError, StoreUnavailable
from resolvers.callers import ANYBODY, Caller
from resolvers.directory import Directory
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.live_bars import LiveSources
from resolvers.loaders import candle_loader
from schema.encoding import BarEncoder
from schema.permissions import Permissions, Rule
from schema.prepared import Notes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the whole process shares: wired once, read by every request."""

    directory: Directory
    answers: RecentAnswers
    store: CandleStore
    health: HealthBoard
    live: LiveSources
    backfills: BackfillService
    encoder: BarEncoder
    identity: Identity
    permissions: Permissions
    max_bars: int
    max_pages: int

    async def store_id(self) -> UUID | None:
        """Return the id of the candle store, None while it is away."""
        try:
            return await self.store.store_id()
        except StoreUnavailable:
            return None


class Attempts(Protocol):
    """Counts tries at what only its owner should know, by the name they are for, and mails."""

    async def login(self, name: str) -> None:
        """Raises `RateLimited`."""
        ...

    async def mail_elsewhere(self, address: str) -> None:
        """Count a mail that a user sends to an address that is not theirs yet.

        Raises `RateLimited`.
        """
        ...


class Uncounted:
    """`Attempts` of a server that counts none."""

    async def login(self, name: str) -> None:
        pass

    async def mail_elsewhere(self, address: str) -> None:
        pass


@dataclass(slots=True)
class RefreshCookie:
    """The refresh token that a browser keeps where no script reads it.

    *sent* came with the request, and not from another site's page. *kept* is what the browser is to
    keep from now on, and until when; *dropped* says that it is to keep none.
    """

    sent: SecretStr | None = None
    kept: tuple[SecretStr, datetime] | None = None
    dropped: bool = False


@dataclass(slots=True)
class Context:
    """Made anew for each GraphQL request, so that its loaders forget nothing and leak nothing."""

    shared: Shared
    caller: Caller = ANYBODY
    """Who asks."""
    attempts: Attempts = field(default_factory=Uncounted)
    cookie: RefreshCookie | None = None
    """Where the answer can set a cookie."""
    guarded: list[Rule] = field(default_factory=list)
    """What was asked for that not everybody may, by the rules it obeys."""
    takes_fragments: bool = False
    """Whether whoever sends the answer can send JSON that is written already."""
    fragments: int = 0
    """How many values were written so, past the ordinary executor."""
    notes: Notes = field(default_factory=Notes)
    """What was learnt for answering the same request again."""
    failed: dict[Request, BargraphError] = field(default_factory=dict)
    """What was asked for already and could not be had."""
    candles: DataLoader[Request, Answer] = field(init=False)
    _read: dict[Hashable, Any] = field(default_factory=dict, init=False)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        self.candles = candle_loader(self.shared.answers, self.failed)

    async def once(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """Return what *read* gives; a query that selects *key* under many names has it read once.

        One thing is read at a time, so that no query holds many connections.
        """
        async with self._reading:
            if key not in self._read:
                self._read[key] = await read()
            found: T = self._read[key]
            return found

    @property
    def principal(self) -> Principal:
        """Who is signed in. Raises `Unauthenticated`."""
        if self.caller.principal is None:
            raise self.caller.doubt or Unauthenticated
        return self.caller.principal

    @property
    def origin(self) -> Origin:
        """Where the request came from, for the audit log."""
        caller = self.caller
        return Origin(caller.address or None, caller.request_id, caller.agent)


Info = strawberry.Info[Context, None]
