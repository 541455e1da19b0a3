"""Locks and logs by themselves."""

import os

from db.embedded.lock import FileLock, is_held
from db.embedded.log import BoundedLog


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    path = tmp_path / "lock"

    with FileLock(path) as holder, FileLock(path) as other:
        assert holder.try_acquire()
        assert not other.try_acquire(shared=True)
        assert is_held(path)
    assert not is_held(path)


def test_users_share_a_lock_that_the_keeper_then_cannot_have(tmp_path):
    path = tmp_path / "lock"

    with FileLock(path) as first, FileLock(path) as second, FileLock(path) as keeper:
        assert first.try_acquire(shared=True)
        assert second.try_acquire(shared=True)
        first.release()
        assert not keeper.try_acquire()
        second.release()
        assert keeper.try_acquire()


def test_a_log_stays_short_while_its_writers_keep_it_open(tmp_path):
    log = BoundedLog(tmp_path / "server.log", limit=1000)
    writer = log.open()

    for number in range(100):
        os.write(writer, f"line {number} {'x' * 40}\n".encode())
        log.trim()
    os.close(writer)

    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["server.log", "server.log.1"]
    assert all(file.stat().st_size <= 1100 for file in files)
    assert log.tail(1) == f"line 99 {'x' * 40}"
