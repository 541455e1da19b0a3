"""Wire accounts: their database and its schema, keys, mail, and what checks who asks.

A part of `web.bootstrap`, and all that the commands about accounts need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from db.accounts.accounts import Accounts
from db.accounts.engine import open_engine
from db.accounts.errors import AccountsUnavailable
from db.accounts.repositories.credentials import CredentialSecrets
from db.accounts.schema import MIGRATION_SECONDS, migrate_accounts, verify_accounts
from db.encryption import KeyRing, keys_in
from market.clock import Clock
from market.errors import UnknownName
from resolvers.audit import forget_old
from resolvers.identity.housekeeping import EVERY_SECONDS, prune
from resolvers.identity.identity import CredentialProbe, CredentialUsers, Identity
from resolvers.identity.passwords import Passwords
from resolvers.identity.rules import Rules
from web.background import Background
from web.key_file import keys_of, reread_keys
from web.mail import Delivery, FolderDelivery, Post, SmtpDelivery
from web.production import accounts_insecurities
from web.settings import Settings, WrongSettings
from web.tokens import JwtTokens

log = logging.getLogger(__name__)

ENCRYPTION_FILE = "encryption.keys"
TOKEN_FILE = "token.keys"  # noqa: S105 - the name of a file
_MAIL_FOLDER = "mail"
_MAIL_SECONDS = 5.0
"""How long mails on their way may keep a process from ending."""
_ERRAND_SECONDS = 5.0
"""How long what was asked for may."""


@dataclass(frozen=True, slots=True)
class AccountsParts:
    """What of accounts is in this process."""

    identity: Identity
    engine: AsyncEngine
    ring: KeyRing


class NoVenues:
    """A `CredentialProbe` that knows no venue: no credential can be added."""

    @property
    def services(self) -> Collection[str]:
        return ()

    async def probe(
        self, service: str, secrets: CredentialSecrets, *, testnet: bool, user_id: UUID
    ) -> Sequence[str]:
        raise UnknownName("service", service, field="service")


@asynccontextmanager
async def open_accounts(
    settings: Settings,
    candles_url: str,
    *,
    clock: Clock,
    background: Background,
    probe: CredentialProbe,
    credential_users: Sequence[CredentialUsers] = (),
) -> AsyncIterator[AccountsParts]:
    """Yield accounts over the database of the settings, by default that of *candles_url*.

    The database is migrated first; one process does it, others wait. Raises `WrongSettings`,
    `KeyFileUnusable`, `SchemaNewer`, `SeedDiffers`, `AccountsUnavailable`, `WrongServer`.
    """
    _check_production(settings)
    ring = key_ring(settings)
    keys, reread = _keys(settings.token_keys, settings.data_dir / TOKEN_FILE)
    tokens = JwtTokens(keys, clock=clock, reread=reread)
    async with AsyncExitStack() as stack:
        url = accounts_url(settings, candles_url)
        async with open_engine(
            url, connections=1, statement_timeout=MIGRATION_SECONDS
        ) as migrating:
            await migrate_accounts(migrating)
        engine = await stack.enter_async_context(
            open_engine(
                url,
                connections=settings.accounts_pool,
                statement_timeout=settings.statement_timeout,
            )
        )
        await verify_accounts(engine)
        post = Post(_delivery(settings), sender=settings.mail_from, clock=clock)
        identity = Identity(
            Accounts(engine, ring),
            passwords=Passwords(at_once=settings.password_hashes),
            tokens=tokens,
            mailer=post,
            clock=clock,
            rules=Rules(registration=settings.registration, public_url=_public_url(settings)),
            probe=probe,
            credential_users=credential_users,
        )
        stack.push_async_callback(identity.aclose)
        days = settings.audit_retention
        kept = timedelta(days=days) if days is not None else None
        await stack.enter_async_context(
            background.running(_keep_house(identity, kept), name="accounts")
        )
        await stack.enter_async_context(background.running(post.run(), name="mail"))
        stack.push_async_callback(post.drain, _MAIL_SECONDS)
        await stack.enter_async_context(
            background.running(identity.errands.run(), name="errands of accounts")
        )
        # Before the mails: some of them are written by errands.
        stack.push_async_callback(identity.errands.drain, _ERRAND_SECONDS)
        yield AccountsParts(identity, engine, ring)


def accounts_url(settings: Settings, candles_url: str) -> str:
    """Return where accounts are: where the settings say, else beside the candles."""
    if settings.accounts_url is not None:
        return settings.accounts_url.get_secret_value()
    return candles_url


def key_ring(settings: Settings) -> KeyRing:
    """Return the keys that credentials are encrypted under. Raises `KeyFileUnusable`."""
    keys, reread = _keys(settings.encryption_keys, settings.data_dir / ENCRYPTION_FILE)
    return KeyRing(keys, reread=reread)


def _keys(
    setting: SecretStr | None, path: Path
) -> tuple[Sequence[bytes], Callable[[], Sequence[bytes]] | None]:
    """Return keys, and what reads them anew where they are in a file."""
    if setting is not None:
        return keys_in(setting.get_secret_value()), None
    return keys_of(path), partial(reread_keys, path)


def _check_production(settings: Settings) -> None:
    if settings.in_production and (lines := list(accounts_insecurities(settings))):
        raise WrongSettings("\n".join(lines))


def _delivery(settings: Settings) -> Delivery:
    if settings.smtp_url is not None:
        return SmtpDelivery(settings.smtp_url)
    return FolderDelivery(settings.data_dir / _MAIL_FOLDER)


def _public_url(settings: Settings) -> str:
    if settings.public_url is not None:
        return settings.public_url
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


async def _keep_house(identity: Identity, audit_kept: timedelta | None) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await prune(identity)
            if audit_kept is not None and (removed := await forget_old(identity, audit_kept)):
                log.info("Lines of the audit log that were too old, and removed: %d", removed)
        except AccountsUnavailable as error:
            log.warning("What is over stays for another hour: %s", error)
