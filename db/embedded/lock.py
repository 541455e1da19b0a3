"""File locks that the kernel drops when their holder dies, however it dies.

The file stays open between attempts, so a directory that is deleted and made anew under the same
name is another lock: those who hold the old one keep dealing with each other only.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class FileLock:
    """A lock on the file at *path*, which is made if absent and never removed."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if that is possible at once, and say whether it was."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self) -> None:
        """Take the lock, and wait for whoever holds it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let others have the lock; it can be taken again."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the lock and close the file, for good."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def is_held(path: Path) -> bool:
    """Say whether somebody holds the lock at *path* exclusively; never if its folder is gone."""
    try:
        lock = FileLock(path)
    except FileNotFoundError:
        return False
    with lock:
        return not lock.try_acquire(shared=True)
