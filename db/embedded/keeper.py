"""The process that owns both servers of a directory and ends them when nobody is left to use them.

    python -m db.embedded.keeper DIRECTORY

It is started by a user that holds the start lock. It ends what an earlier keeper left, then returns
with status 0 and leaves a process behind that holds the keeper's lock, belongs to no user and so
dies with none. That process has one thread: children die with the thread that started them.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from db.embedded import postgres, valkey
from db.embedded.account import Account, private_folder, server_account
from db.embedded.layout import Failure, Layout
from db.embedded.leftovers import end_leftovers
from db.embedded.lock import FileLock
from db.embedded.log import BoundedLog
from db.embedded.program import Program, spawn
from db.embedded.sockets import remove_short_names
from db.embedded.supervised import KeeperGaveUp, Supervised

POLL = 0.25  # seconds
STOP_PATIENCE = 4.0  # seconds from the last user's end to force; all of it is to take below 10
LOCK_PATIENCE = 5.0  # seconds; others hold the keeper's lock only to look whether it is held

logger = logging.getLogger("db.embedded.keeper")


class Keeper:
    """Owner of the two servers of *layout*."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._log = BoundedLog(layout.keeper_log)
        self._start_lock = FileLock(layout.start_lock)
        self._users_lock = FileLock(layout.users_lock)
        self._signal: signal.Signals | None = None
        self._unused = False
        self._servers: list[Supervised] = []

    def run(self) -> None:
        """Serve until nobody is left, or a signal says so. Raises `KeeperGaveUp`."""
        try:
            self._prepare()
            while not self._is_over():
                for server in self._servers:
                    server.tend()
                    server.trim_log()
                self._log.trim()
                time.sleep(POLL)
            if self._signal is not None:
                reason = f"it was told to stop by {self._signal.name}"
                raise KeeperGaveUp(Failure("keeper", reason, self._layout.keeper_log))
        finally:
            self._start_lock.try_acquire()  # who comes now waits until we are gone
            self._stop()

    def stop_soon(self, number: int, frame: FrameType | None) -> None:
        """Remember that the process was told to end; a signal handler."""
        self._signal = signal.Signals(number)

    def _prepare(self) -> None:
        layout = self._layout
        try:
            account = server_account(layout.postgres)
            self._prepare_folders(account)
            programs = (
                (postgres.program(layout, account), layout.postgres_log),
                (valkey.program(layout, account), layout.valkey_log),
            )
        except (OSError, LookupError) as error:
            raise KeeperGaveUp(Failure("servers", str(error), layout.keeper_log)) from error
        self._servers = [Supervised(program, BoundedLog(log)) for program, log in programs]
        for server in self._servers:
            server.start()

    def _prepare_folders(self, account: Account | None) -> None:
        private_folder(self._layout.valkey, account)
        postgres.create_cluster(self._layout, account, self._run_to_end)
        postgres.remove_stale_lock_files(self._layout.postgres)

    def _run_to_end(self, program: Program, commands: bytes) -> None:
        """Run *program* while somebody is waiting for it. Raises `KeeperGaveUp` if it fails."""
        log = BoundedLog(self._layout.postgres_log)
        output = log.open()
        try:
            process = spawn(program, output=output, stdin=subprocess.PIPE)
        finally:
            os.close(output)
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(commands)
        while process.poll() is None:
            if self._is_over():
                process.kill()
            time.sleep(0.02)
        if process.returncode != 0:
            name = Path(program.argv[0]).name
            reason = f"{name} ended with status {process.returncode}; it said: {log.tail()}"
            raise KeeperGaveUp(Failure(program.name, reason, log.path))

    def _is_over(self) -> bool:
        """Say whether to stop; once nobody is left, nobody can start before we are gone."""
        if self._unused or self._signal is not None:
            return True
        if not self._start_lock.try_acquire():
            return False  # somebody is starting, so somebody is about to be a user
        if self._users_lock.try_acquire():
            self._users_lock.release()
            self._unused = True
            return True
        self._start_lock.release()
        return False

    def _stop(self) -> None:
        deadline = time.monotonic() + STOP_PATIENCE
        for server in self._servers:
            server.request_stop()
        for server in self._servers:
            server.finish_stop(deadline)
        remove_short_names(self._layout)


def _end_leftovers(layout: Layout) -> None:
    """End what another keeper left behind, so that no user takes it for the new servers."""
    folders = (
        (layout.postgres, signal.SIGINT),
        (layout.postgres_staging, signal.SIGINT),
        (layout.valkey, signal.SIGTERM),
    )
    for folder, stop_signal in folders:
        if ended := end_leftovers(folder, stop_signal):
            logger.warning("ended %d processes left over in %s", ended, folder)


def _take(lock: FileLock) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def main(directory: str) -> int:
    """Become the keeper of *directory*; return the status to exit with."""
    layout = Layout(Path(directory).resolve(strict=True))
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s [%(process)d] %(message)s"
    )
    lock = FileLock(layout.keeper_lock)
    if not _take(lock):
        logger.error("another keeper has this directory")
        return 1
    layout.failure.unlink(missing_ok=True)
    _end_leftovers(layout)
    if os.fork() != 0:
        os._exit(0)  # the lock stays with the child
    os.chdir("/")
    keeper = Keeper(layout)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, keeper.stop_soon)
    try:
        keeper.run()
    except KeeperGaveUp as end:
        logger.error("gave up: %s", end)
        end.failure.write(layout.failure)
        return 1
    except Exception as bug:
        logger.exception("failed")
        Failure("keeper", repr(bug), layout.keeper_log).write(layout.failure)
        return 1
    logger.info("nobody is left; both servers are stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
