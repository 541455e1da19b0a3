"""What the commands share: how they are registered, what they say on the terminal, how many."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any, Protocol

_MOST_PROCESSES = 64
CHATTY = (
    "alembic",
    "asyncio",
    "ccxt",
    "sqlalchemy",
    "taskiq",
    "urllib3",
    "uvicorn",
    "websockets",
)
"""Libraries that are heard from `warning` on only, whatever the level is."""


class Commands(Protocol):
    """Where a command adds its parser; argparse has no public name for it."""

    def add_parser(self, name: str, **keywords: Any) -> argparse.ArgumentParser: ...


def count(text: str) -> int:
    """Return a number of processes; for argparse."""
    number = int(text)
    if not 1 <= number <= _MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_MOST_PROCESSES}")
    return number


def log_to_terminal(level: str) -> None:
    """Log what is of *level* or worse."""
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Some of them would quote what clients send, what venues are sent, or what rows hold.
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
