"""Known secrets go through the whole running server, and are looked for wherever it leaves a trace.

In what it answers, over HTTP and WebSocket; in its log at debug level, in both forms, and in what
its tracebacks could have shown; on its terminal; in its metrics; in PostgreSQL, in Redis, and in
its folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from traceback import TracebackException
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from db.embedded.servers import EmbeddedServers
from db.encryption import key_text, new_key
from plugins.alpaca.key_check import AlpacaKeyCheck
from plugins.ccxt_exchange.key_check import CcxtKeyCheck
from tests.alpaca_server import AlpacaServer, alpaca_server
from tests.alpaca_server.rest import LIVE_ACCOUNT
from tests.conftest import scratch_database
from tests.exchange_server import Account, ExchangeServer, exchange_server
from tests.web.doors import NOW, Door, opened
from web.logs import logging_to

PASSWORD, OTHER = "canary-password-AbCd", "canary-other-password-AbCd"
KEY, SECRET, AUX = "canary-key-AbCdEf12", "canary-secret-AbCdEf34", "canary-aux-AbCdEf56"
NEW_KEY, NEW_SECRET = "canary-new-key-AbCd78", "canary-new-secret-AbCd90"
KEYS = {"key": KEY, "secret": SECRET, "aux": AUX}
NEW_KEYS = {"key": NEW_KEY, "secret": NEW_SECRET}
ADDRESS = "canary@example.com"
IN_NOTES, IN_DOCUMENT, IN_LOG = "found-in-notes", "found-in-document", "found-in-log"
FAILURE = "__typename ... on Failure { code message }"

REGISTER = f"mutation ($input: RegisterInput!) {{ register(input: $input) {{ {FAILURE} }} }}"
VERIFY = f"mutation ($input: VerifyEmailInput!) {{ verifyEmail(input: $input) {{ {FAILURE} }} }}"
LOGIN = f"""mutation ($input: LoginInput!) {{ login(input: $input) {{
    ... on SignedIn {{ accessToken refreshToken }} {FAILURE} }} }}"""
REFRESH = f"""mutation ($input: RefreshInput!) {{ refresh(input: $input) {{
    ... on SignedIn {{ accessToken refreshToken }} {FAILURE} }} }}"""
API_TOKEN = f"""mutation ($input: CreateApiTokenInput!) {{ createApiToken(input: $input) {{
    ... on ApiTokenCreated {{ token }} {FAILURE} }} }}"""
CHANGE = f"""mutation ($input: ChangePasswordInput!) {{ changePassword(input: $input) {{
    ... on PasswordChanged {{ accessToken }} {FAILURE} }} }}"""
ADD = f"""mutation ($input: AddCredentialInput!) {{ addCredential(input: $input) {{
    ... on CredentialAdded {{ credential {{ id keyHint notes }} }} {FAILURE} }} }}"""
UPDATE = f"""mutation ($input: UpdateCredentialInput!) {{
    updateCredential(input: $input) {{ {FAILURE} }} }}"""
TEST = f"mutation ($id: ID!) {{ testCredential(input: {{id: $id}}) {{ {FAILURE} }} }}"
DELETE = f"mutation ($id: ID!) {{ deleteCredential(input: {{id: $id}}) {{ {FAILURE} }} }}"
READ = """{ credentials { id name keyHint notes } me { id username }
    auditLog(first: 100) { nodes { action result target requestId } } }"""


@dataclass
class Traces:
    """What was planted, and everything that the server let out."""

    secrets: set[str] = field(default_factory=set)
    emitted: list[str] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)

    def plant(self, *secrets: str) -> None:
        self.secrets |= set(secrets)

    def found(self, secret: str) -> bool:
        """Whether *secret* is anywhere, as it is or as a URL would write it."""
        forms = {secret, quote(secret, safe=""), secret.encode().hex()}
        return any(form in text for form in forms for text in self.emitted) or any(
            form.encode() in stored for form in forms for stored in self.kept
        )


@dataclass
class Logged:
    """What a server that is told to log everything logs."""

    forms: list[io.StringIO]
    caught: pytest.LogCaptureFixture

    def everything(self) -> list[str]:
        """Return it in each form, as it was before it was redacted, and all that failed knew."""
        failures = [record.exc_info[1] for record in self.caught.records if record.exc_info]
        traces = [
            line
            for failure in failures
            if failure is not None
            for line in TracebackException.from_exception(failure, capture_locals=True).format()
        ]
        return [*(form.getvalue() for form in self.forms), self.caught.text, *traces]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Logged]:
    forms = [io.StringIO(), io.StringIO()]
    with (
        logging_to(forms[0], level="debug", form="text"),
        logging_to(forms[1], level="debug", form="json"),
    ):
        yield Logged(forms, caplog)


@pytest.fixture
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest.fixture
async def exchange() -> AsyncIterator[ExchangeServer]:
    async with exchange_server(now=NOW) as server:
        server.accounts = {KEY: Account(SECRET), NEW_KEY: Account("another secret")}
        yield server


@pytest.fixture
async def alpaca() -> AsyncIterator[AlpacaServer]:
    async with alpaca_server(now=NOW) as server:
        server.accounts[LIVE_ACCOUNT, (KEY, SECRET)] = {"status": "ACTIVE"}
        yield server


class Visitor:
    """Somebody whose every answer is looked through, but for those that hand a secret out."""

    def __init__(self, door: Door, traces: Traces) -> None:
        self._door = door
        self._traces = traces
        self.token: str | None = None

    async def ask(self, query: str, *, hands_out: bool = False, **variables: Any) -> Any:
        """Return the data of the answer, None where there is none."""
        answer = await self._door.post(query, token=self.token, variables=variables)
        if not hands_out:
            self._traces.emitted.append(f"{answer.headers}\n{answer.text}")
        body = answer.json()
        assert not hands_out or "errors" not in body, body
        return body.get("data")

    async def send(self, **body: Any) -> None:
        """Send a body as it is."""
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        async with self._door.serving.http() as http:
            answer = await http.post("/graphql", json=body, headers=headers)
        self._traces.emitted.append(f"{answer.headers}\n{answer.text}")

    async def over_socket(self, payload: dict[str, Any], *operations: dict[str, Any]) -> None:
        """Say *payload* on a new socket, and run *operations* there one after the other."""
        url = self._door.serving.url.replace("http", "ws")
        async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            try:
                for number, operation in enumerate(operations):
                    message = {"id": str(number), "type": "subscribe", "payload": operation}
                    await socket.send(json.dumps(message))
                ended = 0
                while ended < max(len(operations), 1):
                    text = str(await socket.recv())
                    self._traces.emitted.append(text)
                    ended += json.loads(text)["type"] in {"complete", "error"}
            except ConnectionClosed as closed:
                assert not operations
                self._traces.emitted.append(str(closed))


def mailed_token(folder: Path) -> str:
    """Return the token in the newest mail."""
    newest = max((folder / "mail").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    text = newest.read_text().replace("=\n", "").replace("=3D", "=")
    match = re.search(r"#token=([\w-]+)", text)
    assert match is not None, text
    return match[1]


async def signed_in(visitor: Visitor, traces: Traces, folder: Path) -> None:
    """Register, sign in wrongly and rightly, and go on as the one who did."""
    account = {"username": "canary", "email": ADDRESS, "password": PASSWORD}
    await visitor.ask(REGISTER, input=account)
    await visitor.ask(REGISTER, input=account | {"email": "not an address"})
    await visitor.ask(REGISTER, input={"username": "canary", "password": PASSWORD})
    await visitor.ask(REGISTER, input=account | {"password": [PASSWORD]})
    await visitor.ask(VERIFY, input={"token": mailed_token(folder)})
    await visitor.ask(LOGIN, input={"username": "canary", "password": OTHER})
    login = await visitor.ask(
        LOGIN, hands_out=True, input={"username": "canary", "password": PASSWORD}
    )
    session = login["login"]
    traces.plant(session["accessToken"], session["refreshToken"])
    refreshed = await visitor.ask(
        REFRESH, hands_out=True, input={"refreshToken": session["refreshToken"]}
    )
    session = refreshed["refresh"]
    traces.plant(session["accessToken"], session["refreshToken"])
    visitor.token = session["accessToken"]
    wanted = {"name": "p", "scopes": ["READ"], "password": PASSWORD}
    made = await visitor.ask(API_TOKEN, hands_out=True, input=wanted)
    traces.plant(made["createApiToken"]["token"])
    await visitor.over_socket({"authorization": f"Bearer {made['createApiToken']['token']}x"})
    changed = await visitor.ask(
        CHANGE, hands_out=True, input={"password": PASSWORD, "newPassword": OTHER}
    )
    traces.plant(changed["changePassword"]["accessToken"])
    visitor.token = changed["changePassword"]["accessToken"]


async def add_keys(visitor: Visitor) -> list[str]:
    """Give the server keys in every way, right and wrong; return what it made of them."""
    added = []
    for service in ("binance", "alpaca"):
        given = {"service": service, "name": "main", "keys": KEYS, "notes": IN_NOTES}
        made = await visitor.ask(ADD, input=given)
        added.append(made["addCredential"]["credential"]["id"])
        await visitor.ask(ADD, input=given)  # the name is taken
    for wrong in (
        {"service": "binance", "keys": KEYS},
        {"service": "binance", "name": [KEY], "keys": KEYS},
        {"service": "binance", "name": "a", "keys": KEYS | {"more": 1}},
        {"service": "binance", "name": "a", "keys": SECRET},
        {"service": "binance", "name": "a", "keys": KEYS | {"aux": f"{AUX} "}},
        {"service": "nowhere", "name": "a", "keys": KEYS},
        KEYS,
    ):
        await visitor.ask(ADD, input=wrong)
    inline = (
        f'mutation {{ addCredential(input: {{service: "binance", name: "b", keys: '
        f'{{key: "{KEY}", secret: "{SECRET}"}}}}) {{ __typename }} }}'
    )
    login = (
        f'mutation {{ login(input: {{username: "canary", password: "{OTHER}x"}}) {{ {FAILURE} }} }}'
    )
    for document in (inline, login, f"# {IN_DOCUMENT}\n{{ __typename }}"):
        digest = hashlib.sha256(document.encode()).hexdigest()
        persisted = {"persistedQuery": {"version": 1, "sha256Hash": digest}}
        await visitor.send(query=document, extensions=persisted)
        await visitor.send(extensions=persisted)
    return added


async def try_keys(visitor: Visitor, added: list[str], venues: list[Any]) -> None:
    """Try keys at venues that take them, fail, and quote them."""
    for credential in added:
        await visitor.ask(TEST, id=credential)
    for venue in venues:
        venue.faults.refuse(500, on="account")
        venue.faults.refuse(401, on="account")
        venue.faults.say(f"<html>{KEY} {SECRET} {AUX}", on="account")
        venue.faults.hang(on="account")
        venue.faults.refuse(429, on="account")  # the last: the venue is left alone from then on
    for _ in range(6):
        for credential in added:
            await visitor.ask(TEST, id=credential)


def fail_once() -> None:
    """Fail as something unforeseen does."""
    try:
        raise RuntimeError(IN_LOG)
    except RuntimeError:
        logging.getLogger("anything").exception("it failed")


async def test_no_secret_is_left_anywhere(
    embedded: EmbeddedServers,
    database_url: str,
    exchange: ExchangeServer,
    alpaca: AlpacaServer,
    logged: Logged,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    traces = Traces()
    keys = [key_text(new_key()), key_text(new_key())]
    traces.plant(PASSWORD, OTHER, KEY, SECRET, AUX, NEW_KEY, NEW_SECRET, *keys)
    checks = {
        "binance": CcxtKeyCheck("binance", configure=exchange.configure, timeout=2),
        "alpaca": AlpacaKeyCheck(live=alpaca.url, timeout=2),
    }
    async with opened(
        embedded,
        database_url,
        key_checks=checks,
        data_dir=tmp_path,
        registration="open",
        encryption_keys=keys[0],
        token_keys=keys[1],
    ) as door:
        visitor = Visitor(door, traces)
        await signed_in(visitor, traces, tmp_path)
        added = await add_keys(visitor)
        await visitor.over_socket(
            {"authorization": f"Bearer {visitor.token}"},
            {"query": READ},
            {"query": ADD, "variables": {"input": {"service": "alpaca", "keys": KEYS}}},
            {
                "query": ADD,
                "variables": {"input": {"service": "alpaca", "name": "c", "keys": NEW_KEYS}},
            },
            {"query": TEST, "variables": {"id": added[0]}},
        )
        await try_keys(visitor, added, [exchange, alpaca])
        for version in (1, 7):
            change = {"id": added[0], "version": version, "keys": NEW_KEYS}
            await visitor.ask(UPDATE, input=change)
        await visitor.ask(TEST, id=added[0])
        await visitor.ask(READ)
        await visitor.ask(DELETE, id=added[1])
        fail_once()
        async with door.serving.http() as http:
            for path in ("/metrics", "/readyz", "/healthz"):
                traces.emitted.append((await http.get(path)).text)
        traces.kept += [dump async for dump in in_redis(door.wired.redis)]
    traces.kept += [row async for row in in_postgres(database_url)]
    traces.kept += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    traces.emitted += [*logged.everything(), *capfd.readouterr()]

    assert len(traces.secrets) > 12
    assert [secret for secret in traces.secrets if traces.found(secret)] == []
    # Each place was really looked into, and everything really happened.
    assert sum(IN_LOG in text for text in traces.emitted) >= len(logged.forms) + 1
    assert any("bargraph_" in text for text in traces.emitted)
    for shown in (IN_NOTES, IN_DOCUMENT, ADDRESS):
        assert any(shown.encode() in stored for stored in traces.kept)
    told = "\n".join(traces.emitted)
    for outcome in (
        "CredentialTested",
        "CredentialRefused",
        "VenueUnavailable",
        "CredentialVersionConflict",
        "CredentialDeleted",
        "LoginFailed",
        "NameTaken",
        "InvalidInput",
    ):
        assert f'"{outcome}"' in told


async def in_redis(redis: Redis) -> AsyncIterator[bytes]:
    """Yield the keys of a Redis and what is under them."""
    async for key in redis.scan_iter("*", count=1000):
        yield bytes(key)
        match await redis.type(key):
            case b"string":
                yield bytes(await redis.get(key) or b"")
            case b"hash":
                yield repr(await redis.hgetall(key)).encode()
            case b"list":
                yield repr(await redis.lrange(key, 0, -1)).encode()
            case b"set":
                yield repr(await redis.smembers(key)).encode()
            case b"zset":
                yield repr(await redis.zrange(key, 0, -1)).encode()
            case b"stream":
                yield repr(await redis.xrange(key)).encode()


async def in_postgres(url: str) -> AsyncIterator[bytes]:
    """Yield every value in every table of a database."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for (table,) in tables:
            for row in await connection.fetch(f"SELECT * FROM {table}"):
                for value in row:
                    yield value if isinstance(value, bytes) else str(value).encode()
    finally:
        await connection.close()
