"""Names of the servers' sockets that are short enough to connect to.

The address of a Unix socket holds about 100 bytes. The servers bind relative names, so any path
will do for them; where the path is too long for clients, a private folder in the temporary
directory, named by the hash of the long one, holds short names (symbolic links) of both sockets.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from db.embedded.errors import EmbeddedStartFailed
from db.embedded.layout import Layout
from db.embedded.postgres import SOCKET as POSTGRES_SOCKET
from db.embedded.valkey import SOCKET as VALKEY_SOCKET

LONGEST = 90  # bytes; the kernels' limits are 103 (macOS) and 107 (Linux)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where clients connect: PostgreSQL's wants its folder named, Valkey's the socket itself."""

    postgres_folder: Path
    valkey: Path


def sockets(layout: Layout) -> Sockets:
    """Return names that clients can use, making the folder of short ones where it is needed.

    Raises `EmbeddedStartFailed` if that folder is not ours alone.
    """
    postgres, valkey = layout.postgres / POSTGRES_SOCKET, layout.valkey / VALKEY_SOCKET
    # A PostgreSQL host is a list separated by commas, so a path with a comma cannot be written.
    if max(len(os.fsencode(postgres)), len(os.fsencode(valkey))) <= LONGEST and "," not in str(
        postgres
    ):
        return Sockets(layout.postgres, valkey)
    folder = _private_folder(layout)
    _link(folder / POSTGRES_SOCKET, postgres)
    _link(folder / VALKEY_SOCKET, valkey)
    return Sockets(folder, folder / VALKEY_SOCKET)


def remove_short_names(layout: Layout) -> None:
    """Remove what `sockets` made for *layout*, if anything. Only once nobody uses the servers."""
    folder = _folder_of_short_names(layout)
    # A folder that is not ours, or holds what is not ours, stays.
    with contextlib.suppress(OSError):
        for name in (POSTGRES_SOCKET, VALKEY_SOCKET):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _folder_of_short_names(layout: Layout) -> Path:
    name = hashlib.sha256(os.fsencode(layout.directory)).hexdigest()[:16]
    temporary = Path(tempfile.gettempdir())
    if len(os.fsencode(temporary)) + len(name) + 30 > LONGEST:
        temporary = Path("/tmp")  # noqa: S108 the folder below it is checked
    return temporary / f"bargraph-{os.geteuid()}-{name}"


def _private_folder(layout: Layout) -> Path:
    folder = _folder_of_short_names(layout)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or stat.S_IMODE(found.st_mode) & 0o077
    ):
        raise EmbeddedStartFailed(
            "servers",
            f"{folder} is not a folder that is ours alone (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):o}); remove it, or choose a DATA_DIR with a shorter "
            "path",
            log=layout.keeper_log,
        )
    return folder


def _link(name: Path, target: Path) -> None:
    if name.is_symlink() and name.readlink() == target:
        return
    draft = name.with_name(f"{name.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(name)
