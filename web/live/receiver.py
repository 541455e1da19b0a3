"""The seam between an operation and the client that asked for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

Errors = Sequence[Mapping[str, Any]]
"""Errors as clients see them."""


class Receiver(Protocol):
    """One operation of one client, whatever carries it there."""

    @property
    def over(self) -> bool:
        """Whether nothing follows: the operation ended, or the client left."""
        ...

    def next(self, body: bytes, passing: Hashable | None = None) -> None:
        """Send *body*, a GraphQL response in JSON, or keep it until the client can take it.

        It never waits. A client that has too much kept for it is given up.
        """

    async def ready(self) -> None:
        """Wait until nothing is kept for this client: who can wait does, before `next`."""

    def finish(self, errors: Errors | None = None) -> None:
        """Say that nothing will follow, and why if it failed."""

    def expel(self, errors: Errors) -> None:
        """End the operation from outside and say why. What it still does is cancelled."""

    def fall_behind(self) -> None:
        """Give the client up: it did not take what must not be dropped."""
