"""People at the whole application, each signed in, and the venues that their keys are for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from db.accounts.permissions import Role
from db.accounts.repositories.users import User
from market.clock import Clock
from plugins.credentials import ChecksCredentials
from resolvers.identity.identity import Identity
from resolvers.identity.signing_in import login
from tests.accounts import CHEAP, ORIGIN, PASSWORD, added
from tests.api import Asked, forget
from web.app import build_app
from web.bootstrap import wire
from web.clock import SystemClock
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings


@dataclass(slots=True)
class Person:
    """Somebody who asks as a client does, with a token of their own; none: a stranger."""

    client: httpx.AsyncClient
    user: User | None = None
    token: str | None = None

    async def ask(self, query: str, **variables: Any) -> Asked:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        response = await self.client.post(
            "/graphql", json={"query": query, "variables": variables}, headers=headers
        )
        return Asked(response.status_code, response.json())


@dataclass(slots=True)
class House:
    """The application, as those who come and go see it."""

    client: httpx.AsyncClient
    identity: Identity

    @property
    def stranger(self) -> Person:
        return Person(self.client)

    async def person(self, role: Role = Role.USER) -> Person:
        """Return somebody new, signed in."""
        hashed = CHEAP.hash(PASSWORD.get_secret_value())
        user = await added(self.identity.accounts, role=role, password_hash=hashed)
        signed_in = await login(self.identity, user.username, PASSWORD, code=None, origin=ORIGIN)
        return Person(self.client, user, signed_in.access.text.get_secret_value())


@asynccontextmanager
async def housed(
    settings: Settings,
    *,
    key_checks: Mapping[str, ChecksCredentials] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[House]:
    """Yield the application that the real wiring builds, over venues of the test's own."""
    metrics = Metrics()
    async with wire(
        settings, clock=clock or SystemClock(), meter=ChainMeter(metrics), key_checks=key_checks
    ) as wired:
        transport = httpx.ASGITransport(build_app(wired, metrics), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://bargraph") as client:
            yield House(client, wired.shared.identity)
        await forget(wired)
