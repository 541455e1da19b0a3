"""Users of embedded servers in processes of their own, and what runs in a directory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).parents[3]
PATIENCE = 30.0  # seconds, thrice what is promised: a busy machine is no failure


@dataclass(frozen=True)
class Answered:
    """What a user process found."""

    postgres_url: str
    redis_url: str
    postmaster: int
    valkey: int


class User:
    """A process of its own that uses the servers of *directory*."""

    def __init__(self, directory: Path, *, packages: Path | None = None) -> None:
        paths = [*(() if packages is None else (str(packages),)), str(CHECKOUT), *sys.path]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("user.py")), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def answered(self) -> Answered:
        """Wait until both servers answered this user."""
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.stderr.read().decode())
        return Answered(**json.loads(line))

    def leave(self) -> None:
        """Let the user end as it should."""
        self.process.communicate(timeout=PATIENCE)


@dataclass(frozen=True)
class Running:
    """A process as it was seen, so that one that ends meanwhile does not disturb."""

    process: psutil.Process
    parent: int
    name: str
    folder: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Scratch:
    """A directory for servers and what runs in it."""

    directory: Path

    def keepers(self) -> list[psutil.Process]:
        """Return the keepers of this directory."""
        arguments = ("db.embedded.keeper", str(self.directory))
        running = _running(lambda name: name.lower().startswith("python"))
        return [found.process for found in running if found.arguments[-2:] == arguments]

    def servers(self) -> dict[int, str]:
        """Return each server of this directory by its id: postmasters and Valkeys, no children."""
        inside = self._inside()
        ids = {found.process.pid for found in inside}
        return {found.process.pid: found.name for found in inside if found.parent not in ids}

    def is_empty(self) -> bool:
        """Say whether no process of ours is left, children of servers included."""
        return not self._inside() and not self.keepers()

    def _inside(self) -> list[Running]:
        running = _running({"postgres", "initdb", "valkey-server"}.__contains__)
        return [found for found in running if found.folder.is_relative_to(self.directory)]


def _running(named: Callable[[str], bool]) -> list[Running]:
    seen = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # of other users, or ended
            # The name first: most processes are none of ours, and this is asked again and again.
            name = process.name()
            if named(name) and process.status() != psutil.STATUS_ZOMBIE:
                folder, arguments = Path(process.cwd()), tuple(process.cmdline())
                seen.append(Running(process, process.ppid(), name, folder, arguments))
    return seen


def eventually(condition: Callable[[], bool], *, within: float = PATIENCE) -> bool:
    """Look until *condition* holds; False if it does not in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
