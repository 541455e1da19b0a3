"""A server as it is really run, and whoever means it ill.

It is a process of its own with the settings of a test, whose keys the test knows: so tokens can be
forged under the right key with the wrong claims. Its log tells of whatever went wrong inside.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from websockets.asyncio.client import connect

from db.accounts.accounts import Accounts
from db.accounts.engine import open_engine
from db.accounts.permissions import Role
from db.embedded.servers import EmbeddedServers
from db.encryption import KeyRing, key_text, new_key
from resolvers.identity.identity import Identity
from resolvers.identity.passwords import Passwords
from resolvers.identity.rules import Rules
from tests.accounts import CHEAP, FakeVenue, Mailbox, session_of
from tests.conftest import scratch_database
from tests.web.live.stage import PATIENCE, Client
from tests.web.serving import SERVE, environment, serving
from web.clock import SystemClock
from web.live.messages import PROTOCOL
from web.tokens import JwtTokens

LASTS_MS = 24 * 3_600_000
"""How long the tokens of these people count: longer than any run of the tests."""
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs, and how to sign in there without a password."""

    url: str
    log: Path
    database_url: str
    token_key: bytes

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def http(self, **options: Any) -> httpx.AsyncClient:
        # Without TLS there is nothing to verify, and reading the certificates takes a while.
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, verify=False, **options)

    async def post(self, body: object, **headers: str) -> httpx.Response:
        """Send *body*, bytes as they are and all else as JSON; `_` in a header's name is `-`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http() as http:
            return await http.post("/graphql", content=content, headers={**JSON, **named})

    async def ask(self, query: str, token: str | None = None, **more: Any) -> httpx.Response:
        return await self.post({"query": query, **more}, **bearer(token))

    async def session(self, role: Role = Role.USER) -> str:
        """Return the access token of somebody new."""
        clock = SystemClock()
        async with open_engine(self.database_url) as engine:
            identity = Identity(
                Accounts(engine, KeyRing([new_key()])),
                passwords=Passwords(hasher=CHEAP),
                tokens=JwtTokens([self.token_key], clock=clock, lifetime_ms=LASTS_MS),
                mailer=Mailbox(),
                clock=clock,
                rules=Rules(),
                probe=FakeVenue(),
            )
            signed_in = await session_of(identity, role)
            await identity.aclose()
        return signed_in.access.text.get_secret_value()

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Client]:
        """A WebSocket that has connected and said nothing yet."""
        options = {"subprotocols": [PROTOCOL], "ping_interval": None, **options}
        async with connect(f"{self.url.replace('http', 'ws', 1)}/graphql", **options) as socket:
            yield Client(socket)

    async def raw(self, *pieces: bytes, end: bool = False) -> bytes:
        """Send *pieces* on a connection as they are, and return all that comes until it ends."""
        reader, writer = await asyncio.open_connection(*self.address)
        received = b""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):  # a reset is an end as well
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if end:
                    writer.write_eof()
                while piece := await reader.read(65_536):
                    received += piece
        writer.close()
        return received

    def complaints(self) -> list[str]:
        """Return the lines of the log that tell of a bug."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if json.loads(line)["level"] in {"error", "critical"}]

    async def answers(self) -> bool:
        return "data" in (await self.ask("{ markets { name } }")).json()


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


@contextmanager
def running(embedded: EmbeddedServers, folder: Path, **settings: object) -> Iterator[Target]:
    """Run a server with a database of its own."""
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    token_key = new_key()
    with scratch_database(embedded.postgres_url) as database_url, log.open("w") as errors:
        process = subprocess.Popen(
            SERVE,
            cwd=folder,
            env=environment(
                **{
                    "database_url": database_url,
                    "redis_url": embedded.redis_url,
                    "redis_prefix": f"bargraph-test-{uuid4().hex}:",
                    "encryption_keys": key_text(new_key()),
                    "token_keys": key_text(token_key),
                    "data_dir": folder / "files",
                    "rate_logins": 1_000_000,
                    "log_format": "json",
                    "registration": "invitation",  # so that no mail server has to be named
                    **settings,
                }
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield Target(serving(process).url, log, database_url, token_key)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def codes(answer: Mapping[str, Any]) -> list[str]:
    """Return the codes of the errors in an answer."""
    return [error["extensions"]["code"] for error in answer.get("errors", [])]
