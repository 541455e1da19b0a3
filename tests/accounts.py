"""Databases of accounts for tests, and users in them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncmy
import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy import make_url

from db.accounts.accounts import Accounts, Transaction
from db.accounts.permissions import Role, Scope
from db.accounts.repositories.api_tokens import ApiToken
from db.accounts.repositories.credentials import Credential, CredentialSecrets
from db.accounts.repositories.users import User
from db.encryption import new_key
from market.clock import FixedClock
from resolvers.identity.failures import CredentialRefused
from resolvers.identity.identity import Identity
from resolvers.identity.passwords import Passwords
from resolvers.identity.principal import Mail, Origin, Principal, SignedIn
from resolvers.identity.rules import Rules
from resolvers.identity.signing_in import begin_session, login
from web.background import Background
from web.tokens import JwtTokens

NOW = datetime(2026, 11, 20, 12, 30, 15, 123456, tzinfo=UTC)
SERVERS = ("mariadb", "embedded", "external")


def mariadb_server() -> str:
    """Return the MariaDB in which databases may be made; skip where none is named."""
    url = os.environ.get("TEST_MARIADB_URL")
    if not url:
        pytest.skip("TEST_MARIADB_URL names no MariaDB server")
    return url


@contextmanager
def scratch_mariadb(server: str) -> Iterator[str]:
    """A MariaDB database of our own on *server*, gone when the tests are."""
    url = make_url(server)
    name = f"bargraph_test_{uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncmy.connect(
            host=url.host,
            port=url.port or 3306,
            user=url.username,
            password=url.password or "",
        )
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(statement)
        finally:
            await connection.ensure_closed()

    asyncio.run(run(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        asyncio.run(run(f"DROP DATABASE {name}"))


def somebody(**values: object) -> User:
    """Return a user nobody has seen before, with an address that is verified."""
    name = f"u{uuid4().hex[:16]}"
    known: dict[str, object] = {
        "id": uuid4(),
        "username": name,
        "email": f"{name}@example.com",
        "email_verified_at": NOW,
        "role": Role.USER,
        "token_version": 0,
        "nickname": None,
        "location": None,
        "bio": None,
        "last_login": None,
        "registered_at": NOW,
        "disabled_at": None,
        "password_hash": "$argon2id$none",
    }
    return User(**{**known, **values})


async def added(accounts: Accounts, **values: object) -> User:
    """Return a user who was added just now."""
    user = somebody(**values)
    async with accounts.transaction() as transaction:
        await transaction.users.add(user)
    return user


@dataclass(slots=True)
class Mailbox:
    """A `Mailer` that keeps what was posted."""

    mails: list[Mail] = field(default_factory=list)

    def post(self, mail: Mail) -> None:
        self.mails.append(mail)

    def token_for(self, address: str) -> SecretStr:
        """Return the token in the newest mail to *address*."""
        newest = [mail for mail in self.mails if mail.to == address][-1]
        match = re.search(r"#\w+=(\S+)", newest.text.get_secret_value())
        assert match is not None
        return SecretStr(match[1])


@dataclass(slots=True)
class FakeVenue:
    """A `CredentialProbe` of one venue, `fake`, that takes any key but those in *refused*.

    Where it is *broken* it is as talkative as libraries are. It hangs unless it is *answering*.
    """

    refused: set[str] = field(default_factory=set)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    broken: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    @property
    def services(self) -> tuple[str, ...]:
        return ("fake",)

    async def probe(
        self, service: str, secrets: CredentialSecrets, *, testnet: bool, user_id: UUID
    ) -> list[str]:
        key = secrets.key.get_secret_value()
        self.asked.append((f"{key}:{secrets.secret.get_secret_value()}", testnet))
        self.reached.set()
        await self.answering.wait()
        if self.broken:
            raise RuntimeError(f"GET https://venue/account?key={key}")
        if key in self.refused:
            raise CredentialRefused(service, "unknown key")
        return ["read", "trade"]


@dataclass(slots=True)
class FakeUsers:
    """What needs credentials: names by credential. *asked* hears of each that is asked about."""

    names: dict[UUID, list[str]] = field(default_factory=dict)
    asked: Callable[[UUID], None] = lambda _: None

    async def users_of(
        self, transaction: Transaction, user_id: UUID, credential_id: UUID
    ) -> list[str]:
        self.asked(credential_id)
        return self.names.get(credential_id, [])


def credential_of(user_id: UUID) -> Credential:
    """Return a credential of a user at the venue `fake`."""
    return Credential(
        id=uuid4(),
        user_id=user_id,
        service="fake",
        name="main",
        testnet=False,
        notes=None,
        key_hint="1234",
        created_at=NOW,
        updated_at=NOW,
        last_checked_at=None,
        version=1,
    )


def api_token_of(user_id: UUID) -> ApiToken:
    """Return an API token of a user that nobody can show."""
    return ApiToken(
        id=uuid4(),
        user_id=user_id,
        name="program",
        prefix=uuid4().hex[:12],
        scopes=frozenset({Scope.READ}),
        created_at=NOW,
        expires_at=NOW + timedelta(days=9),
        last_used_at=None,
        token_hash=bytes(32),
    )


async def session_of(identity: Identity, role: Role = Role.USER, **values: object) -> SignedIn:
    """Return a session of a user who was added just now, without a password."""
    user = await added(identity.accounts, role=role, **values)
    async with identity.accounts.transaction() as transaction:
        return await begin_session(identity, transaction, user, origin=Origin())


async def bearer_of(identity: Identity, role: Role = Role.USER) -> dict[str, str]:
    """Return the header of somebody of *role* who signed in just now."""
    session = await session_of(identity, role)
    return {"authorization": f"Bearer {session.access.text.get_secret_value()}"}


SIGNING_KEY = new_key()
"""What all stages sign by, as all processes of a server do."""
START_MS = 1_763_641_815_000
PASSWORD = SecretStr("correct horse battery")
ORIGIN = Origin("203.0.113.7", "request-1", "a browser")
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(slots=True)
class Stage:
    """An `Identity` whose clock, mail and venue a test controls."""

    identity: Identity
    clock: FixedClock
    mailbox: Mailbox
    venue: FakeVenue
    users: FakeUsers

    async def done(self) -> None:
        """Return when what was asked for is done, which may be after the answer."""
        await self.identity.errands.done()

    def later(self, seconds: float) -> None:
        self.clock.at += int(seconds * 1000)

    async def member(self, role: Role = Role.USER, **values: object) -> User:
        """Return a user whose password is `PASSWORD`."""
        hashed = CHEAP.hash(PASSWORD.get_secret_value())
        return await added(self.identity.accounts, role=role, password_hash=hashed, **values)

    async def login(self, user: User, *, code: str | None = None) -> SignedIn:
        return await login(self.identity, user.username, PASSWORD, code=code, origin=ORIGIN)

    async def principal(self, user: User) -> Principal:
        """Return *user*, signed in by a session of their own."""
        return await self.shown(await self.login(user))

    async def shown(self, signed_in: SignedIn) -> Principal:
        return await self.identity.authenticate(signed_in.access.text.get_secret_value())

    async def lines(self, user: User) -> list[tuple[str, str]]:
        """Return action and result of each line in the log of *user*, the oldest first."""
        async with self.identity.accounts.transaction() as transaction:
            page = await transaction.audit.page(first=100, user_id=user.id)
        return [(entry.action, entry.result) for entry in reversed(page)]


@asynccontextmanager
async def staged(
    accounts: Accounts, *, rules: Rules | None = None, clock: FixedClock | None = None
) -> AsyncIterator[Stage]:
    clock = clock or FixedClock(START_MS)
    mailbox, venue, users = Mailbox(), FakeVenue(), FakeUsers()
    identity = Identity(
        accounts,
        passwords=Passwords(hasher=CHEAP),
        tokens=JwtTokens([SIGNING_KEY], clock=clock),
        mailer=mailbox,
        clock=clock,
        rules=rules or Rules(),
        probe=venue,
        credential_users=[users],
    )
    async with Background().running(identity.errands.run(), name="errands"):
        try:
            yield Stage(identity, clock, mailbox, venue, users)
        finally:
            await identity.aclose()
