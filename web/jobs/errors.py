"""Why a job could not be queued, or was given up."""

from __future__ import annotations

from market.errors import BargraphError


class JobsFull(BargraphError):
    """As many jobs wait as may."""

    code = "JOBS_FULL"

    def __init__(self, lane: str, limit: int) -> None:
        super().__init__(f"{limit} {lane} jobs wait already")
        self.lane = lane
        self.limit = limit


class UnknownTask(BargraphError):
    """No task of this process has that name."""

    code = "UNKNOWN_TASK"


class WorkerDied(BargraphError):
    """Each process that tried the job ended in the middle of it."""

    code = "WORKER_DIED"


class JobInterrupted(BargraphError):
    """The job ended without a result, although nobody had told it to."""

    code = "JOB_INTERRUPTED"
