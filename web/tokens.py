"""Access tokens: JWTs signed by Ed25519, short-lived, that any process reads without a database.

The newest key signs, all keys verify, so that keys change without anybody being signed out. Which
algorithm verifies is never the token's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, NoReturn
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from market.clock import Clock
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.principal import AccessToken, Claims
from web.key_file import KeysAway

LIFETIME_MS = 600_000
_NAME = "bargraph"
_TYPE = "at+jwt"
_ALGORITHM = "EdDSA"
_LEEWAY_MS = 5_000
"""How far the clocks of two processes may differ."""
_LONGEST = 2_048
_REREAD_MS = 10_000
"""How long a key that was taken out may still count."""
_UNKNOWN_MS = 1_000
"""How often unknown key ids make us look for new keys at most."""
_REQUIRED = ["iss", "aud", "sub", "sid", "ver", "iat", "nbf", "exp"]
_LATEST = 253_402_300_799
"""The last second of the year 9999."""


class SigningKeys:
    """Private keys by their ids, the newest first, each 32 bytes; nothing of them shows."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("no key to sign with")
        private = [Ed25519PrivateKey.from_private_bytes(key) for key in keys]
        self.newest = private[0]
        self.public: Mapping[str, Ed25519PublicKey] = {
            _key_id(key.public_key()): key.public_key() for key in private
        }
        self.newest_id = next(iter(self.public))

    def __repr__(self) -> str:
        return f"SigningKeys({', '.join(self.public)})"

    def __getstate__(self) -> NoReturn:
        raise TypeError("keys stay in the process that was given them")


class JwtTokens:
    """Signs and reads access tokens; an `AccessTokens`.

    *reread* gives the keys anew, since a file of keys may change: every `_REREAD_MS`, and when a
    token names a key that is not known. Where it raises `KeysAway` those that were read last count.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        *,
        clock: Clock,
        lifetime_ms: int = LIFETIME_MS,
        reread: Callable[[], Sequence[bytes]] | None = None,
    ) -> None:
        self._keys = SigningKeys(keys)
        self._clock = clock
        self._lifetime_ms = lifetime_ms
        self._reread = reread
        self._looked_at = clock.now()
        self._missed_at = self._looked_at - _UNKNOWN_MS

    def sign(self, *, user_id: UUID, session_id: UUID, version: int) -> AccessToken:
        """Return a token for a session of a user, whose `token_version` is *version*."""
        self._look_now_and_then()
        now = self._clock.now()
        # Whole seconds in the token: what it says and what we say of it are the same.
        expires = (now + self._lifetime_ms) // 1000
        claims = {
            "iss": _NAME,
            "aud": _NAME,
            "sub": user_id.hex,
            "sid": session_id.hex,
            "ver": version,
            "iat": now // 1000,
            "nbf": now // 1000,
            "exp": expires,
        }
        text = jwt.encode(
            claims,
            self._keys.newest,
            algorithm=_ALGORITHM,
            headers={"kid": self._keys.newest_id, "typ": _TYPE},
        )
        return AccessToken(SecretStr(text), expires * 1000)

    def read(self, text: str) -> Claims:
        """Return what a token says. Raises `Unauthenticated` for any that does not count now."""
        try:
            return self._read(text)
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, AttributeError):
            # What it was is for nobody to know, and may quote the token.
            raise Unauthenticated from None

    def trusts(self, key_id: str) -> bool:
        """Whether tokens that this key signed count; one taken out of a file soon does not."""
        self._look_now_and_then()
        return key_id in self._keys.public

    def _read(self, text: str) -> Claims:
        if len(text) > _LONGEST or not text.isascii():
            raise Unauthenticated
        header = jwt.get_unverified_header(text)
        if header.get("typ") != _TYPE or header.get("alg") != _ALGORITHM:
            raise Unauthenticated
        claims: dict[str, Any] = jwt.decode(
            text,
            self._public_key(header["kid"]),
            algorithms=[_ALGORITHM],
            audience=_NAME,
            issuer=_NAME,
            # The library would ask the machine's clock; ours decides below.
            options={
                "require": _REQUIRED,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        now = self._clock.now()
        expires, begins, issued = (_seconds(claims[name]) for name in ("exp", "nbf", "iat"))
        if expires * 1000 <= now or max(begins, issued) * 1000 > now + _LEEWAY_MS:
            raise Unauthenticated
        version = claims["ver"]
        if not isinstance(version, int) or isinstance(version, bool):
            raise Unauthenticated
        return Claims(
            user_id=UUID(hex=claims["sub"]),
            session_id=UUID(hex=claims["sid"]),
            version=version,
            expires_at=expires * 1000,
            key_id=header["kid"],
        )

    def _public_key(self, key_id: str) -> Ed25519PublicKey:
        if not self.trusts(key_id):
            now = self._clock.now()
            if now - self._missed_at >= _UNKNOWN_MS:
                self._missed_at = now
                self._look()
        return self._keys.public[key_id]

    def _look_now_and_then(self) -> None:
        now = self._clock.now()
        if now - self._looked_at >= _REREAD_MS:
            self._looked_at = now
            self._look()

    def _look(self) -> None:
        """Read the keys anew. If they are away, which the log was told, nothing changes."""
        if self._reread is not None:
            with suppress(KeysAway):
                self._keys = SigningKeys(self._reread())


def _key_id(key: Ed25519PublicKey) -> str:
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LATEST:
        raise Unauthenticated
    return value
