"""Random tokens: made, known again by their hash, and the refresh tokens that follow one another.

A token holds 256 random bits, so one round of SHA-256 hides it: there is nothing to guess.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256

from pydantic import SecretStr

LOOKUP_BYTES = 16
SECRET_BYTES = 32
_API, _REFRESH = "bgt", "bgr"
_PREFIX_DIGITS = 12
_API_SHAPE = re.compile(rf"{_API}_([a-z0-9]{{{_PREFIX_DIGITS}}})_([A-Za-z0-9_-]{{43}})")
_REFRESH_SHAPE = re.compile(rf"{_REFRESH}_([A-Za-z0-9_-]{{64}})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def digest_of(token: str) -> bytes:
    """Return what is stored of *token*: its SHA-256."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_token() -> SecretStr:
    """Return a random token for a mail or an invitation."""
    return SecretStr(secrets.token_urlsafe(SECRET_BYTES))


def new_api_token() -> tuple[str, SecretStr]:
    """Return how a new API token begins, by which it is found, and the token."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(_PREFIX_DIGITS))
    return prefix, SecretStr(f"{_API}_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}")


def api_prefix(token: str) -> str | None:
    """Return how an API token begins, None for what is no API token."""
    match = _API_SHAPE.fullmatch(token)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token: *lookup* finds its family, *secret* is its own."""

    lookup: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> RefreshToken:
        """Return the first token of a new family."""
        return cls(secrets.token_bytes(LOOKUP_BYTES), secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def read(cls, text: str) -> RefreshToken | None:
        """Return the token that *text* holds, None if it holds none."""
        match = _REFRESH_SHAPE.fullmatch(text)
        if match is None:
            return None
        try:
            both = base64.urlsafe_b64decode(match[1])
        except binascii.Error:  # pragma: no cover - 64 characters of the alphabet always decode
            return None
        return cls(both[:LOOKUP_BYTES], both[LOOKUP_BYTES:])

    @property
    def text(self) -> SecretStr:
        both = base64.urlsafe_b64encode(self.lookup + self.secret).decode()
        return SecretStr(f"{_REFRESH}_{both}")

    @property
    def digest(self) -> bytes:
        return sha256(self.secret).digest()

    def next(self, salt: bytes) -> RefreshToken:
        """Return the token that follows this one; *salt* is random and belongs to this step.

        The same two give the same token, so two tabs that refresh at once get one token between
        them. Neither of the two alone tells it.
        """
        return RefreshToken(self.lookup, hmac.digest(self.secret, salt, "sha256"))
