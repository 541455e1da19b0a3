"""Start a server so that it dies with the process that started it."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from db.embedded.account import Account

_PR_SET_PDEATHSIG = 1

# Nothing of the application's environment reaches the servers: it holds secrets, and PG* variables.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where, as whom, and how to end it."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    account: Account | None
    stop_signal: signal.Signals
    orphan_signal: signal.Signals


def spawn(
    program: Program, *, output: int, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start *program* inside its folder, writing to the descriptor *output*.

    The folder is entered before the user is changed. The caller must have one thread only, and
    that thread must live as long as the program shall. Raises `OSError`.
    """
    account = program.account
    return subprocess.Popen(
        program.argv,
        cwd=program.folder,
        stdin=stdin,
        stdout=output,
        stderr=output,
        env=_ENVIRONMENT,
        umask=0o077,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        # Safe: the keeper has one thread.
        preexec_fn=_dying_with_parent(program.orphan_signal),  # noqa: PLW1509
    )


def _dying_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel send *number* when the parent dies; only Linux can."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        # Runs after the change of user, which would have undone it.
        if prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(1)

    return arrange
