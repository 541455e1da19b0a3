"""The two ways to start the server as a process of its own, and what is left when it has ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.db.embedded.processes import CHECKOUT, PATIENCE, Scratch, eventually
from web.settings import Settings

SERVE = (sys.executable, "-m", "web", "serve", "--stop-with-parent")
# The recipe itself, with this Python and without looking whether something is to be installed.
MAKE_RUN = (
    "make",
    "--directory",
    str(CHECKOUT),
    "--no-print-directory",
    f"BIN={Path(sys.executable).parent}",
    *(f"--old-file={made}" for made in (".venv/run.stamp", "frontend/dist/graphiql.html")),
    "run",
)


def environment(**settings: object) -> dict[str, str]:
    """Return ours without any setting of Bargraph or make, and with *settings*."""
    ours = {name.upper() for name in Settings.model_fields}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in ours and not name.startswith(("MAKE", "MFLAGS"))
    }
    given = {name.upper(): str(value) for name, value in settings.items()}
    return {**kept, "PYTHONPATH": str(CHECKOUT), "PORT": "0", "CCXT_EXCHANGES": "", **given}


def refused(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected not to start, and return how it ended."""
    return subprocess.run(
        SERVE,
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@dataclass
class Serving:
    """A server that answers, in a session of its own."""

    process: subprocess.Popen[str]
    banner: list[str]
    tree: Sequence[psutil.Process]

    @property
    def url(self) -> str:
        """Where it says that it serves, without a path."""
        return re.fullmatch(r"Bargraph serves (http://\S+)/graphql", self.banner[0])[1]

    def query(self, query: str, *, timeout: float = PATIENCE) -> dict:
        """Return the answer to *query*."""
        answer = httpx.post(f"{self.url}/graphql", json={"query": query}, timeout=timeout)
        return answer.json()

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to what was started, or like a terminal to all that it started in turn."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait until it has ended, and return its status and what it said on stderr."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    def is_gone(self) -> bool:
        """Say whether nothing runs any more of what it had started, but for servers it shares."""
        return not any(_runs(process) for process in self.tree)


def start(
    folder: Path, command: Sequence[str] = SERVE, **settings: object
) -> subprocess.Popen[str]:
    """Start a server in *folder*, where a `.env` would be read."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def serving(process: subprocess.Popen[str]) -> Serving:
    """Wait until the server says what it serves."""
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("Try "):
            known = psutil.Process(process.pid)
            return Serving(process, lines, [known, *known.children(recursive=True)])
    raise AssertionError(f"it ended with {process.wait()}: {process.stderr.read()}")


def command_to_try(served: Serving) -> str:
    """Return the command that the last line proposes."""
    return served.banner[-1].removeprefix("Try").strip()


def nothing_is_left(scratch: Scratch, served: Serving) -> bool:
    """Wait until neither the server nor the embedded ones run any more."""
    return eventually(lambda: served.is_gone() and scratch.is_empty())


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
