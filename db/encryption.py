"""Encryption at rest in envelopes: each row has a data key, wrapped by a key of the server.

AES-256-GCM throughout. What is encrypted is bound to the user, the row and the field it belongs to,
so that ciphertext copied to another row does not open. Keys of the server are 32 random bytes; the
newest wraps, the others still open what they wrapped. A key is named by a digest of itself.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import ClassVar, NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from market.errors import BargraphError

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"
_FEWEST_DIFFERENT = 16
"""A random key of 32 bytes has fewer different ones about once in 10**11."""


class WeakKey(BargraphError):
    """A key of the server that is not 32 random bytes in base64. The message never shows it."""

    code: ClassVar[str] = "WEAK_KEY"


class Unopenable(Exception):
    """A row that does not open, for a reason that *code* names.

    No `BargraphError`: a client can do nothing about it and is told nothing, the log has to tell
    whoever looks after the server. The message names the row, and nothing of what is in it.
    """

    code: ClassVar[str]


class UnknownEncryptionKey(Unopenable):
    """A row encrypted under a key that this process was not given; *key_id* names it."""

    code: ClassVar[str] = "UNKNOWN_ENCRYPTION_KEY"

    def __init__(self, key_id: str, *, row: UUID) -> None:
        super().__init__(f"Row {row} is encrypted under the key {key_id}, which is not given.")
        self.key_id = key_id


class SealBroken(Unopenable):
    """Ciphertext that was changed, or belongs to another row."""

    code: ClassVar[str] = "SEAL_BROKEN"

    def __init__(self, row: UUID) -> None:
        super().__init__(f"What row {row} holds encrypted was changed, or belongs to another row.")


def new_key() -> bytes:
    """Return a new random key of the server."""
    return secrets.token_bytes(KEY_BYTES)


def key_text(key: bytes) -> str:
    """Return *key* as it is written into a setting or a file."""
    return base64.urlsafe_b64encode(key).decode()


def key_id_of(key: bytes) -> str:
    """Return the name of *key*: 16 hexadecimal digits, from which nothing of it can be told."""
    return sha256(b"bargraph key id\x00" + key).hexdigest()[:16]


def keys_in(text: str) -> tuple[bytes, ...]:
    """Return the keys that *text* lists, in base64, separated by commas or white space.

    Raises `WeakKey`.
    """
    keys: list[bytes] = []
    for number, part in enumerate(text.replace(",", " ").split(), start=1):
        try:
            key = base64.b64decode(part.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raise WeakKey(f"key {number} is not base64") from None
        if len(key) != KEY_BYTES:
            raise WeakKey(f"key {number} has {len(key)} bytes instead of {KEY_BYTES}")
        if len(set(key)) < _FEWEST_DIFFERENT:
            raise WeakKey(f"key {number} is not random")
        keys.append(key)
    if len(set(keys)) != len(keys):
        raise WeakKey("a key is listed twice")
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key encrypted under the key of the server that *key_id* names."""

    key_id: str
    data_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """Fields of one row, encrypted under its data key."""

    wrapped: Wrapped
    fields: Mapping[str, bytes] = field(repr=False)


class KeyRing:
    """The keys of the server, the newest first.

    *reread* gives the keys anew, since keys in a file are added to while the server runs. Nothing
    of the keys shows, and a ring cannot be pickled.
    """

    def __init__(
        self, keys: Sequence[bytes], *, reread: Callable[[], Sequence[bytes]] | None = None
    ) -> None:
        self._reread = reread
        self._take(keys)

    def _take(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise WeakKey("no key is given")
        self._keys = {key_id_of(key): AESGCM(key) for key in keys}
        self.newest = next(iter(self._keys))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def __getstate__(self) -> NoReturn:
        raise TypeError("keys stay in the process that was given them")

    def seal(self, fields: Mapping[str, SecretStr], *, owner: UUID, row: UUID) -> Sealed:
        """Encrypt *fields* of the row *row* of the user *owner* under a new data key.

        Keys in a file are read again before, so that nothing new goes under an old key.
        """
        if self._reread is not None:
            self._take(self._reread())
        data_key = new_key()
        cipher = AESGCM(data_key)
        return Sealed(
            self._wrap(data_key, owner, row),
            {
                name: _encrypt(cipher, value.get_secret_value().encode(), _bound(owner, row, name))
                for name, value in fields.items()
            },
        )

    def open(self, sealed: Sealed, *, owner: UUID, row: UUID) -> dict[str, SecretStr]:
        """Return the fields of a row. Raises `SealBroken`, `UnknownEncryptionKey`."""
        cipher = AESGCM(self._unwrap(sealed.wrapped, owner, row))
        opened: dict[str, SecretStr] = {}
        for name, sealed_field in sealed.fields.items():
            plain = _decrypt(cipher, sealed_field, _bound(owner, row, name))
            if plain is None:
                raise SealBroken(row)
            opened[name] = SecretStr(plain.decode())
        return opened

    def rewrap(self, wrapped: Wrapped, *, owner: UUID, row: UUID) -> Wrapped:
        """Return the same data key under the newest key. Raises what `open` raises."""
        return self._wrap(self._unwrap(wrapped, owner, row), owner, row)

    def _wrap(self, data_key: bytes, owner: UUID, row: UUID) -> Wrapped:
        bound = _bound(owner, row, f"data key under {self.newest}")
        return Wrapped(self.newest, _encrypt(self._keys[self.newest], data_key, bound))

    def _unwrap(self, wrapped: Wrapped, owner: UUID, row: UUID) -> bytes:
        if wrapped.key_id not in self._keys and self._reread is not None:
            self._take(self._reread())
        cipher = self._keys.get(wrapped.key_id)
        if cipher is None:
            raise UnknownEncryptionKey(wrapped.key_id, row=row)
        bound = _bound(owner, row, f"data key under {wrapped.key_id}")
        data_key = _decrypt(cipher, wrapped.data_key, bound)
        if data_key is None:
            raise SealBroken(row)
        return data_key


def _bound(owner: UUID, row: UUID, name: str) -> bytes:
    return b"bargraph\x00" + owner.bytes + row.bytes + name.encode()


def _encrypt(cipher: AESGCM, plain: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _FORMAT + nonce + cipher.encrypt(nonce, plain, bound)


def _decrypt(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes | None:
    """Return what *sealed* holds, None if it was changed or bound to something else."""
    if sealed[:1] != _FORMAT:
        return None
    nonce = sealed[1 : 1 + _NONCE_BYTES]
    try:
        return cipher.decrypt(nonce, sealed[1 + _NONCE_BYTES :], bound)
    except (InvalidTag, ValueError):
        return None
