"""The rows that were refused, in a CSV beside the work: line, reason and what stood there."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from datasources.files.reading import Refused

_HEADER = ("line", "reason", "row")


def report_path(folder: Path, path: Path) -> Path:
    """Return where in *folder* the report of the file at *path* belongs.

    Files of one name have reports of their own if they are not in the same place.
    """
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    return folder / f"{path.name}.{place}.refused.csv"


def still_there(path: Path, size: int) -> bool:
    """Return whether the report at *path* holds all of the *size* bytes that were written to it."""
    return not size or (path.is_file() and path.stat().st_size >= size)


class Report:
    """Writes refusals to the file at *path* as they come; without any there is no file.

    *size* is how long the report was when the work was interrupted that goes on now: what was
    written after that is written again. All of it has to be `still_there`.
    """

    def __init__(self, path: Path, *, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._stream: BinaryIO | None = None
        if not size:
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, refused: Iterable[Refused]) -> None:
        rows = [(one.line, one.reason, one.row) for one in refused]
        if not rows:
            return
        stream = self._stream or self._open()
        text = _Text()
        writer = csv.writer(text)
        if not self.size:
            writer.writerow(_HEADER)
        writer.writerows(rows)
        self.size += stream.write("".join(text.parts).encode("utf-8", "replace"))
        stream.flush()

    def _open(self) -> BinaryIO:
        self._stream = self.path.open("r+b" if self.size else "wb")
        self._stream.truncate(self.size)
        self._stream.seek(self.size)
        return self._stream


class _Text:
    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, part: str) -> None:
        self.parts.append(part)
