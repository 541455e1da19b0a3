"""Why the embedded servers cannot be had, as named failures."""

from pathlib import Path

from market.errors import BargraphError


class EmbeddedStartFailed(BargraphError):
    """*server* could not be started; *log* is the file that says more."""

    code = "EMBEDDED_START_FAILED"

    def __init__(self, server: str, reason: str, *, log: Path) -> None:
        super().__init__(f"The embedded {server} did not start: {reason} (log: {log})")
        self.server = server
        self.reason = reason
        self.log = log


class ClusterVersionMismatch(EmbeddedStartFailed):
    """The database cluster on disk was made by another major version of PostgreSQL."""

    code = "EMBEDDED_VERSION_MISMATCH"

    def __init__(self, cluster: Path, *, found: str, expected: str, log: Path) -> None:
        super().__init__(
            "postgresql",
            f"{cluster} was made by PostgreSQL {found}, this is {expected}. Dump it with a "
            f"PostgreSQL {found} (pg_dumpall), move the folder away, start again and load the "
            "dump; or move the folder away and start empty; or name another DATA_DIR.",
            log=log,
        )
        self.cluster = cluster
        self.found = found
        self.expected = expected


class EmbeddedServersLost(BargraphError):
    """The keeper ended while its servers were in use: both are gone or about to go."""

    code = "EMBEDDED_SERVERS_LOST"

    def __init__(self, reason: str, *, log: Path) -> None:
        super().__init__(f"The embedded servers ended: {reason} (log: {log})")
        self.reason = reason
        self.log = log
