"""Keep one server running: start it, start it again when it dies, stop it."""

import logging
import os
import subprocess
import time
from collections import deque

from db.embedded.layout import Failure
from db.embedded.leftovers import end_leftovers
from db.embedded.log import BoundedLog
from db.embedded.program import Program, spawn

RESTARTS = 5
RESTART_WINDOW = 60.0  # seconds
FIRST_DELAY = 0.05  # seconds; doubles with each restart in the window

logger = logging.getLogger(__name__)


class KeeperGaveUp(Exception):
    """A server cannot be kept running; *failure* says which and why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.server}: {failure.reason}")
        self.failure = failure


class Supervised:
    """One server, a child of this process.

    A server that dies is started again, as an init system would: what both keep survives a kill,
    and users that lost a connection make another. One that keeps dying is given up.
    """

    def __init__(self, program: Program, log: BoundedLog) -> None:
        self.name = program.name
        self._program = program
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts: deque[float] = deque(maxlen=RESTARTS)
        self._start_at: float | None = None

    def start(self) -> None:
        """Start the server. Raises `KeeperGaveUp` if it cannot even be executed."""
        self._start_at = None
        output = self._log.open()
        try:
            self._process = spawn(self._program, output=output)
        except (OSError, subprocess.SubprocessError) as error:
            raise self._gave_up(str(error)) from error
        finally:
            os.close(output)
        logger.info("%s started, process %d", self.name, self._process.pid)

    def tend(self) -> None:
        """Start the server again if it died, after a pause that grows. To be called often.

        Raises `KeeperGaveUp` when it died too often.
        """
        now = time.monotonic()
        if self._start_at is not None:
            if now >= self._start_at:
                self.start()
            return
        if self._process is None or (status := self._process.poll()) is None:
            return
        while self._restarts and now - self._restarts[0] > RESTART_WINDOW:
            self._restarts.popleft()
        if len(self._restarts) == RESTARTS:
            raise self._gave_up(f"it ended {RESTARTS + 1} times in {RESTART_WINDOW:.0f} s")
        delay = FIRST_DELAY * 2 ** len(self._restarts)
        self._restarts.append(now)
        logger.warning("%s %s; starting it again in %.2f s", self.name, _ended(status), delay)
        end_leftovers(self._program.folder, self._program.stop_signal, patience=1)
        self._start_at = now + delay

    def request_stop(self) -> None:
        """Ask the server to stop, without waiting for it."""
        self._start_at = None
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._program.stop_signal)

    def finish_stop(self, deadline: float) -> None:
        """Wait until the server has stopped; kill it at *deadline* (monotonic seconds)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning("%s did not stop in time and is killed", self.name)
            self._process.kill()
            self._process.wait()
            end_leftovers(self._program.folder, self._program.stop_signal, patience=0)
        logger.info("%s %s", self.name, _ended(self._process.returncode))

    def trim_log(self) -> None:
        """Keep the server's log within its bounds."""
        self._log.trim()

    def _gave_up(self, reason: str) -> KeeperGaveUp:
        said = self._log.tail()
        full = f"{reason}; it said: {said}" if said else reason
        return KeeperGaveUp(Failure(self.name, full, self._log.path))


def _ended(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
