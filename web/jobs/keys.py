"""The names of what jobs keep in Redis. All begin with the prefix of the settings."""

from __future__ import annotations


def ready_key(prefix: str, lane: str) -> str:
    """Return the stream of jobs that may run, those that do included."""
    return f"{prefix}jobs:{lane}:ready"


def later_key(prefix: str, lane: str) -> str:
    """Return the sorted set of jobs that wait for another try, by when it is due."""
    return f"{prefix}jobs:{lane}:later"


def dead_key(prefix: str) -> str:
    """Return the stream of jobs that were given up."""
    return f"{prefix}jobs:dead"


def unfinished_key(prefix: str, task: str, key: str) -> str:
    """Return where the job of *task* with the idempotency key *key* is noted until it ends."""
    return f"{prefix}jobs:key:{task}:{key}"


def workers_key(prefix: str) -> str:
    """Return the sorted set of live worker processes, by their last beat."""
    return f"{prefix}worker:all"
