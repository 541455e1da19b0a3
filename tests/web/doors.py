"""The whole application on a port of this machine, asked by people it knows and by others."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from db.accounts.permissions import Role, Scope
from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from plugins.credentials import ChecksCredentials
from resolvers.identity.api_tokens import create_api_token, revoke_api_token
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin
from tests.accounts import CHEAP, PASSWORD, session_of
from tests.api import forget, settings_over
from tests.web.live.stage import PATIENCE, Serving, until
from web.app import build_app
from web.bootstrap import Wired, wire
from web.live.frames import FramesProtocol
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Role as ProcessRole

NOW = 1_760_000_000_000
TOKEN_LASTS = 600_000
EVENTS = {"accept": "text/event-stream"}


@dataclass
class Door:
    """A server that runs no jobs, at a time that a test sets."""

    wired: Wired
    clock: FixedClock
    serving: Serving

    @property
    def identity(self) -> Identity:
        return self.wired.shared.identity

    async def session(self, role: Role = Role.USER) -> str:
        """Return the access token of somebody new."""
        signed_in = await session_of(self.identity, role)
        return signed_in.access.text.get_secret_value()

    async def expired(self) -> str:
        """Return an access token that is over; all others that were given are over too."""
        token = await self.session()
        self.clock.at += TOKEN_LASTS + 1
        return token

    async def api_token(self, *scopes: Scope, role: Role = Role.USER, revoked: bool = False) -> str:
        """Return the API token of somebody new."""
        hashed = CHEAP.hash(PASSWORD.get_secret_value())
        session = await session_of(self.identity, role, password_hash=hashed)
        principal = await self.identity.authenticate(session.access.text.get_secret_value())
        made = await create_api_token(
            self.identity,
            principal,
            name="program",
            scopes=scopes,
            password=PASSWORD,
            origin=Origin(),
        )
        if revoked:
            await revoke_api_token(self.identity, principal, made.token.id, origin=Origin())
        return made.text.get_secret_value()

    async def post(
        self, query: str, *, token: str | None = None, headers: Mapping[str, str] = {}, **more: Any
    ) -> httpx.Response:
        shown = {} if token is None else {"authorization": f"Bearer {token}"}
        async with self.serving.http() as http:
            return await http.post(
                "/graphql", json={"query": query, **more}, headers={**shown, **headers}
            )

    async def ask(self, query: str, token: str | None = None, **variables: Any) -> dict[str, Any]:
        return (await self.post(query, token=token, variables=variables)).json()

    async def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        async with self.serving.http() as http:
            lines = (await http.get("/metrics")).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def sent(lines: str) -> list[dict[str, Any]]:
    """Return the responses in an event stream."""
    return [json.loads(line[6:]) for line in lines.splitlines() if line.startswith("data: {")]


def payload_of(token: str | None) -> dict[str, str] | None:
    """Return what a socket says of itself to be the owner of *token*."""
    return None if token is None else {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def opened(
    embedded: EmbeddedServers,
    database_url: str,
    *,
    key_checks: Mapping[str, ChecksCredentials] | None = None,
    **settings: Any,
) -> AsyncIterator[Door]:
    """Serve over a database, with no limits on signing in unless *settings* say so.

    *key_checks* are the venues that keys may be for.
    """
    clock, metrics = FixedClock(NOW), Metrics()
    given = settings_over(
        embedded, database_url, **{"role": ProcessRole.API, "rate_logins": 0, **settings}
    )
    async with wire(given, clock=clock, meter=ChainMeter(metrics), key_checks=key_checks) as wired:
        app = build_app(wired, metrics)
        # Of a socket that does not name its protocol asyncio does not know that it is TCP, and lets
        # each answer wait for 40 ms. In production it is not asyncio that listens.
        with socket.socket(proto=socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(100)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws=FramesProtocol,
                ws_per_message_deflate=False,
                ws_ping_interval=None,
            )
            server = uvicorn.Server(config)
            running = asyncio.create_task(server._serve([listener]))
            await until(lambda: server.started or running.done())
            try:
                yield Door(wired, clock, Serving(app, server, *listener.getsockname()[:2]))
            finally:
                await app.state.live.drain(PATIENCE)
                server.should_exit = True
                await running
        await forget(wired)
