"""Keys in a file of their own, one a line in base64, the newest first; only its owner reads it."""

from __future__ import annotations

import logging
import math
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from db.embedded.lock import FileLock
from db.encryption import WeakKey, key_id_of, key_text, keys_in, new_key
from market.errors import BargraphError

log = logging.getLogger(__name__)

_MODE = 0o600


class KeyFileUnusable(BargraphError):
    """A file of keys that cannot be read, holds none, or is open to others than its owner."""

    code: ClassVar[str] = "KEY_FILE_UNUSABLE"


class KeyUnsettled(BargraphError):
    """The newest key is so new that what the one before encrypted may not be committed yet."""

    code: ClassVar[str] = "KEY_UNSETTLED"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "A server may still be writing under the key that was the newest before. "
            f"Run this again in {math.ceil(seconds)} s."
        )


class KeysAway(BargraphError):
    """Keys that were read at the start cannot be read now. Clients learn no more than that."""

    code: ClassVar[str] = "KEYS_AWAY"

    def __init__(self) -> None:
        super().__init__("The keys of the server cannot be read at the moment.")


def keys_of(path: Path) -> tuple[bytes, ...]:
    """Return the keys in *path*; a file with one new key is made where there is none.

    Of several processes that start at once one makes it, and all read the same. Raises
    `KeyFileUnusable`.
    """
    if not path.exists():
        _put_in_place(path, [new_key()], replace=False)
    return read_keys(path)


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys in *path*. Raises `KeyFileUnusable`."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileUnusable(f"{path} is open to others; make it readable by its owner only.")
        keys = keys_in(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnusable(f"{path} cannot be read ({type(error).__name__}).") from None
    except WeakKey as error:
        raise KeyFileUnusable(f"{path} cannot be used: {error}.") from None
    if not keys:
        raise KeyFileUnusable(f"{path} holds no key.")
    return keys


def reread_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys in *path* for a server that runs; the log says what is wrong with it.

    Raises `KeysAway`.
    """
    try:
        return read_keys(path)
    except KeyFileUnusable as error:
        log.error("%s", error)
        raise KeysAway from None


def add_key(path: Path) -> None:
    """Put a new key before the others in *path*. Raises `KeyFileUnusable`."""
    keys_of(path)
    with _changing(path):
        _put_in_place(path, [new_key(), *read_keys(path)], replace=True)


def drop_keys(
    path: Path, in_use: Collection[str], *, now: float, settled: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take keys out of *path* that are not the newest and whose names are not *in_use*.

    Return the names of those that are gone and of those that are left. Something may have been
    encrypted under the key that was the newest before and not be committed yet, where nobody counts
    it. So nothing is taken out until the newest key is *settled* seconds old at *now*, a time since
    the epoch. Raises `KeyFileUnusable`, `KeyUnsettled`.
    """
    with _changing(path):
        keys = read_keys(path)
        kept = [key for key in keys if key == keys[0] or key_id_of(key) in in_use]
        if len(kept) < len(keys):
            left = path.stat().st_mtime + settled - now
            if left > 0:
                raise KeyUnsettled(left)
            _put_in_place(path, kept, replace=True)
    gone = (key_id_of(key) for key in keys if key not in kept)
    return tuple(gone), tuple(key_id_of(key) for key in kept)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Let nobody else change *path*: of two who read it and write it, one would lose a key."""
    try:
        lock = FileLock(path.with_name(f"{path.name}.lock"))
    except OSError as error:
        raise KeyFileUnusable(f"{path} cannot be locked ({type(error).__name__}).") from None
    with lock:
        lock.acquire()
        yield


def _put_in_place(path: Path, keys: Sequence[bytes], *, replace: bool) -> None:
    """Write the whole file or nothing of it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with os.fdopen(written, "w", encoding="ascii") as file:
            file.writelines(f"{key_text(key)}\n" for key in keys)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            try:
                os.link(draft, path)
            except FileExistsError:
                return  # another process was first: its keys count
            finally:
                draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyFileUnusable(f"{path} cannot be written ({type(error).__name__}).") from None
