"""Log files that several processes append to and that stay short."""

import os
import shutil
from pathlib import Path

LIMIT = 4 * 1024 * 1024


class BoundedLog:
    """The file at *path*, at most about *limit* bytes, beside one older of the same length."""

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        self.path = path
        self._limit = limit

    def open(self) -> int:
        """Return a descriptor that appends; the caller closes it."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path, flags, 0o600)

    def trim(self) -> None:
        """Set the older file to what is there and begin anew, once the limit is passed.

        Writers keep their descriptors: they append, so emptying the file under them is safe. What
        they write between the copy and the cut is lost.
        """
        try:
            if self.path.stat().st_size <= self._limit:
                return
            older = self.path.with_suffix(".log.1")
            older.unlink(missing_ok=True)
            shutil.copyfile(self.path, older)
            os.truncate(self.path, 0)
        except FileNotFoundError:
            return  # somebody deleted it; the open descriptors keep the old file

    def tail(self, lines: int = 3) -> str:
        """Return the last *lines*, joined by ` | `, or nothing if there are none."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - 4096))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())
