"""Read the messages of jobs, as taskiq writes them."""

from __future__ import annotations

from taskiq.message import TaskiqMessage


def parsed(message: bytes) -> TaskiqMessage | None:
    """Return what *message* says, None if it is no message."""
    try:
        return TaskiqMessage.model_validate_json(message)
    except ValueError:
        return None
