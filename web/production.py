"""What `ENV=production` does not start with: secrets that are absent or easy, open doors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from db.encryption import keys_in
from resolvers.identity.rules import Registration
from web.callers import is_loopback

if TYPE_CHECKING:
    from web.settings import Settings

_SHORTEST = 12
_EASY = ("password", "postgres", "bargraph", "changeme", "secret", "123456", "admin", "redis")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:@/\[\]]*))(?::\d*)?")
"""A name, an IPv4 address, or an IPv6 address in brackets; and perhaps a port."""


def insecurities(settings: Settings) -> Iterator[str]:
    """Yield what is not secure in *settings*, a line for each, without the secrets themselves.

    Each names what is to be set. Nothing is only warned of: nobody reads the log of a start that
    went well.
    """
    for name in ("database_url", "accounts_url", "redis_url"):
        url = getattr(settings, name)
        if url is not None and (why := _weakness(url.get_secret_value())):
            yield f"{name.upper()}=***: {why} in production."
    for origin in settings.allowed_origins or ():
        parts = urlsplit(origin)
        if parts.scheme != "https" and not _is_here(parts.hostname or ""):
            yield f"ALLOWED_ORIGINS={origin}: must be https:// in production."
    if not settings.rate_logins:
        yield "RATE_LOGINS=0: must be a limit in production."


def accounts_insecurities(settings: Settings) -> Iterator[str]:
    """Yield what else keeps whoever opens the accounts from starting."""
    for name in ("encryption_keys", "token_keys", "public_url"):
        if getattr(settings, name) is None:
            yield f"{name.upper()}: must be set in production."
    if settings.public_url is not None and not settings.public_url.startswith("https://"):
        # Cookies would travel for all to read, and so would what links in mails open.
        yield f"PUBLIC_URL={settings.public_url}: must be https:// in production."
    if settings.encryption_keys is not None and settings.token_keys is not None:
        sealing, signing = (
            set(keys_in(keys.get_secret_value()))
            for keys in (settings.encryption_keys, settings.token_keys)
        )
        if sealing & signing:
            yield "TOKEN_KEYS=***: must share no key with ENCRYPTION_KEYS in production."
    if settings.smtp_url is None and settings.registration is Registration.OPEN:
        yield (
            "SMTP_URL: must be set in production, or REGISTRATION be `invitation` or `closed`: "
            "nobody who registers could prove their address."
        )


def _weakness(url: str) -> str | None:
    """Return what is wrong with the password in *url*, None if it is good or none is needed."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    query = parse_qs(parts.query)
    # Drivers differ in which of them they take: all have to be here.
    named = ",".join([hosts, *query.get("host", [])])
    if all(_is_here(host) for host in named.split(",")):
        return None
    user, _, written = login.partition(":")
    password = unquote(written) or query.get("password", [""])[0]
    if not password:
        return "needs a password"
    easy = any(word in password.lower() for word in _EASY) and len(password) < 2 * _SHORTEST
    if len(password) < _SHORTEST or easy or unquote(user) == password:
        return f"needs a password of at least {_SHORTEST} characters that nobody guesses"
    return None


def _is_here(host: str) -> bool:
    """Whether *host* is this machine: a socket, which has no host, or a loopback address."""
    if host.startswith(("/", "@")) or is_loopback(host):
        return True
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    return name in {"", "localhost"} or is_loopback(name)
