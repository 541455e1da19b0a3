"""Find and end servers that outlived their keeper.

A server is known by its executable's name and the folder it works in, never by a process id in a
file alone: ids are used again.
"""

import contextlib
import signal
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it brings no types

_EXECUTABLES = frozenset({"postgres", "initdb", "valkey-server"})


def leftovers(folder: Path) -> list[psutil.Process]:
    """Return the servers, and processes of servers, that work in *folder*."""
    found = []
    for process in psutil.process_iter():
        # Processes that end meanwhile, and those of other users, are not ours.
        with contextlib.suppress(psutil.Error):
            if Path(process.exe()).name in _EXECUTABLES and process.cwd() == str(folder):
                found.append(process)
    return found


def end_leftovers(folder: Path, stop_signal: signal.Signals, *, patience: float = 5) -> int:
    """End what works in *folder*, by force after *patience* seconds, and say how many these were.

    Only the holder of the keeper's lock may call this.
    """
    found = leftovers(folder)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(stop_signal)
    _, alive = psutil.wait_procs(found, timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=2)
    return len(found)
