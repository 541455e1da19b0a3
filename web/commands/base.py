"""What the commands share: how they are registered, what they say on the terminal, how many."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from resolvers.identity.principal import Origin
    from web.settings import Settings

_MOST_PROCESSES = 64


class Commands(Protocol):
    """Where a command adds its parser; argparse has no public name for it."""

    def add_parser(self, name: str, **keywords: Any) -> argparse.ArgumentParser: ...


def count(text: str) -> int:
    """Return a number of processes; for argparse."""
    number = int(text)
    if not 1 <= number <= _MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_MOST_PROCESSES}")
    return number


def log_to_terminal(settings: Settings, *, quiet: bool = False) -> None:
    """Log to standard error as *settings* say; *quiet* is for commands that talk to people."""
    from web.logs import log_to_stderr  # noqa: PLC0415 - the schema is printed without

    log_to_stderr(settings, quiet=quiet)


def command_origin() -> Origin:
    """Return where the audit log says that a command came from: an id, which the log has too."""
    from resolvers.identity.principal import Origin  # noqa: PLC0415
    from web.request_ids import begin_request  # noqa: PLC0415

    return Origin(request_id=begin_request())
