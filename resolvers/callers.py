"""Who asks, as far as the connection itself tells, and what only some may do."""

from __future__ import annotations

from dataclasses import dataclass

from market.errors import BargraphError


class Forbidden(BargraphError):
    """What whoever asks may not do."""

    code = "FORBIDDEN"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent an operation. *local* says that it is at the machine the server runs on.

    *address* is the one that its requests are counted under.
    """

    local: bool
    address: str = ""


ANYBODY = Caller(local=False)
"""Someone of whom nothing is known: what they may do, all may."""


def check_local(caller: Caller, action: str) -> None:
    """Raise `Forbidden` unless *caller* is at the server's machine; *action* names what for."""
    if not caller.local:
        raise Forbidden(
            f"{action} is allowed only from the machine the server runs on, without a proxy."
        )
