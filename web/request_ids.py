"""The id of the request that is worked on: made here, and carried by its answer, log and audit.

It travels with the context of tasks. Work that several requests share carries the id of the one
that began it.
"""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

LONGEST = 64
_TOLD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.:+/=-]{0,63}")
_BITS = 96
# It labels lines and opens nothing, so it need not be hard to guess: what is, costs twice as much.
_random = random.Random()  # noqa: S311
_current: ContextVar[str | None] = ContextVar("request_id", default=None)
_told: ContextVar[str | None] = ContextVar("client_request_id", default=None)


def current_request_id() -> str | None:
    """Return the id of the request that is worked on, None outside of any."""
    return _current.get()


def client_request_id() -> str | None:
    """Return what the client calls its request; it may be anything that is short and plain."""
    return _told.get()


def begin_request(told: bytes | None = None) -> str:
    """Return a new id, that of the task's request from now on. *told* is what its client calls it.

    What is told never becomes the id: two requests could have the same, and an audit log would
    say what its reader's adversary wanted.
    """
    made = f"{_random.getrandbits(_BITS):024x}"
    _current.set(made)
    if told is not None:
        _told.set(told.decode("ascii") if _TOLD.fullmatch(told) else None)
    elif _told.get() is not None:  # of the request before, on the same connection
        _told.set(None)
    return made


def begin_operation(number: int) -> str:
    """Return a new id, that of operation *number* of the task's connection from now on."""
    connection = _current.get()
    made = begin_request() if connection is None else f"{connection}-{number}"
    _current.set(made)
    return made


def go_on_as(name: str) -> None:
    """Let *name* be the id of what the task works on from now on."""
    _current.set(name[:LONGEST])
