"""Passwords: hashed by Argon2id in threads of their own, a bounded number at a time."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

from resolvers.identity.failures import TooBusy, WeakPassword

T = TypeVar("T")

SHORTEST = 10
LONGEST = 200
"""Characters. Longer ones are refused before any work is done."""
_MOST_WAITING = 100
_RETRY_SECONDS = 2.0


class Passwords:
    """Argon2id with the parameters of *hasher*, *at_once* at a time.

    One hash takes 64 MiB and about a seventh of a second of one core by default (RFC 9106's
    second choice, on one lane). *hashed* counts the hashes computed, for tests and metrics.
    """

    def __init__(
        self,
        *,
        at_once: int = 2,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="argon2")
        self._waiting = 0
        self.hashed = 0

    def close(self) -> None:
        """Compute no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: SecretStr) -> str:
        """Return the hash of *password*. Raises `TooBusy`."""
        return await self._computed(lambda: self._hasher.hash(_plain(password)))

    async def verify(self, stored: str | None, password: SecretStr) -> bool:
        """Return whether *password* is the one whose hash is *stored*.

        Without a stored hash, that of a user who does not exist, the same work is done. Raises
        `TooBusy`.
        """
        if stored is None:
            await self.hash(password)
            return False

        def verified() -> bool:
            try:
                return self._hasher.verify(stored, _plain(password))
            except (VerificationError, InvalidHashError):
                return False

        return await self._computed(verified)

    def is_outdated(self, stored: str) -> bool:
        """Return whether *stored* was computed with other parameters than those of today."""
        return self._hasher.check_needs_rehash(stored)

    async def _computed(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MOST_WAITING:
            raise TooBusy(retry_after=_RETRY_SECONDS)
        self._waiting += 1
        self.hashed += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Also when whoever waited has left: the thread works on.
        future.add_done_callback(self._done)
        return await future

    def _done(self, future: asyncio.Future[T]) -> None:
        self._waiting -= 1


def checked_password(password: SecretStr, *, field: str, names: tuple[str, ...] = ()) -> None:
    """Return if *password* may be somebody's; *names* are what it must not be.

    Raises `WeakPassword`, which never quotes it.
    """
    checked_length(password, field=field)
    plain = _plain(password)
    if len(plain) < SHORTEST:
        raise WeakPassword(f"A password has at least {SHORTEST} characters.", field=field)
    if plain.casefold() in {name.casefold() for name in names}:
        raise WeakPassword("A password is not one's own name.", field=field)
    if len(set(plain)) < 4:
        raise WeakPassword("A password has at least 4 different characters.", field=field)


def checked_length(password: SecretStr, *, field: str) -> None:
    """Return if *password* is short enough to be hashed. Raises `WeakPassword`."""
    plain = password.get_secret_value()
    if len(plain) > LONGEST:
        raise WeakPassword(f"A password has at most {LONGEST} characters.", field=field)
    if any("\ud800" <= character <= "\udfff" for character in plain):
        raise WeakPassword("A password consists of whole characters.", field=field)


def _plain(password: SecretStr) -> str:
    # Keyboards differ in how they write one and the same character.
    return unicodedata.normalize("NFKC", password.get_secret_value())
