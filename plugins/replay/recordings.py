"""A folder of recordings, read once: what can be served, and which files were refused and why.

A file is called `{symbol}_{timeframe}[_{anything}].csv` or `.parquet`. The symbol ends before the
first part that is a timeframe with its unit (`1m`, never a bare `60`), because what follows may
look like one too (`stock_SPY_1d_5y` are five years of days).
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from market.errors import BargraphError, UnknownName
from market.timeframe import Timeframe
from plugins.replay import files
from plugins.replay.files import Unreadable
from plugins.replay.instruments import FILE as INSTRUMENTS
from plugins.replay.instruments import instrument_of, read_instruments
from plugins.replay.recording import Recording, recording_of

_LONGEST_SYMBOL = 64


class NoRecordings(BargraphError):
    """A folder that does not exist, cannot be read or holds nothing that can be served."""

    code = "NO_RECORDINGS"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that is not served. *line* counts from 1; of Parquet it is the row."""

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.reason}"


@dataclass(frozen=True, slots=True, eq=False)
class Recordings:
    """What a folder offers. *digest* changes with any byte of it; the folder's name is no part."""

    folder: str
    digest: str
    served: tuple[Recording, ...]
    refused: tuple[Refusal, ...]

    @property
    def newest_close(self) -> int:
        """When the newest bar of the folder closed: where its clock starts unless told."""
        return max(int(recording.closes[-1]) for recording in self.served)


async def load(folder: Path) -> Recordings:
    """Read *folder* in a thread.

    Raises `NoRecordings` where nothing can be served, `InvalidInstruments` for a wrong
    `instruments.json`.
    """
    return await asyncio.to_thread(read_folder, folder)


def read_folder(folder: Path) -> Recordings:
    """Read *folder*, as `load` does, here and now."""
    try:
        paths = sorted(path for path in folder.iterdir() if _is_recording(path))
    except OSError as error:
        raise NoRecordings(f"folder {folder.name!r}: {error.strerror or error}") from error
    said = read_instruments(folder)
    served: dict[tuple[str, Timeframe], Recording] = {}
    refused: list[Refusal] = []
    for path in paths:
        try:
            symbol, timeframe = parsed_name(path.stem)
            columns = files.read(path)
            found = recording_of(instrument_of(symbol, said.get(symbol)), timeframe, columns)
            before = served.get((symbol, timeframe))
            served[symbol, timeframe] = found if before is None else before.joined(found)
        except Unreadable as error:
            line = None if error.row is None else files.line_of(path, error.row)
            refused.append(Refusal(_shown(path), line, error.reason))
        except OSError as error:
            refused.append(Refusal(_shown(path), None, error.strerror or "it cannot be read"))
    symbols = {symbol for symbol, _ in served}
    refused += (
        Refusal(INSTRUMENTS, None, f"no recording is served for {symbol!r}")
        for symbol in said
        if symbol not in symbols
    )
    if not served:
        why = "; ".join(map(str, refused[:3])) or "it holds no .csv or .parquet file"
        raise NoRecordings(f"folder {folder.name!r}: nothing to replay ({why})")
    order = sorted(served, key=lambda key: (key[0], key[1].nominal))
    return Recordings(
        folder=folder.resolve().name,
        digest=_digest([*paths, folder / INSTRUMENTS]),
        served=tuple(served[key] for key in order),
        refused=tuple(refused),
    )


def parsed_name(stem: str) -> tuple[str, Timeframe]:
    """Return symbol and timeframe of a file called *stem*. Raises `Unreadable`."""
    parts = stem.split("_")
    for index, part in enumerate(parts[1:], start=1):
        symbol = "_".join(parts[:index])
        timeframe = _timeframe(part)
        if timeframe is None or not symbol:
            continue
        if len(symbol) > _LONGEST_SYMBOL or not symbol.isprintable() or " " in symbol:
            raise Unreadable(None, f"its symbol is not 1 to {_LONGEST_SYMBOL} visible characters")
        return symbol, timeframe
    raise Unreadable(None, "it is not named {symbol}_{timeframe}, like binance_BTCUSDT_1m")


def _timeframe(part: str) -> Timeframe | None:
    if part.isdigit():
        return None
    try:
        return Timeframe.parse(part)
    except UnknownName:
        return None


def _is_recording(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in files.SUFFIXES and not hidden and path.is_file()


def _shown(path: Path) -> str:
    """Return the file's name, printable and encodable whatever bytes it was made of."""
    return path.name.encode("utf-8", "replace").decode()


def _digest(paths: list[Path]) -> str:
    """Return a hash of names and contents; an unreadable file counts by its name."""
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            content = ""
        whole.update(f"{path.name}\0{content}\0".encode(errors="surrogateescape"))
    return whole.hexdigest()
