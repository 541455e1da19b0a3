"""Who the servers run as when Bargraph runs as root, and how that user reaches their binaries.

PostgreSQL refuses root. The servers get folders of their own inside a directory that only root can
enter: a process started inside its folder needs none of the folders above. Binaries are different,
the whole path to them must be open: where it is not, a copy is made in a place that is.
"""

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user."""

    uid: int
    gid: int


def server_account(cluster: Path) -> Account | None:
    """Return the user to become, None if we are not root and stay who we are.

    A cluster keeps its owner. A new one belongs to `bargraph` where that user exists, as in an
    image made for this, else to `nobody`. Raises `LookupError` if neither exists.
    """
    if os.geteuid() != 0:
        return None
    if cluster.is_dir() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("bargraph", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise LookupError("PostgreSQL does not run as root, and there is no user bargraph or nobody")


def private_folder(folder: Path, account: Account | None) -> None:
    """Make *folder* if it is absent; only *account* (None: who we are) and root can enter it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None and folder.stat().st_uid == 0:
        os.chown(folder, account.uid, account.gid)


def can_reach(path: Path, account: Account) -> bool:
    """Say whether *account* can read and enter *path* and everything above it."""
    path = path.resolve()
    return all(_is_open(step, account) for step in (path, *path.parents))


def _is_open(path: Path, account: Account) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        needed = stat.S_IXUSR
    elif found.st_gid == account.gid:
        needed = stat.S_IXGRP
    else:
        needed = stat.S_IXOTH
    return bool(found.st_mode & needed)


def reachable_root(
    root: Path,
    probe: Path,
    *,
    trees: Sequence[Path],
    account: Account | None,
    caches: Sequence[Path] = (Path("/var/cache"),),
) -> Path:
    """Return the folder below which *account* can use the binaries: *root* or that of a copy.

    *trees* are the folders they need, *probe* is one of the binaries, all relative to *root*. A
    copy is made once per installed version and belongs to root, in the first of *caches* and the
    temporary directory that can be used; it can be deleted while nothing runs. Raises `OSError` if
    no place can be used.
    """
    if account is None or can_reach(root / probe, account):
        return root
    found = (root / probe).stat()
    version = f"{(root / probe).resolve()} {found.st_size} {found.st_mtime_ns}"
    name = f"bargraph-servers-{hashlib.sha256(version.encode()).hexdigest()[:16]}"
    refusals: list[str] = []
    for cache in (*caches, Path(tempfile.gettempdir())):
        try:
            if can_reach(cache, account):
                return _copied(root, trees, cache / name)
            refusals.append(f"{cache} is closed to it")
        except OSError as refusal:
            refusals.append(str(refusal))
    raise OSError(
        f"uid {account.uid} can reach neither {root / probe} nor a copy: {'; '.join(refusals)}"
    )


def _copied(root: Path, trees: Sequence[Path], target: Path) -> Path:
    if not target.exists():
        draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
        try:
            for tree in trees:
                if (root / tree).is_dir():
                    shutil.copytree(root / tree, draft / tree, copy_function=_copy_open)
            for folder, _, _ in os.walk(draft):
                os.chmod(folder, 0o755)  # noqa: S103 another user is to read it
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            if not target.exists():  # else another process was first, with the same content
                raise
    found = target.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise PermissionError(f"{target} is not a folder that only root can write to")
    return target


def _copy_open(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    os.chmod(target, 0o755 if os.access(source, os.X_OK) else 0o644)
    return target
